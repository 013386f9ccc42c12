/*
 * The policy of pre-copy: another round while the workload runs, hold it back, freeze, leave the rest behind, or stop? Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define POLICY_MAX_DOWNTIME_MS_DEFAULT 100
#define POLICY_MAX_ROUNDS_DEFAULT 16
#define POLICY_BEARABLE_MS                                                                                             \
	1000 /* of pages in the freeze, where max_downtime is only the default and copying no longer helps */
#define POLICY_SMALL_PAGES 64 /* fewer than that are not worth a round of their own */

/* As in QEMU (migration parameters cpu-throttle-initial, cpu-throttle-increment, max-cpu-throttle). */
#define POLICY_THROTTLE_FIRST 20
#define POLICY_THROTTLE_STEP 10
#define POLICY_THROTTLE_MAX 99

/* What is done when the time for copying is over. */
enum policy_resort {
	POLICY_RESORT_STOP, /* the workload runs on at the source */
	POLICY_RESORT_FREEZE,
	POLICY_RESORT_POSTCOPY,
};

struct policy_limits {
	uint64_t max_downtime_ns; /* what the user grants */
	uint32_t max_rounds;
	uint64_t fixed_ns;		 /* what a freeze takes beside its pages: CRIU, images, restore */
	bool promise;			 /* max_downtime was asked for: nothing that would take longer is begun */
	bool rounds_asked;		 /* max_rounds was: after them it is frozen, whatever is left */
	bool auto_converge;		 /* the workload may be held back */
	uint32_t throttle;		 /* ... and is, by so many percent */
	bool postcopy;			 /* what is left may stay behind */
	uint64_t elapsed_ns, timeout_ns; /* of copying; timeout 0: none */
	enum policy_resort on_timeout;
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
	uint64_t dirty_pages; /* written meanwhile, or left out: what is left after it */
};

enum policy_decision {
	POLICY_AGAIN,
	POLICY_THROTTLE,	 /* again, with the workload held back (more) */
	POLICY_FREEZE_SMALL,	 /* hardly anything is left */
	POLICY_FREEZE_FITS,	 /* what is left fits into the granted downtime */
	POLICY_FREEZE_STALLED,	 /* it no longer shrinks; the pages fit, the rest of the freeze may not */
	POLICY_FREEZE_EXHAUSTED, /* that was the last round allowed */
	POLICY_FREEZE_TIMEOUT,	 /* the time for copying is over */
	POLICY_POSTCOPY,	 /* it is written faster than it can be sent: what is left stays behind */
	POLICY_POSTCOPY_TIMEOUT,
	POLICY_STOP_WRITES, /* it is written faster than it can be sent */
	POLICY_STOP_FIXED,  /* not the pages: the rest of a freeze is longer than what was asked for */
	POLICY_STOP_TIMEOUT,
	POLICY_DECISION_MAX,
};

/* What a decision leads to. */
enum policy_course {
	POLICY_COURSE_ROUND,
	POLICY_COURSE_FREEZE,
	POLICY_COURSE_POSTCOPY,
	POLICY_COURSE_STOP,
};

/* n >= 1 rounds, the last one behind. *ret_estimate_ns: how long the freeze will take by its measure. */
enum policy_decision policy_decide(const struct policy_limits *limits, const struct policy_round *rounds, uint32_t n,
				   uint64_t *ret_estimate_ns);

enum policy_course policy_course(enum policy_decision decision);

/* Whether the time for copying is over; then what is left is frozen, left behind, or all of it stopped: also in the middle of a
 * round. */
bool policy_timed_out(const struct policy_limits *limits);

/* The next step of holding back, in percent; the last one stays. */
uint32_t policy_throttle_next(uint32_t percent);

/* For people: "what is left fits into the downtime". */
const char *policy_explain(enum policy_decision decision);
