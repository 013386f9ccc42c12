/*
 * A process tree as /proc shows it: what every driver needs to know of the processes it moves.
 * Source of the facts: proc(5), Documentation/filesystems/proc.rst (NSpid, children).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define TREE_LEVELS_MAX 33 /* pid namespaces nest 32 deep at most */

struct tree_process {
	pid_t pid; /* in the pid namespace of our /proc */
	pid_t parent;
	pid_t image_pid; /* in that of the tree's root */
	pid_t group, session;
	pid_t image_session; /* 0: the session's leader is outside of the root's pid namespace */
	pid_t thread_group;  /* differs from pid when pid names a thread */
	pid_t tracer;	     /* 0: nobody ptraces it */
	uint32_t levels;     /* pid namespaces, ours counted as 1 */
	char state;	     /* of /proc/PID/stat: R S D T t Z X I */
	bool kernel_thread;
	uint32_t threads;
	size_t first_thread; /* index into tree.threads; `threads` of them */
	uint64_t resident_bytes, hugetlb_bytes;
	char name[32];
};

struct tree {
	struct tree_process *processes; /* parents before children, the root first */
	size_t n, n_allocated;
	pid_t *threads; /* thread ids of all of them */
	size_t n_threads, n_threads_allocated;
};

#define _cleanup_tree_ _cleanup_(tree_free)

void tree_free(struct tree *t);

/* One process, by /proc/PID/stat and status. image fields are filled as if it were the root itself. -ESRCH. */
int tree_read_process(pid_t pid, struct tree_process *ret, struct error *err);

/* The whole tree below root. Processes that end meanwhile are left out; -ESRCH when the root is gone. */
int tree_read(pid_t root, struct tree *ret, struct error *err);

/* Whether pid is in the tree. */
bool tree_contains(const struct tree *t, pid_t pid);

/* The inode number that names /proc/PID/ns/KIND; 0 when it cannot be had (the process is gone, or a zombie). */
uint64_t tree_namespace(pid_t pid, const char *kind);
