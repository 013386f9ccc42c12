/*
 * See gentle.h. The one who commands and the thread itself may call at once: each goes on until what it applied is what is wanted.
 */
#include "base/gentle.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

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

		if (waited_now > GENTLE_LOOK_MS / 2 * NS_PER_MS && ran_now * GENTLE_PART_MIN < waited_now) {
			g->starved = true;
			apply(g);
		}
	}
	g->looked_ns = now;
	g->ran_ns = ran;
	g->waited_ns = waited;
}
