/*
 * The source's half of post-copy, from RUNNING until the target has every page: serves, asks how many are missing, and opens the link
 * anew when it breaks. For phaul migrate, and for phaul resume after a crash.
 */
#pragma once

#include "migration/handover.h"
#include "migration/page-server.h"

#define POSTCOPY_LOOK_MS 100 /* how often the target is asked */

struct pacer;

struct postcopy {
	struct handover_link link;
	struct session *session; /* of the control channel; may be without one */
	struct page_server *server;
	struct pacer *pacer;   /* of the background stream; NULL: none */
	uint32_t window_bytes; /* page-server.h; 0: POSTCOPY_WINDOW_BYTES */
	int64_t reconnect_ms;  /* how long the target may be out of reach */

	uint64_t missing; /* pages, as of the last answer */
	uint64_t faults;  /* that waited for us, so far */
	uint32_t reconnects;
	uint64_t lost_ns; /* since when there is no link; 0: there is one */
	bool keep_source; /* the operator says that the target's copy is dead */
};

#define POSTCOPY_WINDOW_BYTES (128U << 10)

/* What fits on the link and waits there for a millisecond or two. */
uint32_t postcopy_window(uint64_t bytes_per_second, uint64_t round_trip_ns);

/* Dials both page channels and gives them to the server. */
int postcopy_open(struct postcopy *p, struct error *err);

/* 1: the target has everything, or the operator says that it needs nothing more; 0: not yet, call again; negative: it was out of reach for too long, or canceled. Blocks for up to
 * POSTCOPY_LOOK_MS, longer while the link is broken. */
int postcopy_step(struct postcopy *p, struct error *err);
