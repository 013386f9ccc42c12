/*
 * Frames for a container, kept by a packet socket and given to the container's veth later. Internal to net/ (guard.h).
 *
 * A socket of its own sees what comes in by ports of bridges, before the bridge does, and what this host sends through its bridges: copies, so
 * whoever captures drops the originals. Not an nfnetlink queue, for not every kernel has that for bridges (6.18: the target NFQUEUE of xtables is for
 * IP only). Frames go to the host's end of the veth and not to the bridge, which might flood them: another switch would learn the sender's address
 * from it. Frames with a VLAN tag are not captured. Source: packet(7), linux/filter.h.
 */
#pragma once

#include "net/guard.h"

struct capture_port {
	int index, master; /* of a bridge's port, and of the bridge */
};

/* Captures nothing yet. */
int capture_open(int *ret_fd);

/* From here on frames for these, and questions after their addresses, are kept: at most CAPTURE_BYTES_MAX of kernel memory, the youngest are dropped.
 * 0 or a negative errno. */
int capture_begin(int fd, const struct capture_port *ports, size_t n_ports, const struct net_neighbour *list, size_t n);

/* Captures nothing any more, and sends what was kept into the veths of the container: devices is what net_place_devices() says of it. */
int capture_deliver(int fd, const struct capture_port *ports, size_t n_ports, const struct net_device *devices,
		    size_t n_devices, struct net_hold_counts *counts);

/* Captures nothing any more, and forgets what was kept. */
int capture_drop(int fd);
