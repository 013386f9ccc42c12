/*
 * Threads that work while others shall not notice: they get what is left of the processors, and no less than a small part where nothing is left.
 *
 * Of those who want a processor such a thread is the last (SCHED_IDLE); whoever wakes up takes it away at once. Where others leave it
 * less than GENTLE_PART_MIN of the time that it wants, it would not get ahead, and holds on to what others wait for: from then on it is
 * only nice (GENTLE_NICE), until it is told anew.
 *
 * That alone does not go unnoticed: what a busy program leaves are gaps between two of its own steps, and it is slower for each that is taken. So where
 * somebody is to be spared (gentle_spare()) such a thread takes a part of the gaps only: when it had to wait for a processor lately it rests between
 * two pieces of work, GENTLE_RESTS times as long as it worked, but in all no longer than GENTLE_RESTS_MAX_MS.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define GENTLE_NICE 10	   /* a tenth of the weight of a thread that is not nice */
#define GENTLE_PART_MIN 40 /* the inverse of it */
#define GENTLE_LOOK_MS 200
#define GENTLE_CROWDED 4 /* it waited for more than one part in so many */
#define GENTLE_RESTS 8
#define GENTLE_REST_MIN_US 200 /* shorter ones are saved up */
#define GENTLE_REST_MS 20
#define GENTLE_RESTS_MAX_MS 20000

/* One thread, seen by the one who commands it. Zeroed before the thread starts. */
struct gentle {
	_Atomic pid_t thread; /* 0: it has not begun */
	_Atomic bool wanted, starved, spares;
	/* The thread's own: when it looked last, and what it had by then; its rests. */
	uint64_t looked_ns, ran_ns, waited_ns;
	bool crowded;
	uint64_t worked_ns, rested_ns;
};

/* From another thread, any time, also while that one sleeps. Without privileges there is no way back, so nothing is done then. */
void gentle_set(struct gentle *g, bool gentle);

/* From another thread, any time: whether somebody is to be spared while it is gentle. */
void gentle_spare(struct gentle *g, bool spare);

/* By the thread itself, first of all. */
void gentle_begin(struct gentle *g);

/* By the thread itself, as often as it likes: whether it gets ahead at all. */
void gentle_look(struct gentle *g);

/* By the thread itself between two pieces of work, when it holds nothing that others wait for: rests if that is due. How long, in nanoseconds. */
uint64_t gentle_rest(struct gentle *g);
