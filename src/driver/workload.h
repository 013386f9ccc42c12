/*
 * What is to be moved, as a driver describes it: facts that both sides' checks and CRIU need.
 * Made at the source; sent to the target in the plan. Strings are owned by the workload.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define WORKLOAD_PROCESSES_MAX 65536
#define WORKLOAD_FILES_MAX 65536
#define WORKLOAD_TREES_MAX 64
#define WORKLOAD_SPEC_MAX (1U << 20) /* bytes of JSON */

enum workload_file_use {
	FILE_USE_INVALID,
	FILE_USE_EXECUTABLE, /* of a process, or mapped with execute permission: must be equal in content size */
	FILE_USE_MAPPED,     /* mapped otherwise */
	FILE_USE_OPEN,	     /* open for reading or writing: size checked by CRIU at restore */
	FILE_USE_DIRECTORY,  /* working directory, root, open directory */
	FILE_USE_MAX,
};

struct workload_file {
	char *path;
	enum workload_file_use use;
	uint64_t size; /* bytes; regular files */
	uint32_t mode; /* st_mode */
	uint64_t hash; /* XXH3-64 of the content for executables and mapped files; 0 otherwise */
	bool writable; /* open for writing: its size may change until the freeze */
};

struct workload_process {
	pid_t pid;	 /* as the source host sees it */
	pid_t image_pid; /* as CRIU's images name it: in the pid namespace of the tree's root */
	uint32_t threads;
	uint64_t resident_bytes;
	bool stopped; /* by job control (SIGSTOP) when it was described: a rollback leaves it so */
	char name[32];
};

/*
 * Files of the workload's own, which must be at the target before it runs there: a container's writable layer, a volume. A pass of
 * fs/ brings them from `path` to where the target's driver wants them; the peer never names a place at the target.
 */
struct workload_tree {
	char *name;	   /* unique in the workload; what the target's driver knows it by: "rootfs", "volume:data" */
	char *path;	   /* at the source, absolute */
	char *target_path; /* at the target, filled there by prepare(); NULL before, and at the source */
	char **excludes;   /* at the source: paths below it that stay behind, relative, NULL-terminated; NULL: none */
};

struct workload {
	char type[16]; /* "pid", "runc", ... */
	char id[256];  /* as the user wrote it */
	pid_t root_pid;
	bool own_pid_namespace; /* its pids are always free at the target */
	bool session_leader;	/* otherwise CRIU needs shell-job */
	bool has_terminal;
	uint64_t resident_bytes;
	uint64_t hugetlb_bytes; /* of the kernel's pool of huge pages, beside resident_bytes */
	struct workload_process *processes;
	size_t n_processes;
	struct workload_file *files;
	size_t n_files;
	pid_t *pids; /* of all threads too, sessions and groups included, as the target must have them free; empty with own_pid_namespace */
	size_t n_pids;
	char *spec; /* JSON of the driver's own, for its other half: how the engine knows the workload; NULL: none. At the target it
		     * comes from the peer: nothing in it is trusted because it parsed */
	struct workload_tree *trees;
	size_t n_trees;
};

/* Adds a tree; both strings are copied. -ENOMEM, -E2BIG (WORKLOAD_TREES_MAX). */
int workload_add_tree(struct workload *w, const char *name, const char *path);

/* What is below `path` (relative, without slashes at its ends) stays behind, and is left alone at the target. -ENOMEM. */
int workload_tree_exclude(struct workload_tree *t, const char *path);

/* The tree of that name, or NULL. */
struct workload_tree *workload_tree_find(const struct workload *w, const char *name);

void workload_free(struct workload *w);

/* One thing that stands in the way, or that the user should know. */
enum obstacle_kind {
	OBSTACLE_INVALID,
	OBSTACLE_REFUSES, /* the migration cannot be done */
	OBSTACLE_WARNS,	  /* it can, with the consequence the text names */
	OBSTACLE_KIND_MAX,
};

struct obstacle {
	enum obstacle_kind kind;
	bool at_target;
	char what[512]; /* one sentence: what is in the way */
	char cure[256]; /* what to do about it; "" if nothing */
};

struct obstacles {
	struct obstacle *list;
	size_t n, n_allocated;
};

/* Adds one; out of memory is the only failure (-ENOMEM). cure may be NULL. */
int obstacles_add(struct obstacles *o, enum obstacle_kind kind, bool at_target, const char *cure, const char *fmt, ...)
	_printf_(5, 6);
bool obstacles_refuse(const struct obstacles *o);
void obstacles_free(struct obstacles *o);
