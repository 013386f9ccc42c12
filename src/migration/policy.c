/*
 * The policy of pre-copy: see policy.h.
 *
 * What the user granted is compared with the whole estimate; whether more copying could help, with the part of it that is pages.
 * The estimate is the dirty pages at the rate of the best of the last two rounds: a short last round measures the rate badly, and
 * the freeze has the link and the cores for itself. "No longer shrinks" wants two rounds in a row that each left more than nine
 * tenths of what the one before left: one slow round is noise.
 *
 * Pure; threads: any.
 */
#include "migration/policy.h"

#include <stdbool.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* CRIU dumps and restores a tree of one small process in some 50 ms when nobody else wants a processor, and each further process costs
 * it about 14 more (fitted to moves of 1, 9 and 31 processes with CRIU 4.2.1 on two busy processors: most ended within a factor of two). Where others do, it takes longer as everything takes longer: we know
 * by how much from our own waiting. That is an estimate of the source's machine only, and a moment's; hence the bound. */
#define FREEZE_BASE_NS (50 * NS_PER_MS)
#define FREEZE_PROCESS_NS (14 * NS_PER_MS)
#define FREEZE_ROUND_TRIPS 3
#define SLOWDOWN_MAX 8.0

uint64_t policy_fixed_ns(const struct policy_freeze *f)
{
	double slowdown = f->ran_ns ? 1 + (double)f->waited_ns / (double)f->ran_ns : 1;
	double work = (double)FREEZE_BASE_NS + (double)FREEZE_PROCESS_NS * (f->processes ? f->processes - 1 : 0);
	double ns = work * MIN(slowdown, SLOWDOWN_MAX) + (double)f->scan_ns +
		    (double)FREEZE_ROUND_TRIPS * (double)f->round_trip_ns;

	return ns < (double)UINT64_MAX ? (uint64_t)ns : UINT64_MAX;
}

/* Pages per second of a round; 0 when it says nothing. */
static double round_rate(const struct policy_round *r)
{
	return r->pages && r->ns ? (double)r->pages * (double)NS_PER_S / (double)r->ns : 0;
}

static uint64_t estimate(const struct policy_limits *limits, const struct policy_round *rounds, uint32_t n)
{
	double rate = round_rate(&rounds[n - 1]), ns;

	if (n > 1)
		rate = MAX(rate, round_rate(&rounds[n - 2]));
	if (rate <= 0)
		return limits->fixed_ns;
	ns = (double)limits->fixed_ns + (double)rounds[n - 1].dirty_pages / rate * (double)NS_PER_S;
	/* More than the type holds is for ever, not a small number. */
	return ns < (double)UINT64_MAX ? (uint64_t)ns : UINT64_MAX;
}

static bool shrinks(const struct policy_round *rounds, uint32_t i)
{
	return (double)rounds[i].dirty_pages < 0.9 * (double)rounds[i - 1].dirty_pages;
}

/* It was written nearly as fast as it was sent. Up to two thirds, rounds get shorter by themselves soon enough. */
static bool is_losing(const struct policy_round *r)
{
	return (double)r->dirty_pages > (double)r->pages * 2 / 3;
}

bool policy_timed_out(const struct policy_limits *limits)
{
	return limits->timeout_ns && limits->elapsed_ns >= limits->timeout_ns;
}

static enum policy_decision on_timeout(enum policy_resort resort)
{
	switch (resort) {
	case POLICY_RESORT_FREEZE:
		return POLICY_FREEZE_TIMEOUT;
	case POLICY_RESORT_POSTCOPY:
		return POLICY_POSTCOPY_TIMEOUT;
	case POLICY_RESORT_STOP:
		break;
	}
	return POLICY_STOP_TIMEOUT;
}

/* Whether the workload is to be held back (more). The first time two losing rounds in a row are wanted, as one may be noise. */
static bool wants_throttle(const struct policy_limits *limits, const struct policy_round *rounds, uint32_t n, bool over)
{
	if (!limits->auto_converge || limits->throttle >= POLICY_THROTTLE_MAX)
		return false;
	return over || (is_losing(&rounds[n - 1]) && (limits->throttle || (n > 1 && is_losing(&rounds[n - 2]))));
}

