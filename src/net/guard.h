/*
 * A container's place on this host's bridges, while two copies of it are under way: what happens to frames from and for it. It works where the
 * container's own network namespace is not there yet (LXC makes it with the restore) or comes and goes before anybody can reach into it
 * (Podman makes it, takes it away and makes it again).
 *
 * An nftables table `bridge phaul-ID` at prerouting, of all bridges in the caller's namespace. First SILENT: frames with the container's
 * address as their source are dropped, from every port that was not there when the guard was made; so no switch learns of this copy, and the one that
 * runs elsewhere is heard as ever. Then HOLDING: frames for it are kept (capture.h), and given to its devices when they are there and it
 * runs.
 *
 * The table outlives this process on purpose; net_hold_remove() removes it, too. When this process is gone, frames are dropped.
 */
#pragma once

#include "net/hold.h"

/* Who the neighbours know: an address of the container and the device's. */
struct net_neighbour {
	uint8_t mac[6];
	int family;	   /* AF_INET, AF_INET6; 0: the device has no address */
	uint8_t bytes[16]; /* network order; 4 used for AF_INET */
};

#define NET_NEIGHBOURS_MAX 64

struct net_guard;

/* Silent. id: canonical UUID text. list: copied, at most NET_NEIGHBOURS_MAX. A table of this id that is there is replaced. ret: to be freed with
 * net_guard_free(). -EOPNOTSUPP, -EAFNOSUPPORT: this kernel has no nftables for bridges. */
int net_guard_install(const char *id, const struct net_neighbour *list, size_t n, struct net_guard **ret,
		      struct error *err);

/* Before the freeze: what holding needs. Repeatable. */
int net_guard_get_ready(struct net_guard *g, struct error *err);
/* No longer silent: frames for the container wait. After net_guard_get_ready(). Under a millisecond. Repeatable. */
int net_guard_hold(struct net_guard *g, struct error *err);
/* Silent again; what waits is dropped. For an abort. Repeatable. */
int net_guard_silence(struct net_guard *g, struct error *err);
/* Nothing is dropped or waits any more: what waits goes to the devices of that container, through their ends here. Adds to *ret. A millisecond
 * and 5 us a frame. Where nothing waits container may be NULL. Repeatable. */
int net_guard_lift(struct net_guard *g, const struct net_place *container, struct net_hold_counts *ret,
		   struct error *err);

/* Whether it holds, or can. NULL: false. */
bool net_guard_holds(const struct net_guard *g);

/* Lifted: removes the table, as net_hold_free() does. Otherwise the table stays until net_hold_remove(). NULL is fine. */
void net_guard_free(struct net_guard *g);

/* Tells the neighbours on the far side of a bridge that the container is behind it: as net_address_announce(), but with the container's own
 * addresses, which no device here has. Those without an address are passed over. Tries all; the first failure. */
int net_neighbours_announce(const char *bridge, const struct net_neighbour *list, size_t n, struct error *err);

/* Those of a namespace: each address of its devices, and its devices without one; without link-local IPv4. At most NET_NEIGHBOURS_MAX. */
int net_place_neighbours(const struct net_place *place, struct net_neighbour ret[NET_NEIGHBOURS_MAX], size_t *ret_n,
			 struct error *err);
