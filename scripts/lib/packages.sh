# Packages of the distribution: what is missing, and installing it. Sourced by scripts/setup.
# shellcheck shell=bash

readonly PACKAGE_LIST=$HERE/packages

# Entries ("name|alternative...") of the given groups, each once.
packages_of_groups() {
	awk -v groups=" $* " '
		/^[[:space:]]*(#|$)/ { next }
		NF != 2 { printf "setup: %s:%d: expected GROUP PACKAGE\n", FILENAME, FNR > "/dev/stderr"; next }
		index(groups, " " $1 " ") && !seen[$2]++ { print $2 }
	' "$PACKAGE_LIST"
}

# Sets MISSING_PACKAGES to the entries of the groups of which no alternative is installed.
packages_find_missing() {
	local -a entries names
	local -A installed=()
	local entry name status

	MISSING_PACKAGES=()
	mapfile -t entries < <(packages_of_groups "$@")
	[ ${#entries[@]} -gt 0 ] || die "no packages in the groups '$*' of $PACKAGE_LIST"
	if ! command -v dpkg-query >/dev/null; then
		MISSING_PACKAGES=("${entries[@]}")
		return
	fi
	IFS='|' read -r -d '' -a names < <(printf '%s|' "${entries[@]}"; printf '\0')
	while read -r status name; do
		[ "$status" = installed ] && installed[$name]=1
	done < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${names[@]}" 2>/dev/null)

	for entry in "${entries[@]}"; do
		IFS='|' read -r -a names <<<"$entry"
		for name in "${names[@]}"; do
			[ -z "${installed[$name]:-}" ] || continue 2
		done
		MISSING_PACKAGES+=("$entry")
	done
}

# Runs apt-get, and again while another program holds one of its locks: DPkg::Lock::Timeout
# covers dpkg's lock only, not those of the lists and of the archives.
apt_get() {
	local log=$WORK_DIR/apt.log deadline=$((SECONDS + LOCK_WAIT_SECONDS)) status
	while :; do
		DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 APT_LISTCHANGES_FRONTEND=none \
			apt-get -o "DPkg::Lock::Timeout=$LOCK_WAIT_SECONDS" \
			-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
			-o Dpkg::Use-Pty=0 "$@" </dev/null >"$log" 2>&1
		status=$?
		[ $status -ne 0 ] || return 0
		grep -qE '^E: (Could not get lock|Unable to lock)' "$log" || break
		[ $SECONDS -lt $deadline ] || {
			warn "another program has held apt's lock for $LOCK_WAIT_SECONDS s"
			break
		}
		sleep 1
	done
	return $status
}

# What apt had to say in its last run, or in the given log.
apt_complaint() {
	grep -E '^(E|W|Err):?' "${1:-$WORK_DIR/apt.log}" | head -n 8 | sed 's/^/setup:     apt: /' >&2
}

apt_update_once() {
	[ -z "${APT_UPDATED:-}" ] || return 0
	APT_UPDATED=yes
	say "apt-get update"
	apt_get -qq update || {
		warn "apt-get update failed; going on with the package lists that are there"
		apt_complaint
	}
}

# The version that the system's apt sources offer of a package; empty if none.
apt_candidate() {
	apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -vx '(none)'
}

# Installs one alternative of each entry. Those nobody offers are named; the rest goes in all the
# same. Fails if anything is left out.
packages_install() {
	local -a names wanted=()
	local entry name status=0

	apt_update_once
	for entry in "$@"; do
		IFS='|' read -r -a names <<<"$entry"
		for name in "${names[@]}"; do
			[ -n "$(apt_candidate "$name")" ] || continue
			wanted+=("$name")
			continue 2
		done
		warn "no package ${entry//|/ or } in this system's apt sources"
		status=1
	done
	[ ${#wanted[@]} -gt 0 ] || return $status

	say "installing ${wanted[*]}"
	services_deny
	apt_new_packages "${wanted[@]}"
	if ! apt_get -qq -y --no-install-recommends install "${wanted[@]}"; then
		warn "apt-get install failed:"
		apt_complaint
		status=1
	fi
	services_disable_of "${NEW_PACKAGES[@]}"
	services_allow
	return $status
}

# Sets NEW_PACKAGES to what installing the given packages would add (not upgrade).
apt_new_packages() {
	mapfile -t NEW_PACKAGES < <(
		apt-get -s -qq --no-install-recommends install "$@" 2>/dev/null |
			awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }')
}