enum policy_decision policy_decide(const struct policy_limits *limits, const struct policy_round *rounds, uint32_t n,
				   uint64_t *ret_estimate_ns)
{
	const struct policy_round *last = &rounds[n - 1];
	bool exhausted = n >= limits->max_rounds;
	bool over = exhausted || (n > 3 && !shrinks(rounds, n - 1) && !shrinks(rounds, n - 2)), fits, pages_fit;

	*ret_estimate_ns = estimate(limits, rounds, n);
	fits = *ret_estimate_ns <= limits->max_downtime_ns;
	pages_fit = *ret_estimate_ns - limits->fixed_ns <= limits->max_downtime_ns;
	if (last->dirty_pages <= POLICY_SMALL_PAGES && (fits || !limits->promise))
		return POLICY_FREEZE_SMALL;
	/* The first round sends everything and takes long, so what it leaves is never the best that can be had. */
	if ((n > 1 || exhausted) && fits)
		return POLICY_FREEZE_FITS;
	if (policy_timed_out(limits))
		return on_timeout(limits->on_timeout);
	if (pages_fit && !over)
		return POLICY_AGAIN;
	if (pages_fit && limits->promise)
		return POLICY_STOP_FIXED;
	if (pages_fit)
		return exhausted ? POLICY_FREEZE_EXHAUSTED : POLICY_FREEZE_STALLED;
	if (wants_throttle(limits, rounds, n, over))
		return POLICY_THROTTLE;
	if (limits->postcopy && (over || (is_losing(last) && !limits->auto_converge)))
		return POLICY_POSTCOPY;
	if (!over)
		return POLICY_AGAIN;
	/* Nobody asked for less: a short wait beats no move. */
	if (!limits->promise && *ret_estimate_ns - limits->fixed_ns <= POLICY_BEARABLE_MS * NS_PER_MS)
		return exhausted ? POLICY_FREEZE_EXHAUSTED : POLICY_FREEZE_STALLED;
	return exhausted && limits->rounds_asked && !limits->promise ? POLICY_FREEZE_EXHAUSTED : POLICY_STOP_WRITES;
}

enum policy_course policy_course(enum policy_decision decision)
{
	switch (decision) {
	case POLICY_AGAIN:
	case POLICY_THROTTLE:
		return POLICY_COURSE_ROUND;
	case POLICY_FREEZE_SMALL:
	case POLICY_FREEZE_FITS:
	case POLICY_FREEZE_STALLED:
	case POLICY_FREEZE_EXHAUSTED:
	case POLICY_FREEZE_TIMEOUT:
		return POLICY_COURSE_FREEZE;
	case POLICY_POSTCOPY:
	case POLICY_POSTCOPY_TIMEOUT:
		return POLICY_COURSE_POSTCOPY;
	case POLICY_STOP_WRITES:
	case POLICY_STOP_FIXED:
	case POLICY_STOP_TIMEOUT:
	case POLICY_DECISION_MAX:
		break;
	}
	return POLICY_COURSE_STOP;
}

uint32_t policy_throttle_next(uint32_t percent)
{
	return percent ? MIN(percent + POLICY_THROTTLE_STEP, (uint32_t)POLICY_THROTTLE_MAX) : POLICY_THROTTLE_FIRST;
}

const char *policy_explain(enum policy_decision decision)
{
	switch (decision) {
	case POLICY_AGAIN:
		return "another round";
	case POLICY_THROTTLE:
		return "another round, with the workload held back";
	case POLICY_FREEZE_SMALL:
		return "hardly anything is left";
	case POLICY_FREEZE_FITS:
		return "what is left fits into the downtime";
	case POLICY_FREEZE_STALLED:
		return "what is left no longer shrinks";
	case POLICY_FREEZE_EXHAUSTED:
		return "that was the last round allowed";
	case POLICY_FREEZE_TIMEOUT:
		return "the time for copying is over, so it is frozen now";
	case POLICY_POSTCOPY:
		return "it is written faster than it can be sent, so what is left follows later";
	case POLICY_POSTCOPY_TIMEOUT:
		return "the time for copying is over, so what is left follows later";
	case POLICY_STOP_WRITES:
		return "it is written faster than it can be sent";
	case POLICY_STOP_FIXED:
		return "the freeze would take longer than granted, however little is left";
	case POLICY_STOP_TIMEOUT:
		return "the time for copying is over";
	case POLICY_DECISION_MAX:
		break;
	}
	return "unknown";
}
