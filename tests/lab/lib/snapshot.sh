#!/bin/bash
# Prints what a lab host holds, as text that is the same whenever the host holds the same.
# Runs inside the host, in a session of its own.
set -u
export LC_ALL=C

# The whole of a snapshot is one session, and the setsid that waits for it: no resources of the host.
processes() {
	local own state stat line session dir
	read -r line </proc/self/stat
	read -r _ _ _ own _ <<<"${line##*) }"
	for dir in /proc/[0-9]*; do
		read -r stat 2>/dev/null <"$dir/stat" || continue
		read -r state _ _ session _ <<<"${stat##*) }"
		[[ $session == "$own" || ${dir#/proc/} == "$PPID" ]] && continue
		line=${stat%)*}
		[[ $state == Z ]] && line+=" zombie"
		echo "process ${line#*(}"
	done | sort
}

mounts() {
	awk '{ for (i = 7; $i != "-"; i++); print "mount", $5, $(i + 1), $4, $6, $(i + 3) }' /proc/1/mountinfo | sort
}

links() {
	ip -o link | sed -E 's/^[0-9]+: ([^:]+): <([^>]*)>.* mtu ([0-9]+).* state ([A-Z]+).*link\/([a-z0-9]+) ?([0-9a-f:]*).*/link \1 \5 \6 mtu \3 \4 \2/' | sort
	ip -o address | awk '{ print "address", $2, $3, $4 }' | sort
	{ ip route show table all; ip -6 route show table all; } | sed 's/^/route /; s/ *$//' | sort -u
	{ ip rule; ip -6 rule; } | sed 's/^/rule /' | sort
	# The handle of a discipline is chosen by the kernel unless somebody names it.
	tc qdisc show | awk '{ $3 = ""; print }' | sort
}

firewall() {
	nft list tables 2>/dev/null | sort
	cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null | sed 's/^/iptables /' | sort
}

counts() {
	awk -v kind="$1" 'END { print "sysvipc", kind, NR - 1 }' "/proc/sysvipc/$1"
}

all_processes=$(processes)
echo "processes $(grep -c . <<<"$all_processes")"
echo "$all_processes"
find /proc/1/fd -mindepth 1 -printf 'init-descriptor %f %l\n' | sort
mounts
links
firewall
counts shm
counts sem
counts msg
find /run /var/lib/phaul -mindepth 1 -printf 'file %p %y\n' | sort
find /dev/shm /dev/mqueue -mindepth 1 -printf 'file %p %y\n' | sort
find /sys/fs/cgroup -mindepth 2 -type d -printf 'cgroup %p\n' | sort
