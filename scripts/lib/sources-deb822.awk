# apt sources in deb822 format, turned into files OUT/deb822-N.sources that ask the same servers,
# with the same keys, for source packages. A key may stand in the stanza itself, over several
# lines; it is passed on as it is. -v out=DIRECTORY

/^#/ { next }

/^[[:space:]]*$/ { finish(); next }

/^[[:space:]]/ {
	if (name != "")
		value[name] = value[name] "\n" $0
	next
}

/^[A-Za-z-]+:/ {
	colon = index($0, ":")
	name = tolower(substr($0, 1, colon - 1))
	value[name] = substr($0, colon + 1)
	sub(/^[[:space:]]+/, "", value[name])
}

END { finish() }

function finish(    count, i, uri, file, key) {
	if (value["uris"] != "" && tolower(value["enabled"]) !~ /^(no|false|off|without|disable)/) {
		key = value["signed-by"]
		count = split(value["uris"], uri, /[[:space:]]+/)
		for (i = 1; i <= count; i++) {
			if (uri[i] == "" || uri[i] ~ /^cdrom:/ || seen[uri[i], key]++)
				continue
			file = sprintf("%s/deb822-%d.sources", out, ++number)
			printf "Types: deb-src\nURIs: %s\nSuites: -\nComponents: main\n", uri[i] >file
			if (key != "")
				printf "Signed-By:%s%s\n", key ~ /^\n/ ? "" : " ", key >file
			close(file)
		}
	}
	split("", value)
	name = ""
}
