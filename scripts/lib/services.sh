# Keeps services that come with packages from running. Sourced by scripts/setup.
#
# While apt works, /usr/sbin/policy-rc.d forbids starting services; whatever stood there before is
# kept beside it, is asked for everything else, and comes back at the end. If the set-up is killed
# outright, the leftover does no harm: it forbids only as long as somebody holds the set-up's
# lock, and the next run puts the old one back.
# shellcheck shell=bash

readonly SETUP_LOCK=/run/phaul-setup.lock
readonly POLICY=/usr/sbin/policy-rc.d
readonly POLICY_SAVED=$POLICY.before-phaul-setup
readonly POLICY_MARK='Written by phaul scripts/setup while it installs packages.'

policy_is_ours() { [ -f "$POLICY" ] && grep -qF "$POLICY_MARK" "$POLICY"; }

services_deny() {
	policy_is_ours && return
	if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then
		cp -a "$POLICY" "$POLICY_SAVED.new" && mv -f "$POLICY_SAVED.new" "$POLICY_SAVED" ||
			die "cannot keep a copy of $POLICY"
	else
		rm -f "$POLICY_SAVED"
	fi
	cat >"$POLICY.new" <<-EOF || die "cannot write $POLICY.new"
	#!/bin/sh
	# $POLICY_MARK
	# No service is started while that goes on; see policy-rc.d(8).
	service= actions=
	for argument; do
	    # the actions come second, after the name of the service; options start with --
	    case \$argument in
	    --*) ;;
	    *) if [ -z "\$service" ]; then service=\$argument; else actions=\${actions:-\$argument}; fi ;;
	    esac
	done
	case " \$actions " in
	# invoke-rc.d writes "(start)" for what the runlevel would not start by itself
	*[!a-z]start[!a-z]*) flock -n $SETUP_LOCK true || exit 101 ;;
	esac
	[ ! -x $POLICY_SAVED ] || exec $POLICY_SAVED "\$@"
	exit 0
	EOF
	chmod 755 "$POLICY.new" && mv -f "$POLICY.new" "$POLICY" || die "cannot put $POLICY in place"
}

services_allow() {
	policy_is_ours || return 0
	if [ -e "$POLICY_SAVED" ] || [ -L "$POLICY_SAVED" ]; then
		mv -f "$POLICY_SAVED" "$POLICY"
	else
		rm -f "$POLICY"
	fi
}

# After a set-up that was killed; not while another one is at work.
services_recover() {
	policy_is_ours && [ "$(id -u)" -eq 0 ] && flock -n "$SETUP_LOCK" true || return 0
	say "putting back $POLICY, which an interrupted set-up left"
	services_allow
}

# Newly installed packages enable their services for the next boot; nobody asked for that.
services_disable_of() {
	local -a units disabled=()
	local unit
	command -v systemctl >/dev/null && [ $# -gt 0 ] || return 0
	mapfile -t units < <(dpkg-query -L "$@" 2>/dev/null |
		sed -n 's,^\(/usr\)\?/lib/systemd/system/\([^/@]*\.\(service\|socket\|timer\)\)$,\2,p' | sort -u)
	for unit in "${units[@]}"; do
		[ "$(systemctl is-enabled "$unit" 2>/dev/null)" = enabled ] || continue
		systemctl --quiet disable "$unit" >/dev/null 2>&1 && disabled+=("$unit")
	done
	[ ${#disabled[@]} -eq 0 ] || say "left disabled: ${disabled[*]}"
}
