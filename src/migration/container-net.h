/*
 * The network namespace of a container, which exists on both hosts with the same addresses: one of the two is heard at any time.
 *
 * The source's is heard until its tasks are stopped; then it falls silent, the target's speaks up, tells the neighbours, and keeps
 * what arrives until the tasks run there. A rollback turns it round. Everything is repeatable. Where the workload has no namespace of its own
 * all of this does nothing. Nothing needs the state of another call but `struct container_net`, so that a later process can undo
 * it with a namespace that it opened by a task's pid (container_net_open_pid).
 */
#pragma once

#include "driver/driver.h"
#include "net/hold.h"

struct container_net {
	struct net_place place;
	bool known; /* there is one, and it is not our own */
	struct net_hold *hold;
};

#define CONTAINER_NET_NONE ((struct container_net){ .place = NET_PLACE_HERE })

/* place as for driver->network(): NULL at the source. */
int container_net_open(const struct driver_ops *driver, const struct workload *w, const struct driver_place *place,
		       struct container_net *ret, struct error *err);
int container_net_open_pid(pid_t pid, struct container_net *ret, struct error *err);
void container_net_free(struct container_net *n);

/* What is set in the namespace of a workload that runs here, where it is made anew wherever the workload is restored: lines as
 * struct criu_options wants them, appended. Nothing where there is none. */
int container_net_settings(const struct driver_ops *driver, const struct workload *w, struct buffer *ret,
			   struct error *err);

/* Source: from here on nothing leaves it. */
int container_net_leave(struct container_net *n, const char *id, struct error *err);
/* Source, after a rollback; target, by a process that takes up what runs: it speaks, and the neighbours are told. */
int container_net_return(struct container_net *n, const char *id, struct error *err);
/* Source: the tasks are gone for good; target: they never came. The namespace may outlive them (ip netns): its cable is pulled at the host's end. */
int container_net_gone(struct container_net *n, const char *id, struct error *err);

/* Target, before the freeze: silent, and what arrives will wait. */
int container_net_arm(struct container_net *n, const char *id, struct error *err);
/* Target, the source's tasks are stopped: it speaks, and what arrives waits. */
int container_net_take(struct container_net *n, const char *id, struct error *err);
/* Target, the tasks run: what waited is let in. Adds to *counts. */
int container_net_release(struct container_net *n, struct net_hold_counts *counts, struct error *err);
