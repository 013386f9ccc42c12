/*
 * The hold: what arrives for a workload at the target waits until the workload is there, and is then let in, in its order.
 *
 * An nftables table `inet phaul-ID` in that namespace sends it into a queue of nfnetlink_queue, before connection tracking. The table
 * outlives this process on purpose. While nobody listens to the queue (this process died), packets are dropped: never does the kernel
 * answer one that the workload should have had. Where the kernel cannot queue, packets are dropped from the start.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "net/place.h"

struct net_hold;

struct net_hold_counts {
	uint64_t packets, bytes; /* that waited */
};

#define _cleanup_net_hold_ _cleanup_(net_hold_freep)

/* From here on what arrives for these addresses waits; n 0: everything that does not come over loopback, for a container's own
 * namespace, never the caller's (IPv6 neighbour discovery is let through). At most 64 addresses. A table of this id that is there is replaced.
 * Any time before the freeze; some 0.3 ms. Bounds: queue.h; beyond them packets are dropped, the youngest first.
 * id: canonical UUID text. place: not kept. ret: to be freed with net_hold_free(). */
int net_hold_install(const char *id, const struct net_place *place, const struct net_address *addresses, size_t n,
		     struct net_hold **ret, struct error *err);

/* false: the kernel has no queue for it, packets are dropped. NULL: false. */
bool net_hold_queues(const struct net_hold *h);

/* Lets in what waits, and all that comes later. Only once the workload's sockets are there and out of TCP repair. Well under a millisecond: the
 * table stays, without rules, until net_hold_free(). ret may be NULL. Idempotent. On failure packets may still be waiting: try again. */
int net_hold_release(struct net_hold *h, struct net_hold_counts *ret, struct error *err);

/* Released: removes the table, once no other migration's packets wait in that namespace (at most half a second). Not released: drops what waits;
 * the table stays and drops what comes, as after a crash, until net_hold_remove(). NULL is fine. */
void net_hold_free(struct net_hold *h);
void net_hold_freep(struct net_hold **h);

/* Removes the table, and a guard's (guard.h), by whoever knows the id and the namespace; what waits in it is dropped. Waits as net_hold_free() does, so free the hold
 * of this id first. Fine if nothing is there. */
int net_hold_remove(const char *id, const struct net_place *place, struct error *err);
