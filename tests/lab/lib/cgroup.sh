# shellcheck shell=bash disable=SC2034,SC2154 # it shares its variables with lab
# Control groups of the lab: each host has one in every hierarchy, and sees it as the root of its cgroup namespace.
# Two hosts may therefore hold containers of the same id, and what is left in a host's group is all the host's.
# Sourced by lab. A cgroup file holds one directory per line, all of them below the group of whoever called "lab up".

# Prints the host's directory in each hierarchy that is mounted. No command is run: "lab up" has no time for that.
cgroup_paths() {
	local group=$1 id controllers path mountpoint type options line
	local -A where=()
	while read -r line; do
		# mountinfo: id parent dev root mountpoint options [optional...] - type source superblock-options
		read -r _ _ _ _ mountpoint _ <<<"$line"
		read -r type _ options <<<"${line#* - }"
		case $type in
		cgroup) where[${options#rw,}]=$mountpoint ;;
		cgroup2) where[v2]=$mountpoint ;;
		esac
	done < <(grep -E ' - cgroup2? ' /proc/self/mountinfo)
	while IFS=: read -r id controllers path; do
		[[ $id == 0 ]] && controllers=v2
		[[ -n ${where[$controllers]:-} ]] || continue
		printf '%s\n' "${where[$controllers]}${path%/}/$group"
	done </proc/self/cgroup
}

# cpuset groups begin without any processor or memory node, and refuse tasks until they have some.
cgroup_make() {
	local dir file
	for dir in "$@"; do
		mkdir -p "$dir" || return 1
		for file in cpuset.cpus cpuset.mems; do
			[[ -f $dir/$file && -z $(<"$dir/$file") ]] || continue
			cat "$dir/../$file" >"$dir/$file" || return 1
		done
		[[ ! -f $dir/cpuset.cpus || ! -f $dir/cgroup.clone_children ]] || echo 1 >"$dir/cgroup.clone_children"
	done
}

# Moves the calling shell itself.
cgroup_enter() {
	local dir
	for dir in "$@"; do
		echo 0 >"$dir/cgroup.procs" || return 1
	done
}

# Prints the pids in the groups and below them. Stopped groups are let go: a frozen task does not die.
cgroup_thaw_and_list() {
	local dir group pid
	for dir in "$@"; do
		[[ -d $dir ]] || continue
		while read -r group; do
			[[ ! -w $group/freezer.state ]] || echo THAWED >"$group/freezer.state"
			[[ ! -w $group/cgroup.freeze ]] || echo 0 >"$group/cgroup.freeze"
			while read -r pid; do
				[[ $pid == 0 ]] || echo "$pid"
			done <"$group/cgroup.procs"
		done < <(find "$dir" -type d) 2>/dev/null
	done | sort -un
}

cgroup_remove() {
	local dir
	for dir in "$@"; do
		[[ ! -d $dir ]] || find "$dir" -depth -type d -exec rmdir {} + || return 1
	done
}
