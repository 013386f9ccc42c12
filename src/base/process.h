/*
 * Child processes: programs started with an argument vector, their standard error kept.
 *
 * Started with vfork(2) semantics (posix_spawn), because the parent may map gigabytes. A child dies with
 * SIGKILL only on process_kill() or process_free(); it is always waited for.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/fd.h"

#define PROCESS_FDS_MAX 8

struct process_options {
	const char *const *argv;	/* argv[0] is looked up in PATH unless it holds a slash */
	const char *program;		/* what is started, where that is not argv[0]; NULL: argv[0] */
	const char *const *environment; /* extra "NAME=value" strings, NULL-terminated; may be NULL */
	int stdin_fd;			/* -1: /dev/null */
	int stdout_fd;			/* -1: where stderr goes */
	int stderr_fd;			/* -1: /dev/null */
	/* Descriptors the child keeps: source_fds[i] becomes child_fds[i] (>= 3) there. */
	int source_fds[PROCESS_FDS_MAX];
	int child_fds[PROCESS_FDS_MAX];
	size_t n_fds;
	bool new_session; /* setsid(2): terminal signals do not reach it */
};

struct process {
	pid_t pid;  /* 0: none, or reaped */
	int pidfd;  /* -1: none */
	int status; /* of waitpid(2), once reaped */
};

#define PROCESS_NONE ((struct process){ .pidfd = -1 })
#define _cleanup_process_ _cleanup_(process_free)

/* 0, or a negative errno with the program named in err (-ENOENT: not installed). */
int process_start(const struct process_options *options, struct process *ret, struct error *err);

/* Waits for the end: 1 ended (p->status filled), 0 the deadline passed. */
int process_wait(struct process *p, uint64_t deadline_ns);

/* SIGKILL and wait. Nothing happens to one that has ended. */
void process_kill(struct process *p);

/* process_kill() and release; any number of times. */
void process_free(struct process *p);

/* Runs to the end within deadline; standard output is appended to `output` and, when the program fails, the
 * last line of its stderr is quoted in err. Either buffer may be NULL. 0, the exit status (> 0) or a negative errno. */
int process_run(const char *const *argv, struct buffer *output, uint64_t deadline_ns, struct error *err);

/* The kernel's out-of-memory killer passes this process by from now on, and what it starts; without the privilege nothing happens. */
void process_spare(pid_t pid);

/* Start time of a process as in field 22 of /proc/PID/stat, in ticks since boot: with it a pid names one process only; 0: gone. */
uint64_t process_start_ticks(pid_t pid);

/* CPU time of a process in nanoseconds, its ended threads included: fields 14 and 15 of /proc/PID/stat; 0: gone. */
uint64_t process_cpu_ns(pid_t pid);
