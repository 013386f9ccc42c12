/*
 * A driver knows one kind of workload: how to find its processes, what stands in its way, how its engine
 * is told. It does not dump by itself: it says how CRIU is to be run (struct checkpoint_way), and migration/ runs it, whatever the engine,
 * so that no driver knows of memory or of CRIU's protocol, and one way of freezing serves all. At the target the engine itself restores, so
 * that it owns what runs: the driver starts that (restore), and migration/ holds the CRIU that the engine starts by
 * its configuration (criu/held.h). A driver without `restore` has migration/ run CRIU there as well.
 *
 * The order at the source: describe, check_source, way, arm, [freeze] processes, stop_firmly, [commit] moved; on a rollback unstop, disarm.
 * In restart mode: describe, arm, stop, [commit] moved; on a rollback start, disarm; at the target prepare, [file passes], [commit] start.
 * At the target: check_target, lacks, take, prepare, [file passes], restore, [commit] restored; on an abort forget. What the target lacks
 * the source gives meanwhile.
 *
 * Every op: which side, the state the workload is in, whether it may be repeated, and whether it blocks is said beside it.
 */
#pragma once

#include <net/if.h>

#include "base/process.h"
#include "driver/workload.h"

#define DRIVER_WORDS_MAX 4000
#define DRIVER_BRIDGES_MAX 8
#define DRIVER_ENVIRONMENT_MAX 2

enum driver_capability {
	DRIVER_MOVES_BARE_PIDS = 1 << 0, /* the workload's pids must be free at the target */
	DRIVER_HAS_ENGINE = 1 << 1,	 /* an engine owns it and is told about the move */
	DRIVER_OWN_NETWORK = 1 << 2,   /* may have a network namespace of its own, which moves with it: see network() */
	DRIVER_NETWORK_GIVEN = 1 << 4, /* such a namespace is made by others on both hosts, and set as they like */
	DRIVER_NETWORK_FIRST =
		1 << 3, /* at the target network() is there before restore(), which puts the devices into it */
	/* its commands bind its storage onto itself, and take that away again: files are brought apart from that */
	DRIVER_STORAGE_REBOUND = 1 << 5,
};

struct driver_options {
	const char *const *synced_paths; /* brought along with --sync: need not be present at the target */
	size_t n_synced_paths;
	bool shell_job;	     /* --shell-job: a terminal may be inherited */
	const char *runtime; /* --runtime: the OCI runtime, a program; NULL: runc */
	const char *
		engine; /* --engine: where this side's engine is: its socket, or its state directory; NULL: the usual place */
	const char *target_engine; /* --target-engine: the same, there; NULL: the usual place */
	const char *target_id;	   /* --dst-id: its name there; NULL: the same */
	const char *target_bundle; /* --target-bundle (runc): where the bundle is there; NULL: the same path */
	const char *const *
		bridges; /* --bridge: "SRC=DST" each, NULL-terminated: what bridges are called at the target; NULL: none */
	const char *
		bind_rule; /* --bind: refuse, present or bring host directories that a container has mounted; NULL: present */
	bool restart; /* --mode restart: CRIU has no part in it */
	bool can_bring; /* at the target: what lacks() finds can be asked of the source. Not so when restored from a directory */
	bool remove_source; /* --source remove: delete the source's container instead of renaming it */
};

/* How CRIU is run for this workload. Strings are owned by it. */
struct checkpoint_way {
	pid_t root_pid;
	bool shell_job;
	bool tcp_established;
	bool file_locks;
	uint64_t ghost_limit_bytes;
	bool ext_unix_sk; /* connections to unix sockets outside may be dumped */
	bool link_remap;
	bool empty_network;	 /* of its own network namespace only the sockets: the engine makes the rest there */
	uint32_t manage_cgroups; /* CRIU's mode number, 0: ignore */
	char **external; /* NULL-terminated, or NULL: CRIU's --external, "mnt[/etc/hosts]:/etc/hosts", "net[INODE]:extRootNetNS" */
};

/* What migration/ gives a driver at the target. */
struct driver_place {
	const char *id_text;	    /* of the migration, a UUID: unique names, labels */
	const char *work_directory; /* of this migration, 0700, on tmpfs */
	const char *
		images_directory; /* what the engine is told to restore from. Empty but for what the driver puts there: the engine's CRIU
				       * reads its images elsewhere, as criu_config says */
	const struct driver_options *options; /* engine: this side's */
	const char *
		criu_config; /* configuration file for the CRIU that the engine starts; must reach it. NULL before restore() */
	int lock;	     /* of the driver's own, from restore() to restore_begun(); -1: none */
	const char *
		criu_images; /* what its images-dir says, for an engine that names the images on CRIU's command line, which wins */
	const char *const *
		criu_environment; /* "NAME=value" strings that help that CRIU where they reach it, at most DRIVER_ENVIRONMENT_MAX,
					      * NULL-terminated; set together with criu_config */
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

