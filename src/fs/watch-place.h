/*
 * Whether lists of changes can be trusted for a tree: what lies below it, what it is on, who writes to it by another way.
 */
#pragma once

#include <sys/types.h>

#include "base/error.h"
#include "fs/sync.h"

/* `path`: of the tree, without symbolic links; pid: of the workload, 0: none. 0, or -EOPNOTSUPP and why not. */
int watch_place_check(const struct sync_tree *tree, const char *path, pid_t pid, struct error *err);

/* Tries, in file systems that are mounted nowhere: 1 when a write through an overlay is told of in its upper directory; 0 when not. */
int watch_overlay_is_told(void);
