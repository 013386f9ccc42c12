/*
 * The driver of bare process trees. Its parts are used by the drivers of engines too, where a container is a tree as well.
 */
#pragma once

#include "driver/driver.h"
#include "driver/tree.h"

extern const struct driver_ops driver_pid;

#define PID_GHOST_LIMIT_BYTES (64ULL << 20) /* deleted files up to this travel inside the images */

/* Fills what any tree has: processes, pids, resident bytes, and with_files: the files that must be at the target under the same
 * names. ret->type and id are the caller's. */
int pid_describe_tree(pid_t root, bool with_files, struct workload *ret, struct error *err);

/* The same without files, which come to the target in other ways. */
int pid_describe_container(pid_t root, struct workload *ret, struct error *err);

/* Parts of check_source, each over the whole tree. */
int pid_check_processes(const struct tree *t, struct obstacles *ret, struct error *err);
int pid_check_namespaces(const struct tree *t, struct obstacles *ret, struct error *err);
/* container: names are those of the tree's own root, and an engine is at the other end of its standard descriptors. */
int pid_check_descriptors(const struct tree *t, bool container, const struct driver_options *options,
			  struct obstacles *ret, struct error *err);
/* Whether the tree uses a terminal whose master it does not hold itself. */
int pid_find_terminal(const struct tree *t, bool *ret_found, struct error *err);
int pid_check_mappings(const struct tree *t, struct obstacles *ret, struct error *err);

/* As the ops of that name: over the tree below w->root_pid, whatever its type. */
int pid_processes(const struct workload *w, pid_t **ret_pids, pid_t **ret_image_pids, size_t *ret_n, struct error *err);
int pid_stop_firmly(const struct workload *w, struct error *err);
int pid_unstop(const struct workload *w, struct error *err);

/* Part of check_target: room for the workload's memory. */
int pid_check_room(const struct workload *w, struct obstacles *ret, struct error *err);

int pid_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
		     struct error *err);
