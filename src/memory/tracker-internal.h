/*
 * What the files of the tracker share. Nobody outside src/memory/ includes this.
 *
 *   tracker.c                the interface: processes come and go, spaces, who is untracked
 *   tracker-attach.c         begins to track processes, several at a time
 *   tracker-areas.c          which mappings of a process are covered, and how
 *   tracker-collect.c        scans, merges, present maps
 *   tracker-write-protect.c, tracker-soft-dirty.c   the two implementations behind struct tracker_ops
 *   direct-io.c              the window of pages that a device may still write into
 */
#pragma once

#include "base/range.h"
#include "memory/inodes.h"
#include "memory/maps.h"
#include "memory/scan.h"
#include "memory/tracker.h"

/* Neighbouring mappings that are scanned alike. For shared memory one mapping. */
struct area {
	uint64_t start, end;
	bool armed;		    /* writes are noticed; otherwise every populated page counts as written */
	bool unwritable;	    /* needs no tracking: reported once, then never. A shared mapping that can never be
				     * written through, or what CRIU's images bring and the kernel does not track */
	bool lazy;		    /* CRIU restores it lazily: belongs into the present map */
	bool of_file;		    /* private, but a file lies beneath */
	bool huge;		    /* hugetlb */
	struct inode_entry *object; /* of shared memory; NULL: private */
	uint64_t offset;	    /* in the object */
};

struct areas {
	struct area *areas;
	size_t n_areas, n_allocated;
};

#define DIRECT_IO_WINDOW_NS (3ULL * 1000000000ULL)

/* Pages reported at a time, of a process that does direct I/O. */
struct direct_io_report {
	uint64_t at_ns;
	struct range_set pages;
};

struct direct_io {
	bool seen;			  /* the process has O_DIRECT descriptors or AIO contexts, or once had */
	struct direct_io_report *reports; /* oldest first */
	size_t n_reports;
};

struct tracked {
	pid_t pid, image_pid;
	uint32_t space;
	uint64_t update; /* the update that last named it */
	int pidfd, pagemap_fd;
	int uffd;	       /* write-protect only; -1: not attached */
	bool attached;	       /* writes are tracked; otherwise everything counts as written */
	uint64_t memory_id;    /* changes with execve(2) */
	bool late;	       /* came in the final pass: unattached, and that is no fault */
	unsigned int attempts; /* to attach */
	int reason_number;
	char reason[512]; /* why not attached, or which range is not */
	struct areas areas;
	struct range_set armed;		/* what is registered, as of the last update */
	struct range_set armed_private; /* the part of it that was private memory */
	struct range_set fresh;		/* mapped since the last collect: everything populated is reported */
	struct range_set unwritable;	/* the part of armed that needs no arming: see struct area */
	struct range_set present;
	bool present_valid; /* filled by the last collect, which was the final pass */
	struct direct_io direct_io;
	struct frames frames;
	pid_t *stopped; /* soft-dirty: threads held during a scan */
	size_t n_stopped;
	bool all_stopped;
};

struct tracker_ops {
	enum tracker_kind kind;
	bool use_ioctl;	     /* needs PAGEMAP_SCAN, and arms by it */
	bool blind_to_huge;  /* hugetlb pages are not tracked (CRIU's images have them all) */
	bool blind_to_moves; /* page tables that mremap(2) moves whole keep their marks: see frames.h */
	/* Makes p->attached true or fails with the reason; maps are the current ones. */
	int (*attach)(struct tracked *p, const struct maps *maps, struct error *err);
	/* Arms [start, end) of mappings that touch each other: 0, -ESRCH (that memory is gone: exec or exit), -ENOENT
	 * (unmapped in between), -EPERM (a mapping that cannot be written through), or another negative errno. */
	int (*arm)(struct tracked *p, uint64_t start, uint64_t end);
	/* Around the scans of one process in a round; NULL: nothing to do. Both run, with the scan, in one thread of their own. */
	void (*begin)(struct tracked *p);
	void (*finish)(struct tracked *p);
	void (*release)(struct tracked *p, bool alive);
};

extern const struct tracker_ops tracker_write_protect_ops;
extern const struct tracker_ops tracker_soft_dirty_ops;
extern const struct tracker_ops tracker_none_ops;

/* Whether the process has other memory than pagemap_fd shows: it called execve(2). */
bool tracked_memory_changed(const struct tracked *p);
uint64_t process_memory_id(pid_t pid);

bool tracker_write_protect_works(struct error *err);
bool tracker_soft_dirty_works(struct error *err);

struct tracker {
	const struct tracker_ops *ops;
	struct scanner scanner;
	struct tracked **processes;
	size_t n_processes, n_allocated;
	struct inode_table inodes;
	struct space *spaces;
	size_t n_spaces;
	uint32_t next_space;
	uint64_t update;
	struct vma_flags *flags;
};

/* Attaches unless it is attached or has failed for good; why not is noted in p. */
void tracked_attach(const struct tracker *t, struct tracked *p, const struct maps *maps);

/* Attaches all that are not yet, side by side. */
void tracked_attach_new(const struct tracker *t);

/* Fills p->areas from maps and arms what is to be armed. -ESRCH: the memory that p is attached to is gone. */
int tracked_map_areas(struct tracker *t, struct tracked *p, const struct maps *maps, enum tracker_pass pass,
		      struct error *err);
void tracked_set_reason(struct tracked *p, int number, const char *text);

/* Whether the process may have direct I/O in flight: an AIO ring, or descriptors with O_DIRECT. Descriptors are looked at after the scan:
 * one that was opened in between may have pinned a page that the scan then took. */
bool direct_io_has_ring(pid_t pid, const struct maps *maps);
bool direct_io_has_descriptor(pid_t pid);

/* Remembers what a round found written. */
int direct_io_note(struct direct_io *d, uint64_t now_ns, struct range_set *pages_taken);

/* Adds what is still in the window to `pages`; in a round, what has been in it long enough leaves it. */
int direct_io_add(struct direct_io *d, uint64_t now_ns, enum tracker_pass pass, struct range_set *pages);
void direct_io_free(struct direct_io *d);
