/*
 * The pager: answers the restored processes' page faults from the store and pours in the rest.
 *
 * Processes: pager_prepare() starts a supervisor (this program again, `phaul pager`, small, memory locked) which holds
 * the store's memfds, the present maps and all userfaultfds, and clones the pager proper with a shared descriptor table;
 * a pager that dies is replaced and no page is lost. Both outlive the worker that started them: a workload must not
 * depend on it once it runs.
 */
#pragma once

#include "base/error.h"
#include "base/range.h"
#include "memory/store.h"

struct pager_space {
	uint32_t space;
	int32_t image_pid; /* what CRIU will call the process in its handshake */
	int store_fd;
	const struct range_set *present;
	const struct range_set
		*missing; /* within present: still at the source, to come by pager_put(); NULL: none. Needs a store */
	const struct range_set
		*busy; /* poured in first; NULL: none in particular. A hint: need not be within present */
};

struct pager;

/* The state of the fill, for statistics. */
struct pager_status {
	bool connected;	       /* CRIU has handed over the userfaultfds */
	bool finished;	       /* every page is in place, all descriptors closed */
	uint64_t faults;       /* served on demand */
	uint64_t pages_copied; /* in all, faults included */
	uint64_t pages_zero;
	uint64_t pages_left;
	uint32_t replaced;		     /* how often the pager had to be started again */
	uint64_t fault_ns_max;		     /* longest time from reading a fault to its answer */
	uint64_t fault_ns_p50, fault_ns_p99; /* of those answered from the store */
	uint64_t faults_remote;		     /* that waited for the source */
	uint64_t remote_ns_p50, remote_ns_p99;
	int32_t failed; /* 0, or an errno after which the pager could not go on */
};

/* Listens on socket_path (CRIU's work directory, "lazy-pages.socket") and starts the processes, which takes a while: before the freeze. */
int pager_prepare(const char *socket_path, struct pager **ret, struct error *err);

/* Once. Returns when it serves these spaces; the background fill starts with pager_fill(). Afterwards or on failure: pager_free(). */
int pager_start(struct pager *p, const struct pager_space *spaces, size_t n_spaces, struct error *err);

/* All of the tasks' memory is as CRIU restores it, mappings and registrations: pages may be poured in from now on, though nobody runs yet. Not
 * earlier: what cannot be put anywhere is given up. A hint: a pager that is gone will be noticed elsewhere. */
void pager_fill(struct pager *p);

/* The tasks are about to be let go: from now on our own death does not end the pager (the tasks' end does). */
void pager_keep(struct pager *p);

/* The tasks run: their own end is the end of the pager now, and nothing else; the fill begins if it has not. */
int pager_release(struct pager *p, struct error *err);

int pager_status(struct pager *p, struct pager_status *ret, struct error *err);

/*
 * Post-copy: pages that were `missing`. Any thread; one at a time for pager_requests().
 */
struct pager_place {
	uint32_t space;
	uint64_t address, pages;
};

/* Readable when pager_requests() may have something. */
int pager_request_fd(const struct pager *p);

/* Pages that faults wait for, at most `max`; each is asked for once per link. */
size_t pager_requests(struct pager *p, struct pager_place *ret, size_t max);

/* A new link to the source: what was asked for over the old one is asked for again. */
void pager_relink(struct pager *p);

/* Pages from the source, as a PAGES frame has them. Those that were not missing are ignored. scratch: CODEC_PIECE_PAGES pages, for those
 * that must be unpacked. */
struct pager_pages {
	struct pager_place place;
	enum page_encoding encoding;
	const uint8_t *payload;
	size_t payload_bytes;
};

int pager_put(struct pager *p, const struct pager_pages *pages, uint8_t *scratch, struct error *err);

/* How many are still missing; the next of them at or after *at (false: none). Begin with an empty place. */
uint64_t pager_missing(const struct pager *p);
bool pager_missing_from(const struct pager *p, const struct pager_place *at, struct pager_place *ret);

/* Lets go of the handle, whatever is missing; the pager goes on, and pager_adopt() finds it at the same path. */
void pager_leave(struct pager *p);

/* Takes the place of a client that has ended, after pager_release(). -ECONNREFUSED, -ENOENT: there is no pager any more. */
int pager_adopt(const char *socket_path, struct pager **ret, struct error *err);

/* Waits until finished; 1 finished, 0 deadline, negative errno (the pager failed: err says why). */
int pager_wait(struct pager *p, uint64_t deadline_ns, struct error *err);

/* Abort before the tasks run: ends supervisor and pager. After pager_release() it only lets go of the handle. */
void pager_free(struct pager *p);

/* Process id of the pager proper (for fault tests). */
pid_t pager_pid(struct pager *p);

/* The main function of the hidden verb `phaul pager`; fd: the inherited control socket. */
int pager_main(int control_fd);
