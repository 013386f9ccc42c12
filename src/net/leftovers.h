/*
 * What phaul made in network namespaces, found again by its name: after a crash nobody knows any more where it was.
 */
#pragma once

#include "base/buffer.h"
#include "net/place.h"

/* Calls visit for each network namespace that has a name here (a process in /proc, a file in /run/netns or /run/docker/netns), the caller's own
 * first, each once. `where` is such a name. Stops at the first negative result, which it returns. */
int net_place_each(int (*visit)(void *context, const struct net_place *place, const char *where, struct error *err),
		   void *context, struct error *err);

/* Appends a line for each migration that holds or mutes something in that namespace: "hold ID" or "mute ID". */
int net_leftovers_list(const struct net_place *place, struct buffer *ret, struct error *err);

/* net_criu_table_remove() in every namespace. */
int net_criu_table_remove_everywhere(const char *table, struct error *err);

/* Removes holds and mutes of this id in every namespace; what waits in a hold is dropped. speaks: the workload there is the one that runs: where
 * something was found in another namespace than the caller's, its cables are in and its addresses announced. Else it is not to be heard: the
 * host's ends of its veths go down before. Goes on after failures; the first one. Fine if nothing is there. */
int net_leftovers_remove(const char *id, bool speaks, struct error *err);
