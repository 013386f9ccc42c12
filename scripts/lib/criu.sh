# CRIU: find a usable one, or bring one. Sourced by scripts/setup.
#
# Usable means: at least CRIU_MINIMUM, and `criu check` passes on this kernel. Taken in this order:
# what is on PATH; the distribution's package; a build of Debian's source. The source is fetched
# by apt itself, through a sources file and a lists directory of our own, from the servers that
# the system's apt configuration names, and is checked against their signed index.
# shellcheck shell=bash

# True if version $1 is at least version $2 (numbers and dots).
version_at_least() {
	[ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# Sets CRIU_PATH and CRIU_VERSION; sets CRIU_PROBLEM to a sentence if that CRIU will not do.
criu_find() {
	CRIU_PROBLEM= CRIU_VERSION=
	# sbin is not on everybody's PATH
	CRIU_PATH=$(PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin type -P criu) || {
		CRIU_PROBLEM="criu $CRIU_MINIMUM or newer (there is none on PATH)"
		return
	}
	criu_judge "$CRIU_PATH"
}

# Judges the program $1; sets CRIU_VERSION and CRIU_PROBLEM.
criu_judge() {
	local output
	CRIU_PROBLEM=
	CRIU_VERSION=$("$1" --version 2>/dev/null </dev/null | sed -n 's/^Version: *\([0-9][0-9.]*\).*/\1/p')
	if [ -z "$CRIU_VERSION" ]; then
		CRIU_PROBLEM="criu $CRIU_MINIMUM or newer ($1 does not start: $("$1" --version 2>&1 | head -n 1))"
	elif ! version_at_least "$CRIU_VERSION" "$CRIU_MINIMUM"; then
		CRIU_PROBLEM="criu $CRIU_MINIMUM or newer ($1 is $CRIU_VERSION)"
	elif [ "$(id -u)" -eq 0 ] && ! output=$("$1" check 2>&1 </dev/null); then
		# criu check needs root; without it the version has to do
		CRIU_PROBLEM="a criu that works on this kernel ($1 check: $(
			printf '%s\n' "$output" | grep -m 1 Error || printf '%s\n' "$output" | tail -n 1))"
	fi
}

