# One-line apt sources, "deb [options] URI SUITE COMPONENT...", turned into files OUT/list-N.sources
# that ask the same server, with the same key, for source packages. -v out=DIRECTORY

{ sub(/#.*/, "") }

$1 == "deb" || $1 == "deb-src" {
	line = $0
	key = ""
	if (match(line, /\[[^]]*\]/)) {
		options = substr(line, RSTART + 1, RLENGTH - 2)
		line = substr(line, 1, RSTART - 1) " " substr(line, RSTART + RLENGTH)
		count = split(options, option, " ")
		for (i = 1; i <= count; i++)
			if (tolower(option[i]) ~ /^signed-by=/)
				key = substr(option[i], 11)
	}
	split(line, field, " ")
	uri = field[2]
	if (uri == "" || uri ~ /^cdrom:/ || seen[uri, key]++)
		next
	gsub(/,/, " ", key)
	file = sprintf("%s/list-%d.sources", out, ++number)
	printf "Types: deb-src\nURIs: %s\nSuites: -\nComponents: main\n", uri >file
	if (key != "")
		printf "Signed-By: %s\n", key >file
	close(file)
}
