/*
 * Threads that work while others shall not notice: they get what is left of the processors, and no less than a small part where nothing is left.
 *
 * Of those who want a processor such a thread is the last (SCHED_IDLE); whoever wakes up takes it away at once. Where others leave it
 * less than GENTLE_PART_MIN of the time that it wants, it would not get ahead, and holds on to what others wait for: from then on it is
 * only nice (GENTLE_NICE), until it is told anew.
 *
 * All that among the threads of one control group: groups share the processors by their weights, whatever runs in them (docs/bulk.md).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define GENTLE_NICE 10	   /* a tenth of the weight of a thread that is not nice */
#define GENTLE_PART_MIN 40 /* the inverse of it */
#define GENTLE_LOOK_MS 200

/* One thread, seen by the one who commands it. Zeroed before the thread starts. */
struct gentle {
	_Atomic pid_t thread; /* 0: it has not begun */
	_Atomic bool wanted, starved;
	/* The thread's own: when it looked last, and what it had by then. */
	uint64_t looked_ns, ran_ns, waited_ns;
};

/* From another thread, any time, also while that one sleeps. Without privileges there is no way back, so nothing is done then. */
void gentle_set(struct gentle *g, bool gentle);

/* By the thread itself, first of all. */
void gentle_begin(struct gentle *g);

/* By the thread itself, as often as it likes: whether it gets ahead at all. */
void gentle_look(struct gentle *g);
