#!/bin/bash
# Makes a lab host out of the fresh namespaces it is started in, says "ready" on stdout, and becomes the host's init.
# Started by "lab-init start host"; stderr is the host's log. Everything it mounts is private to the host.
#
#   host.sh NAME OWN SHARED HOSTS INIT LAST_PID
#   OWN: the host's directory of its own; SHARED: the directory all hosts share; HOSTS: the lab's /etc/hosts
set -eu

name=$1 own=$2 shared=$3 hosts=$4 init=$5 last_pid=$6

# Each host writes to these as it likes; the machine's own stay as they are.
private_copies=(/etc /root /var/cache /var/lib /var/log /var/spool)
# Engines stack overlays of their own here, which does not work on top of an overlay.
private_trees=(/var/lib/containerd /var/lib/containers /var/lib/docker /var/lib/lxc /var/lib/phaul /var/tmp /srv/local)
device_nodes=(null zero full random urandom tty fuse kvm userfaultfd kmsg net/tun)

# The fields of mountinfo are escaped (a blank is \040); printf %b undoes that.
mountinfo() {
	local _ mountpoint options rest
	while read -r _ _ _ _ mountpoint options rest; do
		printf -v mountpoint %b "$mountpoint"
		# rest: optional fields, "-", type, source, superblock options
		rest=${rest#*- }
		printf '%s\t%s\t%s\n' "$mountpoint" "${rest%% *}" "${rest##* }"
	done </proc/self/mountinfo
}

# Mounts of their own, so that they stay writable when what they lie on becomes read-only.
hold_own_directories() {
	mkdir -p "$own/dev" "$own/shared"
	mount --bind "$own" "$own"
	mount --bind "$shared" "$own/shared"
}

# Others' mounts below directories that each host has of its own would only be pinned here.
drop_hidden_mounts() {
	local mountpoint _
	while IFS=$'\t' read -r mountpoint _; do
		case $mountpoint in
		"$own" | "$own"/*) continue ;;
		/run/* | /tmp/* | /var/tmp/* | /srv/*) umount -l "$mountpoint" 2>/dev/null || : ;;
		esac
	done < <(mountinfo)
}

make_read_only() {
	local mountpoint _
	while IFS=$'\t' read -r mountpoint _; do
		case $mountpoint in
		"$own" | "$own"/*) continue ;;
		/proc | /proc/* | /sys | /sys/* | /dev | /dev/* | /run | /run/* | /tmp | /tmp/*) continue ;;
		esac
		# A mount hidden under a later one cannot be reached by its path, nor by anybody else.
		mount -o remount,bind,ro "$mountpoint" || echo "left as it is: $mountpoint" >&2
	done < <(mountinfo)
}

make_private_copies() {
	local dir
	for dir in "${private_copies[@]}"; do
		[[ -d $dir ]] || continue
		mkdir -p "$own/upper$dir" "$own/work$dir"
		chown --reference="$dir" "$own/upper$dir"
		chmod --reference="$dir" "$own/upper$dir"
		mount -t overlay "lab-$name" -o "lowerdir=$dir,upperdir=$own/upper$dir,workdir=$own/work$dir" "$dir"
	done
}

# /srv on the machine may lack the mount points, and is not ours to write to.
make_private_trees() {
	local dir
	mount -t tmpfs -o mode=755,size=1m tmpfs /srv
	mkdir /srv/shared
	mount --bind "$own/shared" /srv/shared
	for dir in "${private_trees[@]}"; do
		mkdir -p "$own/tree$dir"
		[[ -d $dir ]] || mkdir -p "$dir"
	done
	chmod 1777 "$own/tree/var/tmp" "$own/tree/srv/local"
	chmod 710 "$own/tree/var/lib/docker"
	for dir in "${private_trees[@]}"; do
		[[ $dir == /var/tmp ]] || mount --bind "$own/tree$dir" "$dir"
	done
	mount --bind "$hosts" /etc/hosts
	# What follows may hide the lab's directory, so it comes last; the cover on $own goes with it.
	mkdir /srv/.staged
	mount --bind "$own/tree/var/tmp" /srv/.staged
	exec 7<"$init"
	umount -l "$own"
	mount --move /srv/.staged /var/tmp
	rmdir /srv/.staged
	mount -t tmpfs -o mode=1777 tmpfs /tmp
}

make_run() {
	mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
	mkdir -m 1777 /run/lock
	mkdir /run/sshd
	if getent passwd postgres >/dev/null; then
		install -d -o postgres -g postgres -m 2775 /run/postgresql
	fi
}

make_devices() {
	local node type major minor mode
	local -a present=()
	mount -t tmpfs -o mode=755,nosuid tmpfs "$own/dev"
	mkdir "$own/dev/pts" "$own/dev/shm" "$own/dev/mqueue" "$own/dev/net"
	for node in "${device_nodes[@]}"; do
		[[ -c /dev/$node ]] && present+=("/dev/$node")
	done
	while read -r node type major minor mode; do
		mknod -m "$mode" "$own$node" "$type" "$((16#$major))" "$((16#$minor))"
	done < <(stat -c '%n c %t %T %a' "${present[@]}")
	ln -s pts/ptmx "$own/dev/ptmx"
	ln -s /proc/self/fd "$own/dev/fd"
	ln -s fd/0 "$own/dev/stdin"
	ln -s fd/1 "$own/dev/stdout"
	ln -s fd/2 "$own/dev/stderr"
	umount -l /dev
	mount --move "$own/dev" /dev
	mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts /dev/pts
	mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
	mount -t mqueue mqueue /dev/mqueue
}

# sysfs shows the network namespace of whoever mounts it, and the cgroup mounts the cgroup namespace: both anew.
make_sys() {
	local mountpoint type options line
	local -a mounts
	mapfile -t mounts < <(mountinfo)
	umount -l /sys
	mount -t sysfs sysfs /sys
	for line in "${mounts[@]}"; do
		IFS=$'\t' read -r mountpoint type options <<<"$line"
		[[ $mountpoint == /sys/* ]] || continue
		case $type in
		tmpfs)
			mount -t tmpfs -o mode=755 tmpfs "$mountpoint"
			;;
		cgroup)
			options=${options#rw,}
			[[ $options == *name=* ]] && options=none,$options
			mkdir -p "$mountpoint"
			mount -t cgroup -o "$options" cgroup "$mountpoint"
			;;
		cgroup2 | securityfs | debugfs | tracefs | bpf)
			[[ -d $mountpoint ]] || mkdir -p "$mountpoint"
			mount -t "$type" "$type" "$mountpoint"
			;;
		esac
	done
}

make_proc() {
	umount -l /proc
	mount -t proc proc /proc
	echo "$last_pid" >/proc/sys/kernel/ns_last_pid
}

# No waiting for duplicate addresses, and bridge filters of the machine stay off.
set_up_network_stack() {
	local scope
	for scope in all default; do
		[[ -d /proc/sys/net/ipv6 ]] || break
		echo 0 >/proc/sys/net/ipv6/conf/$scope/accept_dad
		echo 0 >/proc/sys/net/ipv6/conf/$scope/dad_transmits
		echo 0 >/proc/sys/net/ipv6/conf/$scope/accept_ra
	done
	ip link set lo up
}

# The source tree, programs included, is where it is on the machine, also when that is below a directory that each host has of its own (/tmp).
show_source_tree() {
	[[ $source/lib/host.sh -ef /proc/self/fd/8/lib/host.sh ]] && return
	mkdir -p "$top"
	mount --no-canonicalize --bind /proc/self/fd/9 "$top"
	mount -o remount,bind,ro "$top"
}

source=$(cd "$(dirname "$0")/.." && pwd -P)
top=$(cd "$source/../.." && pwd -P)
exec 8<"$source" 9<"$top"
mount --make-rprivate /
echo "$name" >/proc/sys/kernel/hostname
hold_own_directories
drop_hidden_mounts
make_proc
set_up_network_stack
make_sys
make_devices
make_read_only
make_private_copies
echo "$name" >/etc/hostname
mkdir -p /etc/criu /etc/phaul
make_run
make_private_trees
show_source_tree
exec 8<&- 9<&-
echo ready
exec /proc/self/fd/7 init
