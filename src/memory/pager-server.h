/*
 * Inside the pager proper: what its files share. Private to one process; the state is what survives it.
 */
#pragma once

#include "memory/pager-state.h"

#define PIECE_PAGES 64	    /* the most that a fault waits behind: 256 KiB */
#define PIECE_PAGES_BUSY 16 /* while faults come in */
#define PUNCH_PAGES 512	    /* the store is freed in groups of 2 MiB */
#define RETRY_MS 1	    /* a mapping is being changed: its event is not there yet, or never comes */
#define RETRY_MEMORY_MS 10  /* the process's memory limit is reached */

struct pager_server {
	struct pager_state *state;
	uint8_t *buffer;   /* PIECE_PAGES pages */
	uint64_t *cursors; /* by member: where its fill goes on */
	uint32_t n_cursors;
	bool deferred; /* some fault or fill could not be done yet: try again soon */
	bool memory_short;
	bool urgent; /* it may come before others, and does when it answers faults */
	uint64_t busy_until_ns;
	uint64_t piece_pages; /* what the fill dares at present */
	/* post-copy: nothing was left to pour in, and looking again costs time */
	bool arrived; /* pages did, since the last look */
	uint64_t look_ns;
	uint64_t drop_ns; /* when a full log may next be dropped */
};

/* What became of pages that were to be put in place. */
enum put_result {
	PUT_DONE,  /* they are there, or there is no place for them any more */
	PUT_AGAIN, /* the mappings are changing: read the events first */
	PUT_ASKED, /* they are still at the source, and were asked for */
	PUT_GONE,  /* the process is gone */
	PUT_NO_MEMORY,
	PUT_FAILED, /* recorded in the state */
};

/* pager-copy.c */
enum put_result pager_put_pages(struct pager_server *srv, struct pager_member *m, const struct pager_segment *piece);
enum put_result pager_put_zero(struct pager_server *srv, struct pager_member *m, uint64_t address);
void pager_wake(struct pager_member *m, uint64_t address);
void pager_member_close(struct pager_server *srv, struct pager_member *m);
void pager_punch(struct pager_server *srv, uint32_t space, uint64_t index, uint64_t pages);

/* pager-log.c: takes what the kernel has to say about a member, applies it, answers. Negative: recorded in the state. */
int pager_log_serve(struct pager_server *srv, struct pager_member *m, bool readable);

/* pager-connect.c */
int pager_connect_accept(struct pager_server *srv);
int pager_connect_receive(struct pager_server *srv);
int pager_connect_recover(struct pager_server *srv);

/* pager-adopt.c: somebody connected after CRIU had gone. */
void pager_adopt_offer(struct pager_state *s);

/* pager-runs.c: finds what each store holds; once. */
int pager_runs_build(struct pager_state *s);

/* pager-serve.c: to the end; the exit status. */
int pager_serve(struct pager_state *s);
