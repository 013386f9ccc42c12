/*
 * The tracker: which pages of a process tree were written since they were last asked for.
 *
 * Source side; used by one thread. Two implementations behind one const ops table (userfaultfd write-protect
 * async + PAGEMAP_SCAN on kernels from 6.7; soft-dirty before), chosen by what the kernel and the tasks allow. A process
 * that cannot be tracked (it uses userfaultfd itself, say) is reported and left to the copy in the freeze:
 * its pages come with tracker_collect() every time, unless TRACKER_ROUND asks only for tracked ones.
 *
 * What it covers: private anonymous memory (heap and stacks included), private file mappings' own pages, shared
 * memory (each object once, whichever process wrote). Not [vdso], [vvar*], [vsyscall], device and shared file mappings of real files.
 */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "memory/space.h"

enum tracker_kind {
	TRACKER_AUTO,
	TRACKER_WRITE_PROTECT,
	TRACKER_SOFT_DIRTY,
	TRACKER_NONE, /* nothing can be tracked: every collect reports everything */
	TRACKER_KIND_MAX,
};

enum tracker_pass {
	TRACKER_ROUND, /* the tasks run; written pages are reported and armed again */
	TRACKER_FINAL, /* the tasks are stopped (by CRIU, with ptrace): report, arm nothing, inject nothing */
};

struct tracker;

/* What the kernel offers; TRACKER_NONE with a sentence in err when neither. kind AUTO asks for the best. */
enum tracker_kind tracker_probe(struct error *err);

int tracker_new(enum tracker_kind kind, struct tracker **ret, struct error *err);
enum tracker_kind tracker_kind_of(const struct tracker *t);

/*
 * Tells the tracker which processes there are now (host pids, and CRIU's pid of each, see space.h). New ones are
 * attached (0.2-0.5 ms each, injection into a running task), ended ones dropped, new mappings registered. In a
 * TRACKER_FINAL pass new processes are not attached: everything they have counts as written.
 * A process that cannot be attached is not an error: ask tracker_untracked().
 */
int tracker_update(struct tracker *t, enum tracker_pass pass, const pid_t *pids, const pid_t *image_pids, size_t n,
		   struct error *err);

/* The pages written since the last collect (all populated ones, for what is new), in ascending order per space. After a
 * failure written pages may have been lost to us: only tracker_free() is left. */
int tracker_collect(struct tracker *t, enum tracker_pass pass, struct page_runs *ret, struct error *err);

/*
 * The present map of one SPACE_PROCESS at the freeze: every page of private memory that exists and that CRIU
 * restores lazily (a superset is fine; leaving one out is fatal). Ascending. It comes from the scan of the last
 * tracker_collect(), which must have been of the TRACKER_FINAL pass (-EINVAL otherwise), so every page in it was reported by
 * some collect.
 */
int tracker_present(struct tracker *t, uint32_t space, struct range_set *ret, struct error *err);

/* How to find locked memory in the final pass without reading smaps; borrowed. NULL: smaps is read. */
struct vma_flags;
void tracker_set_flags(struct tracker *t, struct vma_flags *flags);

/* Spaces known so far; ids are stable for the life of the tracker. Valid until the next update. */
size_t tracker_spaces(const struct tracker *t, const struct space **ret);

/* Processes that could not be attached, with the reason of the first; 0 when all are tracked. */
size_t tracker_untracked(const struct tracker *t, struct error *ret_reason);

/* Populated private and shared bytes of a process by /proc/PID/smaps_rollup or statm: for plans. */
int tracker_resident_bytes(pid_t pid, uint64_t *ret, struct error *err);

/* Whether the process holds an io_uring (CRIU refuses it). False also when that cannot be seen: it has ended. */
bool tracker_uses_io_uring(pid_t pid);

/* Lets go of a process whose tasks are gone, or run again; in pieces so that they do not stall. */
void tracker_free(struct tracker *t);

/*
 * Reads pages of another process: process_vm_readv, and /proc/PID/mem for what has no read permission.
 * Up to n_runs runs into `data`, one behind the other. A page that went away in the meantime is left
 * zero and its bit set in ret_gone (one bit per page of the whole read, may be NULL). Returns the number of pages
 * gone, or a negative errno (-ESRCH: the process is gone).
 */
int reader_read(pid_t pid, const struct range *remote, size_t n, void *data, uint64_t *ret_gone, struct error *err);
