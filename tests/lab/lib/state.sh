# shellcheck shell=bash disable=SC2034,SC2154 # it shares its variables with lab
# What the lab knows about itself, in files, so that any invocation can go on from there. Sourced by lab.
#
#   $base/LAB/switch, hosts/NAME/pid   "PID STARTTIME" of the process that holds the namespaces
#   hosts/NAME/{index,rate,link}       number on the subnet; rate or "none"; "up" or "cut"
#   cgroups                            every control group made, one per line, written before it is made
#   hosts/NAME/own                     what only that host sees; shared: what all of them see
#   hosts/NAME/log                     what its set-up said
#
# Whoever changes a lab holds a lock on its directory. Readers need none: files appear complete.

# Down removes the directory that it holds the lock on, so a lock counts only when it is on what the path means now.
state_lock() {
	[[ ! -e $base || (-O $base && -d $base && ! -L $base) ]] || die "$base is not a directory of root's: remove it, or set PHAUL_LAB_DIR"
	while :; do
		(umask 077 && mkdir -p "$base") && mkdir "$lab_dir" 2>/dev/null
		exec 9<"$lab_dir" || continue
		flock 9
		[[ $lab_dir -ef /proc/self/fd/9 ]] && return
	done
}

# For down, which must not make what it is to remove.
state_lock_existing() {
	while [[ -d $lab_dir ]]; do
		exec 9<"$lab_dir" || continue
		flock 9
		[[ $lab_dir -ef /proc/self/fd/9 ]] && return 0
	done 2>/dev/null
	return 1
}

# A pid alone could be somebody else's by now; with its start time it is not.
state_start_time() {
	local stat
	read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
	stat=${stat##*) }
	[[ $stat != Z* ]] || return 1
	# shellcheck disable=SC2086 # split on purpose: field 22 of stat is the 20th after the name
	set -- $stat
	ret_start_time=${20}
}

state_write_process() {
	state_start_time "$2" && echo "$2 $ret_start_time" >"$1"
}

# Sets ret_pid when the process noted in the file is there.
state_read_process() {
	local start_time
	read -r ret_pid start_time 2>/dev/null <"$1" && state_start_time "$ret_pid" && [[ $ret_start_time == "$start_time" ]]
}

state_require_host() {
	[[ -d $lab_dir/hosts/$1 ]] || die "there is no host named $1 in lab $lab (see: lab list)"
	state_read_process "$lab_dir/hosts/$1/pid" || die "host $1 is not running any more: take the lab down"
	host_pid=$ret_pid
	read -r host_index <"$lab_dir/hosts/$1/index"
}

state_require_switch() {
	state_read_process "$lab_dir/switch" || die "the switch of lab $lab is not running: take the lab down"
	switch_pid=$ret_pid
}

state_host_names() {
	local dir
	for dir in "$lab_dir"/hosts/*/; do
		dir=${dir%/}
		[[ ! -d $dir ]] || echo "${dir##*/}"
	done
}

# Written in place, because every host has this very file as its /etc/hosts.
state_write_hosts() {
	local name index
	{
		echo "127.0.0.1 localhost"
		echo "::1 localhost ip6-localhost"
		for name in $(state_host_names); do
			read -r index 2>/dev/null <"$lab_dir/hosts/$name/index" || continue
			echo "$(net_address "$index") $name"
			echo "$(net_address6 "$index") $name-6"
		done
	} >"$lab_dir/etc-hosts"
}
