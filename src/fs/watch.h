/*
 * Which names of a tree have changed: fanotify(7) on its file system, whoever writes, through whichever mount.
 *
 * What is not told: writes through shared mappings while they last (their closing is told; migration/ touches those that are mapped at the
 * freeze), and on network file systems what other hosts write. So only file systems of this host are watched. A watch has a thread of its own
 * which takes the events as they come; every function here may be called from one other thread.
 */
#pragma once

#include "fs/changes.h"

struct watch;

/* Begins. -EOPNOTSUPP with a sentence when lists cannot be trusted there: the file system has no such events, others are mounted
 * below the tree, or the tree is an overlay's upper directory whose kernel does not tell of writes through the overlay.
 * pid: of the workload, whose mounts are asked for such overlays; 0: none. tree must stay until watch_free(). */
int watch_new(const struct sync_tree *tree, pid_t pid, struct watch **ret, struct error *err);

/* Names told of and not yet taken. At least 1 when watch_take() would answer that it does not know. */
size_t watch_pending(struct watch *w);

/*
 * What changed since the watch began or was last taken, whatever was written before the call included, as changes.h has it; appended to
 * ret. 1: that is all; 0: events were lost, why says how: look at the whole tree. From here on it counts anew in
 * either case. Negative: failed.
 */
int watch_take(struct watch *w, struct buffer *ret, size_t *ret_n, struct error *why);
void watch_free(struct watch *w);
