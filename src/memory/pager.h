/*
 * The pager: answers the restored processes' page faults from the store and pours in the rest.
 *
 * Processes: pager_start() starts a supervisor (this program again, `phaul pager`, small, memory locked) which holds
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
	uint32_t replaced;     /* how often the pager had to be started again */
	uint64_t fault_ns_max; /* longest time from reading a fault to its answer */
	int32_t failed;	       /* 0, or an errno after which the pager could not go on */
};

/* Listens on socket_path (CRIU's work directory, "lazy-pages.socket") and returns when it does. The background fill starts
 * with pager_release(). */
int pager_start(const char *socket_path, const struct pager_space *spaces, size_t n_spaces, struct pager **ret,
		struct error *err);

/* The tasks are about to be let go: from now on our own death does not end the pager (the tasks' end does). */
void pager_keep(struct pager *p);

/* The tasks run: background fill may begin (faults are served from the start). */
int pager_release(struct pager *p, struct error *err);

int pager_status(struct pager *p, struct pager_status *ret, struct error *err);

/* Waits until finished; 1 finished, 0 deadline, negative errno (the pager failed: err says why). */
int pager_wait(struct pager *p, uint64_t deadline_ns, struct error *err);

/* Abort before the tasks run: ends supervisor and pager. After pager_release() it only lets go of the handle. */
void pager_free(struct pager *p);

/* Process id of the pager proper (for fault tests). */
pid_t pager_pid(struct pager *p);

/* The main function of the hidden verb `phaul pager`; fd: the inherited control socket. */
int pager_main(int control_fd);
