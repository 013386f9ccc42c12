/*
 * What the pagers of one migration know: one shared mapping, so that a successor finds it as it was left.
 *
 * A pager may be killed between any two instructions. Therefore:
 * - userfaultfd messages are read(2) straight into the slots of their member: an event was either not taken from
 *   the kernel, or stands in a slot;
 * - a table (which addresses still come from the store) is never changed in place: the next one is written into the
 *   other buffer and becomes active, together with the number of slots it accounts for, by one store;
 * - bits only ever go from 0 to 1, and setting one again does no harm.
 * Everything else here is a counter or is worked out anew (pager_members_recover()).
 *
 * One process writes: the pager proper. The client (pager.c) writes before it starts and then only `filling`, `released` and `kept`; with pages still
 * at the source also `link`, `request_head` and the bits of pages that arrived (pager-missing.c).
 */
#pragma once

#include <linux/userfaultfd.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/page.h"
#include "base/range.h"

#define PAGER_STATE_BYTES (16ULL << 30) /* sparse */
#define PAGER_MEMBERS_MAX 131072
#define PAGER_SLOTS 64
#define PAGER_ERROR_MAX 256

/* Pages at `address` of the process that come from `source` in the store and have the bits from `index` on. */
struct pager_segment {
	uint64_t address, source, pages, index;
};

/* One process image: what the client gave, and the runs of bytes found in its store. Offsets are from the state. */
struct pager_space_state {
	uint32_t space;
	int32_t image_pid;
	int32_t store_fd;
	uint32_t connected;
	uint64_t present_offset, n_present; /* struct range[] */
	uint64_t runs_offset, n_runs;	    /* struct pager_segment[], address == source, ascending */
	uint64_t urgent_offset, n_urgent,
		urgent_done; /* struct range[]: poured in first, in this order; so many were */
	uint64_t pages;	     /* in these runs */
	/* Pages that were still at the source in the beginning: one segment a range (address == source; index: of its first bit), and a
	 * bit per page that says that it still is. Cleared by the client when the page is in the store; never set again. */
	uint64_t missing_offset, n_missing, missing_bits_offset;
	_Atomic uint64_t n_away; /* bits set */
};

/* A page that somebody waits for, from the pager to the client. */
struct pager_request {
	uint32_t space; /* index into the spaces */
	uint64_t source;
};

#define PAGER_REQUESTS 1024	  /* in the ring, a power of two */
#define PAGER_LATENCY_BUCKETS 128 /* pager-latency.c */

struct pager_table {
	uint64_t offset, capacity, n; /* struct pager_segment[], ascending by address */
	uint64_t done;		      /* structural events in the slots before this one are accounted for */
};

enum member_state {
	MEMBER_FREE,
	MEMBER_LIVE,
	MEMBER_CLOSING, /* its descriptor may be closed already */
};

/* One userfaultfd: a restored process, or one it forked since. */
struct pager_member {
	_Atomic uint32_t state;
	int32_t uffd;
	uint32_t space; /* index into the spaces */
	_Atomic uint32_t active;
	struct pager_table tables[2];
	uint64_t bits_offset,
		bits_capacity;		    /* one bit per page of the space: this member does not need it (any more) */
	uint64_t left;			    /* bits not set */
	struct uffd_msg slots[PAGER_SLOTS]; /* the log; event 0: empty */
};

struct pager_handshake {
	int32_t pid; /* 0: none read yet */
	char byte;
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
};

struct pager_state {
	uint32_t n_spaces;
	_Atomic uint32_t n_members;			  /* entries in use so far, free ones included */
	_Atomic uint64_t next;				  /* first byte not handed out */
	int32_t control_fd, listen_fd, state_fd, criu_fd; /* in the supervisor's table; criu_fd 0: not connected yet */
	_Atomic int32_t pager_pid, supervisor_pid;
	_Atomic uint32_t filling, released, kept, aborted, finished, ready, marker, connected;
	_Atomic uint32_t replaced, spaces_built;
	_Atomic int32_t failed;
	char failure[PAGER_ERROR_MAX]; /* why; written before `failed` */
	_Atomic uint64_t faults, events, pages_copied, pages_zero, pages_skipped, pages_left, fault_ns_max;
	/* post-copy: pages that are asked for (a ring; the pager adds, the client takes), and what wakes either side */
	_Atomic uint32_t request_head, request_tail;
	struct pager_request requests[PAGER_REQUESTS];
	_Atomic uint32_t link; /* counts links to the source: what was asked for over an old one is asked for again */
	int32_t request_fd, arrival_fd; /* eventfds, in the supervisor's table */
	/* how long faults took: those that were answered from the store, and those that waited for the source */
	_Atomic uint32_t latencies[2][PAGER_LATENCY_BUCKETS];
	_Atomic uint64_t faults_remote;
	struct pager_handshake handshake;
	uint64_t spaces_offset, members_offset;
};

