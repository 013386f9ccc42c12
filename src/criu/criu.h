/*
 * CRIU, driven over its RPC (`criu swrk FD`, protobuf). Each request is one child process; its log is kept in the
 * work directory, and its first error is what the user reads.
 *
 * All calls block; a job is used by one thread. Source of the facts: CRIU's images/rpc.proto, criu/cr-service.c,
 * criu/cr-dump.c, criu/page-xfer.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/process.h"

#define CRIU_VERSION_MINIMUM 40100 /* 4.1: major * 10000 + minor * 100 + sublevel */

/* Where the criu program is: the PHAUL_CRIU environment variable, PATH, then /usr/local/sbin, /usr/sbin. -ENOENT. */
int criu_find(char *ret_path, size_t size, struct error *err);

int criu_version(int *ret_version, struct error *err);		      /* over RPC */
int criu_check(struct error *err);				      /* `check`: the kernel has what CRIU needs */
int criu_lazy_supported(struct error *err);			      /* feature check: lazy pages */
int criu_cpuinfo_dump(const char *directory, struct error *err);      /* writes cpuinfo.img there */
int criu_cpuinfo_check(const char *directory, struct error *err);     /* -EMEDIUMTYPE: this CPU lacks something */

struct criu_options {
	const char *images_directory; /* exists; on tmpfs for speed */
	const char *work_directory;   /* exists; log files, the lazy-pages socket */
	bool shell_job;
	bool tcp_established;
	bool file_locks;
	bool leave_stopped;	      /* unused by phaul's own moves */
	uint64_t ghost_limit_bytes;
	uint32_t timeout_s;
	const char *const *external;  /* NULL-terminated, CRIU's --external syntax; may be NULL */
	const char *root;	      /* restore: new root, may be NULL */
	uint32_t manage_cgroups;      /* CRIU's mode number; 0: ignore */
	const char *hidden_ranges;    /* file with "PID START END" lines for libphaul-criu.so, may be NULL */
};

struct criu_job;

/* Starts the child, so that it is warm before the freeze. */
int criu_start(const struct criu_options *options, struct criu_job **ret, struct error *err);

/*
 * Dump of the tree with root pid, memory left out (lazy). Returns 0 when CRIU holds at post-dump: tasks stopped,
 * network locked, images complete. On any failure the tasks run again, and err quotes CRIU's first error.
 * cancel_fd: as in channels; canceled: -ECANCELED and the tasks run again.
 */
int criu_dump(struct criu_job *job, pid_t pid, int cancel_fd, struct error *err);

/* After criu_dump(): the tasks run again / are killed. Waits until it is so. Idempotent. */
int criu_dump_rollback(struct criu_job *job, struct error *err);
int criu_dump_commit(struct criu_job *job, struct error *err);

/* Restore up to post-restore: the tasks exist and are stopped, the network is locked. *ret_pid: the root.
 * On failure nothing of it is left (tasks, nft table, mounts) and err quotes CRIU's first error. */
int criu_restore(struct criu_job *job, int cancel_fd, pid_t *ret_pid, struct error *err);

/* After criu_restore(): they run / they are gone. */
int criu_restore_resume(struct criu_job *job, struct error *err);
int criu_restore_abort(struct criu_job *job, struct error *err);

pid_t criu_pid(const struct criu_job *job);
const char *criu_log_path(const struct criu_job *job);

/* Ends a job that was started or is in any state: a dump is rolled back, a restore aborted. */
void criu_free(struct criu_job *job);

/* The first line with "Error" of a CRIU log, without time stamp, into text ("" when there is none). */
void criu_first_error(const char *log_path, char *text, size_t size);

/* Mends what CRIU is known to write wrongly (engines.md: a periodic timerfd with a pending tick), in place, in the
 * images of a finished dump. Returns the number of mended entries. */
int criu_mend_images(const char *images_directory, struct error *err);

/* The lazy ranges of the pagemap images of a dump, for the cross-check of the present map: calls nothing, fills
 * ret with "image pid, start, end" triples. */
struct criu_lazy_range {
	int32_t image_pid;
	uint64_t start, end;
};
int criu_lazy_ranges(const char *images_directory, struct criu_lazy_range **ret, size_t *ret_n, struct error *err);
