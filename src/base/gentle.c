/*
 * See gentle.h. The one who commands and the thread itself may call at once: each goes on until what it applied is what is wanted.
 */
#include "base/gentle.h"

#include <sched.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/waits.h"

#define REST_PIECE_NS (2 * (long)NS_PER_MS)

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

bool gentle_others(const struct machine_ticks *before, const struct machine_ticks *now)
{
	uint64_t not_nice = now->not_nice - before->not_nice, busy = now->busy - before->busy,
		 idle = now->idle - before->idle;

	return not_nice * GENTLE_OTHERS_MIN > busy && idle * GENTLE_IDLE_MAX < busy + idle;
}

static void look_for_others(struct gentle *g)
{
	struct machine_ticks now;

	if (machine_ticks_read(&now) < 0)
		return;
	g->others = g->ticks.busy && gentle_others(&g->ticks, &now);
	g->ticks = now;
}

/* In pieces: the one who commands may want it at work again. */
static void rest(struct gentle *g, uint64_t now)
{
	const struct timespec piece = { .tv_nsec = REST_PIECE_NS };
	uint64_t ran, waited, owed = 0, until;

	if (now - g->rested_at_ns < GENTLE_REST_EVERY_MS * NS_PER_MS || waits_read(&ran, &waited) < 0)
		return;
	if (g->rested_at_ns)
		owed = GENTLE_REST_TIMES * (waited - g->rested_waited_ns);
	until = now + MIN(owed, GENTLE_REST_MAX_MS * NS_PER_MS);
	while (now < until && g->wanted) {
		nanosleep(&piece, NULL);
		now = clock_now_ns();
	}
	/* Waking up, too, is waiting for a processor, which nothing is owed for. */
	if (waits_read(&ran, &waited) < 0)
		return;
	g->rested_at_ns = now;
	g->rested_waited_ns = waited;
}

void gentle_look(struct gentle *g)
{
	uint64_t now, ran, waited;

	if (!g->wanted || g->starved)
		return;
	now = clock_now_ns();
	if (g->others)
		rest(g, now);
	now = clock_now_ns();
	if (now - g->looked_ns < GENTLE_LOOK_MS * NS_PER_MS || waits_read(&ran, &waited) < 0)
		return;
	look_for_others(g);
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
