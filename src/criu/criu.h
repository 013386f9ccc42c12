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

#include "base/buffer.h"
#include "base/error.h"
#include "base/process.h"

#define CRIU_VERSION_MINIMUM 40100 /* 4.1: major * 10000 + minor * 100 + sublevel */

/* Where the criu program is: the PHAUL_CRIU environment variable, PATH, then /usr/local/sbin, /usr/sbin. -ENOENT. */
int criu_find(char *ret_path, size_t size, struct error *err);

int criu_version(int *ret_version, struct error *err); /* over RPC */
int criu_check(struct error *err);		       /* `check`: the kernel has what CRIU needs */
int criu_lazy_supported(struct error *err);	       /* feature check: lazy pages */

/* CRIU's description of this CPU, an image; this CPU against another one's: -EMEDIUMTYPE when it lacks something. Both leave cpuinfo.img in the
 * directory, which is what CRIU reads and writes. */
#define CRIU_CPUINFO_MAX 65536
int criu_cpuinfo_dump(const char *directory, struct buffer *ret, struct error *err);
int criu_cpuinfo_check(const char *directory, const void *image, size_t length, struct error *err);

struct criu_options {
	const char *images_directory; /* exists; on tmpfs for speed */
	const char *work_directory;   /* exists; log files, the lazy-pages socket */
	bool shell_job;
	bool tcp_established;
	bool file_locks;
	bool leave_stopped; /* unused by phaul's own moves */
	uint64_t ghost_limit_bytes;
	uint32_t timeout_s;
	const char *const *external; /* NULL-terminated, CRIU's --external syntax; may be NULL */
	const char *root;	     /* restore: new root, may be NULL */
	uint32_t manage_cgroups;     /* CRIU's mode number; 0: ignore */
	const char *hidden_ranges;   /* file with "PID START END" lines (hex addresses, PID as this process sees it)
				       * for libphaul-criu.so, read when CRIU walks the memory; may be NULL */
	bool full_memory;	     /* memory into (out of) the images too, no lazy pages: checkpoint to a file */
	bool link_remap;	     /* dump: link unlinked but still linked-elsewhere files; see docs/criu.md */
	bool force_irmap;	     /* find watched files by scanning: where inode numbers change with the move */
	bool empty_network;	     /* dump: a network namespace without its links, addresses and rules */
	bool ext_unix_sk;	     /* allow connections to unix sockets outside of the tree */
	const void *net_settings; /* restore by an engine: lines "core/somaxconn=4096", what the root task's own network
				      * namespace is to have below /proc/sys/net before there are sockets in it; may be NULL */
	size_t net_settings_length;
};

struct criu_job;

/* Starts the child, so that it is warm before the freeze. -ENOENT: not installed; -EPROTONOSUPPORT: too old. */
int criu_start(const struct criu_options *options, struct criu_job **ret, struct error *err);

/*
 * Dump of the tree with root pid, memory left out (lazy). Returns 0 when CRIU holds at post-dump: tasks stopped,
 * network locked, images complete. On any failure the tasks run again, and err quotes CRIU's first error.
 * cancel_fd: readable means cancel, -1: none. CRIU then has two seconds to undo by itself before it is killed; -ECANCELED and
 * the tasks run again.
 *
 * Held means held by ptrace: if CRIU or the caller dies, the tasks run again (docs/criu.md).
 */
int criu_dump(struct criu_job *job, pid_t pid, int cancel_fd, struct error *err);

/* The first part of it, for who has something to do at that point; criu_dump() with the same pid goes on. 0: the tasks are stopped, and the
 * network is not locked yet. The rest as above; to be undone with criu_dump_rollback(). */
int criu_dump_stop(struct criu_job *job, pid_t pid, int cancel_fd, struct error *err);

/* After criu_dump(): the tasks run again / are killed. Waits until it is so. Idempotent. */
int criu_dump_rollback(struct criu_job *job, struct error *err);
int criu_dump_commit(struct criu_job *job, struct error *err);