static inline void *state_at(struct pager_state *s, uint64_t offset)
{
	return (char *)s + offset;
}

static inline struct pager_space_state *state_space(struct pager_state *s, uint32_t i)
{
	return (struct pager_space_state *)state_at(s, s->spaces_offset) + i;
}

static inline struct pager_member *state_member(struct pager_state *s, uint32_t i)
{
	return (struct pager_member *)state_at(s, s->members_offset) + i;
}

static inline uint64_t *member_bits(struct pager_state *s, const struct pager_member *m)
{
	return state_at(s, m->bits_offset);
}

static inline struct pager_table *member_table(struct pager_member *m)
{
	return &m->tables[m->active];
}

static inline struct pager_segment *member_segments(struct pager_state *s, struct pager_member *m)
{
	return state_at(s, member_table(m)->offset);
}

/* Makes the memory file and maps it; maps one that exists. */
int pager_state_new(int *ret_fd, struct pager_state **ret, struct error *err);
int pager_state_map(int fd, struct pager_state **ret, struct error *err);
void pager_state_unmap(struct pager_state *s);

/* Zeroed room, page aligned; 0 when there is none left. */
uint64_t pager_state_alloc(struct pager_state *s, uint64_t bytes);

/* Records the first failure; returns -number. */
int pager_state_fail(struct pager_state *s, int number, const char *fmt, ...) _printf_(3, 4);

/* A new member of a space: with a copy of the parent's table and bits, or (NULL) with all runs. NULL: no room. */
struct pager_member *pager_member_new(struct pager_state *s, uint32_t space, int uffd, struct pager_member *parent);

/* The live member that has this descriptor. */
struct pager_member *pager_member_find(struct pager_state *s, int uffd);

/* Puts right what a pager that was killed may have left half done. */
void pager_members_recover(struct pager_state *s);

/* pager-map.c: the table as a fold of events. `done` is stored with the result. 0 or -ENOMEM. */
int pager_map_forget(struct pager_state *s, struct pager_member *m, uint64_t start, uint64_t end, uint64_t done);
int pager_map_move(struct pager_state *s, struct pager_member *m, uint64_t from, uint64_t to, uint64_t length,
		   uint64_t done);

/* The segment that holds address, or NULL. */
const struct pager_segment *pager_map_find(struct pager_state *s, struct pager_member *m, uint64_t address);

/* The next pages from *cursor on (wrapping around once) that are still needed, and not still at the source: at most max_pages. False:
 * none. */
bool pager_map_next(struct pager_state *s, struct pager_member *m, uint64_t *cursor, uint64_t max_pages,
		    struct pager_segment *ret);

/* pager-urgent.c: what goes first: `busy` and what is around it. Once per space. */
void pager_urgent_describe(struct pager_state *s, struct pager_space_state *sp, const struct range_set *present,
			   const struct range_set *busy);

/* The next pages of that which a member still needs: at most max_pages. False: none are left. */
bool pager_urgent_next(struct pager_state *s, struct pager_member *m, uint64_t max_pages, struct pager_segment *ret);

/* pager-missing.c: pages that are still at the source. Any of the processes; any thread. */
int pager_missing_describe(struct pager_state *s, struct pager_space_state *sp, const struct range_set *missing);

/* How many of the pages from `source` on are alike: still at the source (*ret_missing), or not. pages >= 1. */
uint64_t pager_missing_part(struct pager_state *s, const struct pager_space_state *sp, uint64_t source, uint64_t pages,
			    bool *ret_missing);

/* The first range, or rest of one, at or after `at` that was at the source in the beginning. */
bool pager_missing_next(struct pager_state *s, const struct pager_space_state *sp, uint64_t at, struct range *ret);

/* They are in the store now. */
void pager_missing_arrived(struct pager_state *s, struct pager_space_state *sp, uint64_t source, uint64_t pages);

/* The ring: false when it is full, or empty. */
bool pager_request_add(struct pager_state *s, const struct pager_request *request);
bool pager_request_take(struct pager_state *s, struct pager_request *ret);

/* pager-latency.c: what took `ns` is counted; the time within which `share` (0 to 1) of all were. 0: none were counted. */
void pager_latency_count(_Atomic uint32_t *buckets, uint64_t ns);
uint64_t pager_latency_quantile(const _Atomic uint32_t *buckets, double share);

/* These bits are done. */
void pager_member_mark(struct pager_state *s, struct pager_member *m, uint64_t index, uint64_t pages);
bool pager_member_marked(struct pager_state *s, const struct pager_member *m, uint64_t index, uint64_t pages);
