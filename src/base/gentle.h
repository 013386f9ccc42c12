/*
 * Threads that work while others shall not notice: they get what is left of the processors, and no less than a small part where nothing is left.
 *
 * Of those who want a processor such a thread is the last (SCHED_IDLE); whoever wakes up takes it away at once. Where others leave it
 * less than GENTLE_PART_MIN of the time that it wants, it would not get ahead, and holds on to what others wait for: from then on it is
 * only nice (GENTLE_NICE), until it is told anew.
 *
 * That holds among the threads of one control group only: groups share the processors by their weights, whatever runs in them. So where others
 * who are not nice themselves keep the machine busy, a thread that had to wait for a processor rests afterwards, GENTLE_REST_TIMES as long as it had
 * waited (docs/bulk.md). Copying that waits for its own kind alone loses nothing.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/waits.h"

#define GENTLE_NICE 10	   /* a tenth of the weight of a thread that is not nice */
#define GENTLE_PART_MIN 40 /* the inverse of it */
#define GENTLE_LOOK_MS 200
#define GENTLE_REST_TIMES 2
#define GENTLE_REST_EVERY_MS 10
#define GENTLE_REST_MAX_MS 50
/* Inverses of parts: of all that the processors do, what others must have; of all their time, what may be left over. */
#define GENTLE_OTHERS_MIN 10
#define GENTLE_IDLE_MAX 5

/* One thread, seen by the one who commands it. Zeroed before the thread starts. */
struct gentle {
	_Atomic pid_t thread; /* 0: it has not begun */
	_Atomic bool wanted, starved;
	/* The thread's own: when it looked last, and what it had by then. */
	uint64_t looked_ns, ran_ns, waited_ns;
	struct machine_ticks ticks;
	bool others; /* wanted the processors until then */
	uint64_t rested_at_ns, rested_waited_ns;
};

/* From another thread, any time, also while that one sleeps. Without privileges there is no way back, so nothing is done then. */
void gentle_set(struct gentle *g, bool gentle);

/* By the thread itself, first of all. */
void gentle_begin(struct gentle *g);

/* Whether others wanted the processors between these two looks. What the kernel did for anybody counts for nobody. */
bool gentle_others(const struct machine_ticks *before, const struct machine_ticks *now);

/* By the thread itself, as often as it likes, where nobody waits for it: whether it gets ahead at all. May rest, GENTLE_REST_MAX_MS at most
 * and not much longer than it is gentle. */
void gentle_look(struct gentle *g);
