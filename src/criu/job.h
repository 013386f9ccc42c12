/*
 * Inside criu/: the state of one job and the RPC below it. Only criu/ includes this.
 */
#pragma once

#include <limits.h>

#include "base/clock.h"
#include "criu/criu.h"
#include "criu-rpc.pb-c.h"

#define RPC_MESSAGE_MAX 65536
#define RPC_CHILD_FD 3	 /* CRIU's end of the RPC socket */
#define PAGES_CHILD_FD 4 /* CRIU's end of the page server's socket */

/* One `criu swrk` child and our end of its socket. */
struct rpc {
	struct process process;
	int socket_fd;
	uint64_t peer_inode; /* of CRIU's end: who holds it is CRIU or was forked by it */
};

#define RPC_NONE ((struct rpc){ .process = PROCESS_NONE, .socket_fd = -1 })

struct rpc_start {
	const char *program;
	const char *const *environment;
	int stderr_fd;
	int pages_fd; /* -1, or what CRIU finds at PAGES_CHILD_FD */
};

int rpc_start(const struct rpc_start *start, struct rpc *ret, struct error *err);

/* One packet out. -EPIPE when CRIU is gone. */
int rpc_send(struct rpc *rpc, const CriuRpc__Request *request);
int rpc_notify(struct rpc *rpc, bool success);

/*
 * One packet in, or: -ECONNRESET CRIU is gone; -ETIMEDOUT; -ECANCELED cancel_fd (may be -1) became readable;
 * -EBADMSG. The caller frees it with criu_rpc__response__free_unpacked().
 */
int rpc_receive(struct rpc *rpc, int cancel_fd, uint64_t deadline_ns, CriuRpc__Response **ret);

/* Closes our end and waits for the child's end, at most until the deadline; then kills it. */
void rpc_finish(struct rpc *rpc, uint64_t deadline_ns);
void rpc_free(struct rpc *rpc);

enum job_state {
	JOB_INVALID,
	JOB_STARTED,	  /* CRIU waits for a request */
	JOB_DUMP_STOPPED, /* at network-lock or query-ext-files */
	JOB_DUMP_HELD,	  /* at post-dump */
	JOB_DUMP_COMMITTED,
	JOB_DUMP_UNDONE,
	JOB_RESTORE_HELD, /* at post-restore */
	JOB_RESTORE_RESUMED,
	JOB_RESTORE_UNDONE,
	JOB_FAILED, /* CRIU has ended, with nothing left to undo */
	JOB_STATE_MAX,
};

struct criu_job {
	enum job_state state;
	struct rpc rpc;
	struct criu_options options; /* pointers into the strings below */
	char images_directory[PATH_MAX];
	char work_directory[PATH_MAX];
	char *root;
	char **external;
	int images_fd, work_fd;
	int breakpoints_fd;	/* see breakpoints.h */
	int pages_fd;		/* our end of the page server's socket */
	bool released;		/* the restored tasks were let go, or may have been */
	int root_pidfd;		/* the restored root task, once CRIU named it */
	pid_t pid;		/* root of the tree, for both kinds */
	uint64_t started_ticks; /* when CRIU was started, in the unit of /proc/PID/stat's start time */
	char log_name[32];
	char log_path[PATH_MAX];
	char errors_path[PATH_MAX];    /* CRIU's stderr */
	char preload_status[PATH_MAX]; /* where libphaul-criu.so says that it acted */
	bool terse;		       /* nothing of CRIU's log is needed but errors */
};

/* Of CRIU's log: each line is a write in the freeze, 20000 of them for eleven processes at debug. */
#define CRIU_LOG_WARNING 2
#define CRIU_LOG_DEBUG 4
#define DUMP_LOG "dump.log"

/* Fills a request's options from the job's; strings are referenced. The config file is written by the caller. */
void job_fill_options(struct criu_job *job, CriuRpc__Options *options);

/* Writes the configuration that RPC has no field for; ret: its path. */
int job_write_config(struct criu_job *job, const char *text, char *ret_path, size_t size, struct error *err);

#define CANCEL_MS 2000 /* what CRIU gets to undo by itself after a cancel */

/*
 * Answers notifications until the script `last` (1: CRIU waits for its answer), one of the scripts `before` (2, likewise; NULL-terminated, may be NULL) or CRIU's
 * end (0: it failed). After a cancel each one is
 * refused, which makes CRIU undo what it has done: -ECANCELED then, or -ETIMEDOUT if it did not end in time. `seen` is shown each
 * response before it is answered; is_refused_end: it is `last`, after a cancel.
 */
int job_follow(struct criu_job *job, const char *const *before, const char *last, int cancel_fd,
	       void (*seen)(struct criu_job *job, const CriuRpc__Response *response, bool is_refused_end));

/* Fills err with what, CRIU's first error (or how it died) and the place of the log. Returns the negative errno. */
int job_failed(struct criu_job *job, int number, const char *what, struct error *err);

/* The program and what libphaul-criu.so needs to know; see preload.c. */
struct preload {
	char strings[6][PATH_MAX + 64];
	const char *environment[7];
};

/* A part of phaul that is no program of the user's: beside this binary, in PREFIX/lib/phaul or in the build tree. */
bool installed_find(const char *name, char *ret, size_t size);

void preload_environment(const char *hidden_ranges, const char *status_path, int version, bool want_limits,
			 struct preload *ret);
bool preload_wanted(const struct criu_options *options, bool *ret_want_limits);

/* For a restore by a CRIU that somebody else starts, "NAME=value" each; returns how many: 0 without the library. */
#define PRELOAD_HELD_MAX 2
size_t preload_held(const char *status_path, char strings[PRELOAD_HELD_MAX][PATH_MAX + 64]);

/* What the library has done, as it says itself, separated by "; "; "" if nothing. */
void preload_actions(const char *status_path, char *ret, size_t size);

/* Kills CRIU, whatever it does, and every task that its restore made. */
void restore_kill(struct criu_job *job);

/* Appends the children of every thread of pid to pids, which holds n of max; returns how many there are now. */
size_t tree_children(pid_t pid, pid_t *pids, size_t n, size_t max);
