/*
 * Threads that work while others shall not notice: below everybody else on the processors, and back.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <unistd.h>

#define GENTLE_NICE                                                                                                    \
	10 /* a tenth of the weight of a thread that is not nice: little where others work, all of what they leave */

/* One thread, seen by the one who commands it. Zeroed before the thread starts. */
struct gentle {
	_Atomic pid_t thread; /* 0: it has not begun */
	_Atomic bool wanted;
};

static inline void gentle_apply(const struct gentle *g)
{
	pid_t thread = g->thread;

	if (thread)
		(void)setpriority(PRIO_PROCESS, (id_t)thread, g->wanted ? GENTLE_NICE : 0);
}

/* From another thread, any time, also while that one sleeps. Without privileges there is no way back, so nothing is done then. */
static inline void gentle_set(struct gentle *g, bool gentle)
{
	if (g->wanted == gentle || geteuid() != 0)
		return;
	g->wanted = gentle;
	gentle_apply(g);
}

/* By the thread itself, first of all. */
static inline void gentle_begin(struct gentle *g)
{
	g->thread = gettid();
	if (g->wanted)
		gentle_apply(g);
}
