/*
 * See gentle.h. The one who commands and the thread itself may call at once: each goes on until what it applied is what is wanted.
 */
#include "base/gentle.h"

#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/waits.h"

/* Where a sandbox forbids it, all stays as it is: slower for others, and right. */
static void apply(const struct gentle *g)
{
	const struct sched_param none = { 0 };
	pid_t thread = g->thread;
	bool wanted, starved;

	do {
		wanted = g->wanted;
		starved = g->starved;
		if (!thread)
			return;
		(void)sched_setscheduler(thread, wanted && !starved ? SCHED_IDLE : SCHED_OTHER, &none);
		(void)setpriority(PRIO_PROCESS, (id_t)thread, wanted ? GENTLE_NICE : 0);
	} while (wanted != g->wanted || starved != g->starved);
}

void gentle_set(struct gentle *g, bool gentle)
{
	if (g->wanted == gentle || geteuid() != 0)
		return;
	g->starved = false;
	g->wanted = gentle;
	apply(g);
}

void gentle_begin(struct gentle *g)
{
	g->thread = gettid();
	if (g->wanted)
		apply(g);
}

void gentle_spare(struct gentle *g, bool spare)
{
	g->spares = spare;
}

void gentle_look(struct gentle *g)
{
	uint64_t now, ran, waited;

	if (!g->wanted || g->starved)
		return;
	now = clock_now_ns();
	if (now - g->looked_ns < GENTLE_LOOK_MS * NS_PER_MS || waits_read(&ran, &waited) < 0)
		return;
	if (g->looked_ns) {
		uint64_t ran_now = ran - g->ran_ns, waited_now = waited - g->waited_ns;

		g->crowded = waited_now * GENTLE_CROWDED > ran_now + waited_now;
		if (waited_now > GENTLE_LOOK_MS / 2 * NS_PER_MS && ran_now * GENTLE_PART_MIN < waited_now) {
			g->starved = true;
			apply(g);
		}
	}
	g->looked_ns = now;
	g->ran_ns = ran;
	g->waited_ns = waited;
}

uint64_t gentle_rest(struct gentle *g)
{
	uint64_t worked = clock_thread_ns(), due = (worked - g->worked_ns) * GENTLE_RESTS, began;

	if (!g->wanted || !g->spares || !g->crowded || g->starved || !g->worked_ns) {
		g->worked_ns = worked;
		return 0;
	}
	due = MIN(due, GENTLE_REST_MS * NS_PER_MS);
	if (due < GENTLE_REST_MIN_US * 1000 || g->rested_ns > GENTLE_RESTS_MAX_MS * NS_PER_MS)
		return 0;
	began = clock_now_ns();
	(void)poll(NULL, 0, (int)(due / NS_PER_MS) ?: 1);
	g->worked_ns = worked;
	g->rested_ns += clock_now_ns() - began;
	return clock_now_ns() - began;
}
