/*
 * For the live tests of criu/: a private world (mount, pid, net namespaces) and workloads that show from outside whether
 * they run and whether their memory is what it was.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "base/clock.h"
#include "criu/criu.h"

/* What a workload and the test share, in a file of the world's /tmp. */
struct shared {
	volatile uint64_t ticks;  /* grows while it runs */
	volatile uint64_t errors; /* memory was not as written, or a connection broke */
	volatile uint64_t ready;
	volatile uint64_t memory, memory_bytes; /* where its pattern is */
	volatile uint64_t timer_ticks;
	volatile uint64_t thread_ticks[4];
	volatile uint64_t busy_until_go; /* 1: the timer workload computes instead of reading its timer */
};

enum workload_kind {
	WORKLOAD_PLAIN,	     /* memory pattern */
	WORKLOAD_THREADS,    /* the same with four threads */
	WORKLOAD_USER,	     /* the same as user 65534 */
	WORKLOAD_TCP,	     /* a connection to itself over loopback, one byte around per tick */
	WORKLOAD_TIMER,	     /* a periodic timerfd in an epoll loop */
	WORKLOAD_UNDUMPABLE, /* holds a userfaultfd */
	WORKLOAD_TREE,	     /* with two children and a pipe between */
	WORKLOAD_INIT,	     /* init of its own pid namespace */
};

struct workload {
	pid_t pid;
	struct shared *shared;
	char path[64];
};

/* Runs main_in_world, in this program started anew in a fresh world; returns its exit status, 77: no rights. */
int world_run(int argc, char **argv, int (*main_in_world)(void));

void workload_start(enum workload_kind kind, size_t memory_bytes, struct workload *ret);
void workload_end(struct workload *w); /* kills what is left of it, waits until the pid is free */

/* Fails the test unless the workload ticks (within 5 s) / does not tick for 30 ms. */
void assert_runs(const struct workload *w);
void assert_still(const struct workload *w);
void assert_gone(pid_t pid);
void assert_ok(int r, const struct error *err);
char process_state(pid_t pid); /* of /proc/PID/stat; 0: gone */
pid_t process_tracer(pid_t pid);
pid_t process_parent(pid_t pid);

/* Living processes of the world that are neither its init, this one, nor a zombie. */
int count_workloads(void);

/* Fresh image and work directories in the world's /tmp, as options. */
struct criu_options fresh_options(void);

#define MIB (1UL << 20)

void job_start(const struct criu_options *o, struct criu_job **ret);
struct criu_job *dump_held(const struct criu_options *o, const struct workload *w);
/* Dumps and kills: what is restored then comes from the images (and a pager) alone. */
void dump_away(const struct criu_options *o, const struct workload *w);

/* Listening TCP sockets of this network namespace. */
int count_listeners(void);
/* nftables tables named CRIU-*. */
int count_criu_tables(void);

/* A pager for restores: serves userfaults of the one task from a copy of its memory. */
struct copy {
	uint64_t start;
	size_t length;
	uint8_t *data;
};

struct mini_pager;

/* Copies all anonymous private memory of a stopped task. */
struct mini_pager *mini_pager_new(pid_t pid, const char *work_directory);
/* Listens at the work directory, in a thread; before the restore. */
void mini_pager_listen(struct mini_pager *p);
uint64_t mini_pager_faults(const struct mini_pager *p);
void mini_pager_free(struct mini_pager *p);