	/*
	 * What follows may be NULL: the engine has no part in it.
	 */

	/* Source; running, before the freeze; repeatable; blocks. Nothing must start the workload again by itself when its tasks end here:
	 * restart policies off. */
	int (*arm)(const struct workload *w, const struct driver_options *options, struct error *err);

	/* Source; running, after a rollback: undoes arm. Repeatable, also by another process after a crash. */
	int (*disarm)(const struct workload *w, const struct driver_options *options, struct error *err);

	/* Source; the tasks are dead, the workload runs at the target; repeatable, also by another process after a crash. The engine's
	 * container is left stopped and renamed, or removed, so that nobody starts it by accident. A failure is only told. */
	int (*moved)(const struct workload *w, const struct driver_options *options, struct error *err);

	/* Source; running; restart mode. Ends the workload as its engine does, gently first; its files are complete on return. Repeatable. NULL:
	 * it cannot be moved by starting it anew. */
	int (*stop)(const struct workload *w, const struct driver_options *options, struct error *err);

	/* Source, place NULL: starts again what stop() ended; also by another process after a crash. Target: starts what prepare() made, and
	 * tells the engine what restored() would. One that runs is no failure. Blocks. */
	int (*start)(const struct workload *w, const struct driver_options *options, const struct driver_place *place,
		     struct error *err);

	/* Either; running at the source, armed at the target; repeatable. Whose network namespace moves with it: an open descriptor of it.
	 * -ENOENT: the workload has none of its own. */
	int (*network)(const struct workload *w, const struct driver_place *place, int *ret_fd, struct error *err);

	/* Target; nothing there yet; repeatable; blocks. What prepare() needs and this host has not (an image): words for the two ops below, JSON,
	 * allocated, at most DRIVER_WORDS_MAX bytes; NULL: nothing. */
	int (*lacks)(const struct workload *w, const struct driver_place *place, char **ret, struct error *err);

	/* Source; running; repeatable. Starts a child that writes what the target lacks to fd, a socket, and ends with 0 when that is all. The
	 * words come from the peer. stderr_fd: where its own words go; the last line is quoted. */
	int (*give)(const struct workload *w, const struct driver_options *options, const char *words, int fd,
		    int stderr_fd, struct process *ret, struct error *err);

	/* Target; undone by forget. Starts a child that reads fd to its end, and ends with 0 when lacks() would find nothing any more. */
	int (*take)(const struct workload *w, const struct driver_place *place, const char *words, int fd,
		    int stderr_fd, struct process *ret, struct error *err);

	/* Target; armed; repeatable. Names of the bridges here that the workload's devices become ports of, where its network namespace comes
	 * with the restore only and network() has none before: what arrives waits at the bridge. NULL: none such. */
	int (*bridges)(const struct workload *w, const struct driver_place *place,
		       char ret[DRIVER_BRIDGES_MAX][IFNAMSIZ], size_t *ret_n, struct error *err);

	/* Target; nothing there yet; undone by forget. Makes the container, without its tasks, and fills target_path of every tree. */
	int (*prepare)(struct workload *w, const struct driver_place *place, struct error *err);

	/* Target; prepared; before the freeze: starts the engine's restore as a child that ends with 0 when the engine has it. Returns at once.
	 * The engine's CRIU, which reads place->criu_config, is made to wait by migration/ until the images are there, and again before the
	 * tasks run. stderr_fd: where the child's words go. */
	int (*restore)(const struct workload *w, struct driver_place *place, int stderr_fd, struct process *ret,
		       struct error *err);

	/* Target; right after restore(), when the engine's CRIU has read its configuration, or did not get there: what the
	 * configuration lay in for it is given back (runc-conf.h). Does not block. */
	void (*restore_begun)(struct driver_place *place);

	/* Target; right after restore_begun(): the engine's CRIU waits for its images. Waits for what else of the engine's must be done before the
	 * freeze. Repeatable. */
	int (*restore_ready)(const struct workload *w, const struct driver_place *place, struct error *err);

	/* Target; the tasks run and the engine's restore has ended well; repeatable. What is left to tell the engine (restart policy). A
	 * failure is only told. */
	int (*restored)(const struct workload *w, const struct driver_place *place, struct error *err);

	/* Target; nothing of it runs; undoes prepare and what a failed restore left. Repeatable, also by another process after a crash;
	 * place has no criu_config then. Removes only what this migration made. */
	int (*forget)(const struct workload *w, const struct driver_place *place, struct error *err);
};

/* The driver of that name, or NULL. */
const struct driver_ops *driver_find(const char *name);

/* All of them, for help texts; NULL-terminated. */
const struct driver_ops *const *driver_all(void);