criu_install() {
	local candidate
	say "criu: $CRIU_PROBLEM"
	apt_update_once
	candidate=$(apt_candidate criu)
	candidate=${candidate#*:}
	if [ -n "$candidate" ] && version_at_least "${candidate%%[-+~]*}" "$CRIU_MINIMUM"; then
		packages_install criu && criu_find
		[ -n "$CRIU_PROBLEM" ] || return 0
		say "criu: the distribution's package will not do: $CRIU_PROBLEM"
	fi
	criu_install_from_source || return
	hash -r
	criu_find
	[ -z "$CRIU_PROBLEM" ] ||
		warn "criu: $CRIU_INSTALL_TO works, but another one comes before it on PATH"
}

criu_install_from_source() {
	local suite
	packages_find_missing criu
	[ ${#MISSING_PACKAGES[@]} -eq 0 ] || packages_install "${MISSING_PACKAGES[@]}" || {
		warn "criu: cannot be compiled without these packages"
		return 1
	}
	for suite in $CRIU_SUITES; do
		criu_fetch "$suite" || continue
		criu_build || continue
		criu_judge "$CRIU_TREE/criu/criu"
		if [ -n "$CRIU_PROBLEM" ]; then
			warn "criu: built $CRIU_VERSION, but: $CRIU_PROBLEM"
			continue
		fi
		install_file 755 "$CRIU_TREE/criu/criu" "$CRIU_INSTALL_TO" &&
			install_file 644 "$CRIU_TREE/images/rpc.proto" "$RPC_PROTO_INSTALL_TO" || return
		say "criu: installed $CRIU_VERSION as $CRIU_INSTALL_TO"
		return 0
	done
	warn "criu: no source that compiles and works here; install criu $CRIU_MINIMUM or newer by hand," \
		"somewhere on PATH"
	return 1
}

# The protocol of CRIU's RPC, from which phaul's build generates code.
rpc_proto_find() {
	local file
	RPC_PROTO_PROBLEM=
	for file in "$RPC_PROTO_INSTALL_TO" /usr/include/criu/rpc.proto; do
		# distributions ship old ones too; the newest field of CRIU_MINIMUM tells them apart
		if [ -f "$file" ] && grep -q 'log_to_stderr' "$file"; then
			return
		fi
	done
	RPC_PROTO_PROBLEM="CRIU's rpc.proto ($RPC_PROTO_INSTALL_TO)"
}

rpc_proto_install() {
	local suite
	for suite in $CRIU_SUITES; do
		criu_fetch "$suite" || continue
		install_file 644 "$CRIU_TREE/images/rpc.proto" "$RPC_PROTO_INSTALL_TO" && return
	done
	warn "criu: cannot fetch rpc.proto; copy it from CRIU's source (images/rpc.proto) to" \
		"$RPC_PROTO_INSTALL_TO"
	return 1
}

# A running migration may be using the old file: the new one replaces it in one step.
install_file() {
	local mode=$1 from=$2 to=$3
	mkdir -p "$(dirname "$to")" &&
		install -m "$mode" "$from" "$to.new.$$" && mv -f "$to.new.$$" "$to" || {
		warn "cannot install $to"
		rm -f "$to.new.$$"
		return 1
	}
}

# Fetches and unpacks CRIU's source of a suite; sets CRIU_TREE.
criu_fetch() {
	local suite=$1 source directory
	sources_derive "$WORK_DIR/sources"
	: >"$WORK_DIR/fetch.log"
	for source in "$WORK_DIR"/sources/*.sources; do
		[ -e "$source" ] || break
		directory=$WORK_DIR/$suite.$(basename "$source" .sources)
		if criu_fetch_from "$suite" "$source" "$directory"; then
			say "criu: source of $suite: $(basename "$CRIU_TREE")"
			return 0
		fi
	done
	warn "criu: none of the servers of this system's apt sources offers the source of suite $suite"
	apt_complaint "$WORK_DIR/fetch.log"
	return 1
}

criu_fetch_from() {
	local suite=$1 source=$2 directory=$3 archive
	local -a private
	if [ ! -d "$directory" ]; then
		mkdir -p "$directory"/{parts,lists/partial,archive,tree} || return
		id -u _apt >/dev/null 2>&1 && chown -R _apt "$directory/lists" "$directory/archive"
		sed "s/^Suites:.*/Suites: $suite/" "$source" >"$directory/parts/criu.sources"
		private=(-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$directory/parts"
			-o "Dir::State::Lists=$directory/lists"
			-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Default-Release=
			-o APT::Update::Error-Mode=any -o Acquire::Languages=none
			-o Acquire::AllowInsecureRepositories=false -o Acquire::AllowWeakRepositories=false
			-o APT::Get::AllowUnauthenticated=false)
		apt_get "${private[@]}" -qq update &&
			grep -qx 'Origin: Debian' "$directory"/lists/*Release 2>/dev/null &&
			(cd "$directory/archive" &&
				apt_get "${private[@]}" -qq source --download-only --tar-only criu)
	fi
	archive=$(echo "$directory"/archive/criu_*.orig.tar.*)
	[ -f "$archive" ] || {
		[ ! -f "$WORK_DIR/apt.log" ] || cat "$WORK_DIR/apt.log" >>"$WORK_DIR/fetch.log"
		return 1
	}
	CRIU_TREE=$(echo "$directory"/tree/*/)
	if [ ! -d "$CRIU_TREE" ]; then
		tar -C "$directory/tree" --no-same-owner -xf "$archive" || return
		CRIU_TREE=$(echo "$directory"/tree/*/)
	fi
	[ -f "$CRIU_TREE/images/rpc.proto" ]
}

criu_build() {
	local log=$WORK_DIR/criu-build.log
	say "criu: compiling (about half a minute)"
	# not a sub-make of the make that may have called us
	(cd "$CRIU_TREE" && env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u MAKEOVERRIDES -u CFLAGS -u LDFLAGS \
		-u CC -u DESTDIR -u PREFIX -u V make -j"$(nproc)" WERROR=0 criu) >"$log" 2>&1 </dev/null && return
	warn "criu: does not compile:"
	grep -m 5 -E '[Ee]rror' "$log" | sed 's/^/setup:     /' >&2
	return 1
}

# Writes one deb822 file per server of the system's apt sources into directory $1: the same URI
# and the same key, as a source of sources. Reads both formats apt knows.
sources_derive() {
	local out=$1 list=/etc/apt/sources.list parts=/etc/apt/sources.list.d
	[ ! -d "$out" ] || return 0
	mkdir -p "$out"
	eval "$(apt-config shell list Dir::Etc::SourceList/f parts Dir::Etc::SourceParts/d)"
	print_files "$list" "${parts%/}"/*.list | awk -v out="$out" -f "$HERE/lib/sources-list.awk"
	print_files "${parts%/}"/*.sources | awk -v out="$out" -f "$HERE/lib/sources-deb822.awk"
}

# The files among the arguments that exist, with an empty line after each: a stanza ends with its file.
print_files() {
	local file
	for file; do
		[ ! -f "$file" ] || { cat "$file"; echo; }
	done
}