/* Restore up to post-restore: the tasks exist and are stopped, the network is locked. *ret_pid: the root.
 * On failure nothing of it is left (tasks, nft table, mounts) and err quotes CRIU's first error. */
int criu_restore(struct criu_job *job, int cancel_fd, pid_t *ret_pid, struct error *err);

/* After criu_restore(): they run / they are gone. */
int criu_restore_resume(struct criu_job *job, struct error *err);
int criu_restore_abort(struct criu_job *job, struct error *err);

pid_t criu_pid(const struct criu_job *job);	    /* the root of the tree; 0: not known yet */
pid_t criu_program_pid(const struct criu_job *job); /* the CRIU child itself; 0: ended */
const char *criu_log_path(const struct criu_job *job);

/* Whether the CRIU child lives: with it, the hold on the tasks. */
bool criu_alive(struct criu_job *job);

/* After criu_restore_resume() has failed: false when no restored task can have run. */
bool criu_restore_released(const struct criu_job *job);

/*
 * A CRIU that dies while it holds a dump leaves established TCP connections in repair mode, in which the program cannot
 * read or write. Ends that mode in all tasks of the tree.
 */
void criu_end_tcp_repair(pid_t root);

/* The other way: what this process's TCP connections do from now on, its end included, the peers do not hear of. */
void criu_silence_connections(pid_t pid);

/* Kills what a restore from these images left behind when its CRIU was killed, by the images' pids: tasks that are younger than CRIU, which
 * started at started_ticks, and not younger than until_ticks (process_start_ticks()): a pid may be somebody else's by now. Not for
 * trees with a pid namespace of their own. */
void criu_restore_wipe(const char *images_directory, uint64_t started_ticks, uint64_t until_ticks);

/* Ends a job that was started or is in any state: a dump is rolled back, a restore aborted. */
void criu_free(struct criu_job *job);

/* The first line of a CRIU log that is an error and not a harmless one, without time stamp ("" when there is none). */
void criu_first_error(const char *log_path, char *text, size_t size);

/* Mends what CRIU is known to write wrongly (engines.md: a periodic timerfd with a pending tick), in place, in the
 * images of a finished dump, and spares a restore in the host's network namespace the removal of a lock that is not
 * there. Returns the number of mended timers. */
int criu_mend_images(const char *images_directory, struct error *err);

/*
 * For a restore of a network namespace whose lock the caller removes himself, since CRIU takes long for it: changes the images so that CRIU leaves it
 * locked. ret_table: the nftables table (inet) in that namespace, to be removed once all sockets are there (the restore is held) and before the
 * tasks run, or nothing comes through any more. "": CRIU does it all the same, with a lock of another kind.
 */
int criu_leave_network_locked(const char *images_directory, char *ret_table, size_t size, struct error *err);

/* The lazy ranges of the pagemap images of a dump, for the cross-check of the present map: calls nothing, fills
 * ret with "image pid, start, end" triples. */
struct criu_lazy_range {
	int32_t image_pid;
	uint64_t start, end;
};
int criu_lazy_ranges(const char *images_directory, struct criu_lazy_range **ret, size_t *ret_n, struct error *err);

/* The mappings that a restore will fill lazily, by the mm images: only what lies in them may be hidden from CRIU. */
int criu_lazy_areas(const char *images_directory, struct criu_lazy_range **ret, size_t *ret_n, struct error *err);

/*
 * The nftables table (family inet) with which the CRIU of that dump locks connections: "CRIU-..." . It stays behind
 * after a commit, and after a CRIU that was killed. Known as soon as CRIU works, or, without libphaul-criu.so and a log in detail, when it has dumped (its
 * images lie in work_directory/images); -ENOENT before.
 */
int criu_network_table(const char *work_directory, char *ret, size_t size);

/* Whether libphaul-criu.so changed anything for this job's CRIU (hidden ranges, limits); its words in the log. */
bool criu_preload_acted(const struct criu_job *job);

/* What it did, as it says itself, separated by "; "; "" if nothing. */
void criu_preload_actions(const struct criu_job *job, char *ret, size_t size);
