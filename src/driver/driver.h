/*
 * A driver knows one kind of workload: how to find its processes, what stands in its way, how its engine
 * is told. It does not dump or restore by itself: it says how CRIU is to be run (struct checkpoint_way), and migration/ runs it,
 * so that no driver knows of memory or of CRIU's protocol.
 *
 * Every op: which side, the state the workload is in, whether it may be repeated, and whether it blocks is said beside it.
 */
#pragma once

#include "driver/workload.h"

enum driver_capability {
	DRIVER_MOVES_BARE_PIDS = 1 << 0, /* the workload's pids must be free at the target */
	DRIVER_HAS_ENGINE = 1 << 1,	 /* an engine owns it and is told about the move */
	DRIVER_OWN_NETWORK = 1 << 2,	 /* has a network namespace of its own */
};

struct driver_options {
	const char *const *synced_paths; /* brought along with --sync: need not be present at the target */
	size_t n_synced_paths;
	bool shell_job; /* --shell-job: a terminal may be inherited */
};

/* How CRIU is run for this workload. Strings are owned by it. */
struct checkpoint_way {
	pid_t root_pid;
	bool shell_job;
	bool tcp_established;
	bool file_locks;
	uint64_t ghost_limit_bytes;
	uint32_t manage_cgroups; /* CRIU's mode number, 0: ignore */
	char **external;	 /* NULL-terminated, or NULL */
};

void checkpoint_way_free(struct checkpoint_way *way);

struct driver_ops {
	const char *name;
	uint32_t capabilities; /* enum driver_capability, or'ed */

	/* Source; running; any number of times; blocks for ms. Fills everything of the workload. -ESRCH: no such thing; -EINVAL: the
	 * id makes no sense to this driver; err is the user's sentence. */
	int (*describe)(const char *id, const struct driver_options *options, struct workload *ret, struct error *err);

	/* Source; running; repeatable. What would stop a dump, found by looking. Negative only for failures of looking. */
	int (*check_source)(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
			    struct error *err);

	/* Target; nothing there yet; repeatable. What would stop a restore here. */
	int (*check_target)(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
			    struct error *err);

	/* Either; repeatable; does not block. */
	int (*way)(const struct workload *w, const struct driver_options *options, struct checkpoint_way *ret,
		   struct error *err);

	/* Source; running or stopped by CRIU; repeatable, blocks for ms. The processes of the tree now: host pids and CRIU's pids, allocated, n of them. */
	int (*processes)(const struct workload *w, pid_t **ret_pids, pid_t **ret_image_pids, size_t *ret_n,
			 struct error *err);

	/* Source; tasks held by CRIU at post-dump. Stops them by a second means that outlives every phaul process
	 * (handover.md). Repeatable. */
	int (*stop_firmly)(const struct workload *w, struct error *err);

	/* Source; after a rollback, tasks released by CRIU: undoes stop_firmly. Repeatable. */
	int (*unstop)(const struct workload *w, struct error *err);
};

/* The driver of that name, or NULL. */
const struct driver_ops *driver_find(const char *name);

/* All of them, for help texts; NULL-terminated. */
const struct driver_ops *const *driver_all(void);
