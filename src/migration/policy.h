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
