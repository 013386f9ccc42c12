# shellcheck shell=bash disable=SC2034,SC2154 # it shares its variables with lab
# The lab's network: a bridge in a network namespace of its own, and one port per host. Sourced by lab.

subnet4=10.77.0 subnet6=fd77:: prefix4=24 prefix6=64

in_switch() { nsenter -t "$switch_pid" -n "$@"; }

net_address() { echo "$subnet4.$1"; }
net_address6() { printf '%s%x\n' "$subnet6" "$1"; }

# Runs in the switch's namespace before it holds: a bridge that forwards from the first packet on.
net_switch_commands() {
	cat <<-'END'
		link set dev lo up
		link add name switch type bridge stp_state 0 forward_delay 0 mcast_snooping 0
		link set dev switch up
	END
}

# Numbers, not names, are in the names of ports: a host's name may be longer than a link's.
net_port_commands() {
	local index=$1 pid=$2 mac
	printf -v mac '02:77:00:00:00:%02x' "$index"
	cat <<-END
		link add name port$index type veth peer name eth0 address $mac netns $pid
		link set dev port$index master switch up
	END
}

net_host_commands() {
	cat <<-END
		address add $(net_address "$1")/$prefix4 brd + dev eth0
		address add $(net_address6 "$1")/$prefix6 dev eth0 nodad
		link set dev eth0 up
	END
}

# Debian's own. The machine's may be another: bbr looks for the shortest way every 10 s, with next to nothing under way for 200 ms,
# and paces what it sends; its waits of up to 60 ms would be taken for the migration's. Namespaces that the host makes have the machine's.
net_congestion_commands() { echo "echo cubic >/proc/sys/net/ipv4/tcp_congestion_control"; }

# A kernel built with another default keeps cubic to its first network namespace until that one allows it to all; the permission stays.
net_allow_congestion() {
	local list=/proc/sys/net/ipv4/tcp_allowed_congestion_control allowed
	allowed=$(<"$list")
	[[ " $allowed " == *" cubic "* ]] || echo "$allowed cubic" >"$list"
}

# Egress of both ends: towards the host at the switch, away from it at the host. The burst is above the largest
# offloaded packet, or the shaper would have to cut it up; 20 ms of queue is what a small switch has.
net_rate_commands() {
	local link=$1 rate=$2
	if [[ $rate == none ]]; then
		echo "qdisc delete dev $link root"
	else
		echo "qdisc replace dev $link root tbf rate $rate burst 256kb latency 20ms"
	fi
}

net_set_rate() {
	local index=$1 pid=$2 rate=$3 had=$4
	[[ $rate == none && $had == none ]] && return
	net_rate_commands "port$index" "$rate" | in_switch tc -batch - &&
		net_rate_commands eth0 "$rate" | nsenter -t "$pid" -n tc -batch -
}
