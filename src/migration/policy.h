/*
 * The policy of pre-copy: another round while the workload runs, or freeze now? Pure.
 */
#pragma once

#include <stdint.h>

#define POLICY_MAX_DOWNTIME_MS_DEFAULT 100
#define POLICY_MAX_ROUNDS_DEFAULT 16
#define POLICY_SMALL_PAGES 64 /* fewer than that are not worth a round of their own */

struct policy_limits {
	uint64_t max_downtime_ns; /* what the user grants */
	uint32_t max_rounds;
	uint64_t fixed_ns; /* what a freeze takes beside its pages: CRIU, images, restore */
};

/* What is known before a freeze of what it takes beside its pages. */
struct policy_freeze {
	uint32_t processes;
	uint64_t scan_ns; /* what the last look at all page tables took; one more is taken in the freeze */
	uint64_t round_trip_ns;
	uint64_t ran_ns, waited_ns; /* how long we ran so far, and how long we waited for a processor that others had */
};

/* The fixed part: CRIU's dump and restore, its images, the round trips of the handover, on a machine as busy as it was so far. */
uint64_t policy_fixed_ns(const struct policy_freeze *f);

/* One round that is over. */
struct policy_round {
	uint64_t pages;	      /* sent in it */
	uint64_t bytes;	      /* on the wire */
	uint64_t ns;	      /* it took */
	uint64_t dirty_pages; /* written meanwhile: what is left after it */
};

enum policy_decision {
	POLICY_AGAIN,
	POLICY_FREEZE_SMALL,	 /* hardly anything is left */
	POLICY_FREEZE_FITS,	 /* what is left fits into the granted downtime */
	POLICY_FREEZE_STALLED,	 /* it no longer shrinks */
	POLICY_FREEZE_EXHAUSTED, /* that was the last round allowed */
	POLICY_DECISION_MAX,
};

/* n >= 1 rounds, the last one behind. *ret_estimate_ns: how long the freeze will take by its measure. */
enum policy_decision policy_decide(const struct policy_limits *limits, const struct policy_round *rounds, uint32_t n,
				   uint64_t *ret_estimate_ns);

/* For people: "what is left fits into the downtime". */
const char *policy_explain(enum policy_decision decision);
