/*
 * Tasks that a journal remembers, so that a later process can still stop, continue or end just these: each is named by its pid and
 * its start time. All calls are repeatable; tasks that are gone are no failure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "migration/journal.h"

struct noted_task {
	pid_t pid;
	uint64_t ticks;	  /* start time, process_start_ticks() */
	bool was_stopped; /* before the freeze: not to be continued */
};

struct noted_tasks {
	struct noted_task *list; /* the root first */
	size_t n;
};

#define _cleanup_tasks_ _cleanup_(noted_tasks_free)
void noted_tasks_free(struct noted_tasks *t);

/* The tree below root as it is now, into the journal (on disk with its next synced record). `stopped`: pids, n of them, that were
 * stopped before. */
int noted_tasks_write(struct journal *j, pid_t root, const pid_t *stopped, size_t n_stopped, struct error *err);
int noted_tasks_read(const struct journal *j, struct noted_tasks *ret, struct error *err);

/* One process (CRIU, a pager), under a name. */
int noted_process_write(struct journal *j, const char *key, pid_t pid, struct error *err);

uint64_t noted_process_ticks(const struct journal *j, const char *key); /* its start time, 0: none was noted */

/* Waits until that process has ended, and kills it at the deadline. */
void noted_process_await(const struct journal *j, const char *key, uint64_t deadline_ns);

pid_t noted_process_alive(const struct journal *j, const char *key); /* its pid, 0: it is gone */

size_t noted_tasks_alive(const struct noted_tasks *t);
bool noted_tasks_held(const struct noted_tasks *t); /* every living one is stopped */

/* SIGKILL; their connections end without a word to the peers, which talk to the other copy. -ETIMEDOUT: some are still there. */
int noted_tasks_kill(const struct noted_tasks *t, struct error *err);

/* SIGCONT to those that were not stopped before. */
void noted_tasks_continue(const struct noted_tasks *t);
