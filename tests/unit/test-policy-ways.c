/*
 * Unit tests of what the options make of a workload that writes too fast: held back, left behind, stopped, out of time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "migration/policy.h"

#define ROUNDS 8
#define K 1000ULL
#define R(sent, ms, dirty)                                                                                             \
	{                                                                                                              \
		(sent), (sent)*4096ULL, (ms)*NS_PER_MS, (dirty)                                                        \
	}

/* L loses, more than a second is left; W wins: three tenths are. */
#define L R(100 * K, 1000, 120 * K)
#define W R(100 * K, 1000, 30 * K)

static const struct {
	const char *name;
	struct policy_limits limits; /* downtime and fixed part are filled in: 100 and 20 ms; max_rounds 0: 16 */
	struct policy_round rounds[ROUNDS];
	uint32_t n;
	enum policy_decision decision;
} ways[] = {
	{ "auto-converge: one losing round is noise", { .auto_converge = true }, { L }, 1, POLICY_AGAIN },
	{ "auto-converge: two are not", { .auto_converge = true }, { L, L }, 2, POLICY_THROTTLE },
	{ "auto-converge: they must follow each other", { .auto_converge = true }, { L, W }, 2, POLICY_AGAIN },
	{ "auto-converge: a winner is left alone", { .auto_converge = true }, { W, W }, 2, POLICY_AGAIN },
	{ "held back: one more losing round is enough",
	  { .auto_converge = true, .throttle = 20 },
	  { L, W, L },
	  3,
	  POLICY_THROTTLE },
	{ "held back: it wins now", { .auto_converge = true, .throttle = 60 }, { L, L, W }, 3, POLICY_AGAIN },
	{ "held back: the rounds are used up, so a step more",
	  { .max_rounds = 3, .auto_converge = true, .throttle = 60 },
	  { L, L, W },
	  3,
	  POLICY_THROTTLE },
	{ "held back as far as it goes: stop",
	  { .max_rounds = 3, .auto_converge = true, .throttle = 99 },
	  { L, L, L },
	  3,
	  POLICY_STOP_WRITES },
	{ "held back as far as it goes: or postcopy",
	  { .max_rounds = 3, .auto_converge = true, .throttle = 99, .postcopy = true },
	  { L, L, L },
	  3,
	  POLICY_POSTCOPY },
	{ "held back as far as it goes, rounds left",
	  { .auto_converge = true, .throttle = 99, .postcopy = true },
	  { L, L },
	  2,
	  POLICY_AGAIN },
	{ "held back goes before postcopy", { .auto_converge = true, .postcopy = true }, { L, L }, 2, POLICY_THROTTLE },
	{ "postcopy: at once", { .postcopy = true }, { L }, 1, POLICY_POSTCOPY },
	{ "postcopy: not where pre-copy wins", { .postcopy = true }, { W }, 1, POLICY_AGAIN },
	{ "postcopy: where it stalls", { .postcopy = true }, { W, W, W, W }, 4, POLICY_POSTCOPY },
	{ "postcopy: not when it fits", { .postcopy = true }, { L, R(100 * K, 1000, 5 * K) }, 2, POLICY_FREEZE_FITS },
	{ "postcopy: not when hardly anything is left",
	  { .postcopy = true },
	  { R(10, 1, 10) },
	  1,
	  POLICY_FREEZE_SMALL },
	{ "neither: goes on", { 0 }, { L, L, L }, 3, POLICY_AGAIN },
	{ "neither: four rounds show it", { 0 }, { L, L, L, L }, 4, POLICY_STOP_WRITES },
	{ "the time is not over", { .timeout_ns = 10, .elapsed_ns = 9 }, { W }, 1, POLICY_AGAIN },
	{ "the time is over: stop", { .timeout_ns = 10, .elapsed_ns = 10 }, { W }, 1, POLICY_STOP_TIMEOUT },
	{ "the time is over: freeze",
	  { .timeout_ns = 10, .elapsed_ns = 10, .on_timeout = POLICY_RESORT_FREEZE, .promise = true },
	  { W },
	  1,
	  POLICY_FREEZE_TIMEOUT },
	{ "the time is over: postcopy, without that option",
	  { .timeout_ns = 10, .elapsed_ns = 10, .on_timeout = POLICY_RESORT_POSTCOPY },
	  { W },
	  1,
	  POLICY_POSTCOPY_TIMEOUT },
	{ "the time is over, but it fits",
	  { .timeout_ns = 10, .elapsed_ns = 10 },
	  { W, R(100 * K, 1000, 5 * K) },
	  2,
	  POLICY_FREEZE_FITS },
	{ "the time goes before holding back",
	  { .timeout_ns = 10, .elapsed_ns = 10, .auto_converge = true },
	  { L, L },
	  2,
	  POLICY_STOP_TIMEOUT },
};

static void test_ways(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct policy_limits limits = ways[i].limits;
		uint64_t estimate_ns;
		enum policy_decision d;

		limits.max_downtime_ns = 100 * NS_PER_MS;
		limits.fixed_ns = 20 * NS_PER_MS;
		if (!limits.max_rounds)
			limits.max_rounds = 16;
		d = policy_decide(&limits, ways[i].rounds, ways[i].n, &estimate_ns);
		if (d != ways[i].decision)
			fail_msg("%s: \"%s\" instead of \"%s\"", ways[i].name, policy_explain(d),
				 policy_explain(ways[i].decision));
	}
}

static void test_steps(void **state)
{
	static const uint32_t steps[] = { 20, 30, 40, 50, 60, 70, 80, 90, 99, 99 };
	uint32_t percent = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		percent = policy_throttle_next(percent);
		assert_int_equal(percent, steps[i]);
	}
}

static void test_courses(void **state)
{
	(void)state;
	assert_int_equal(policy_course(POLICY_THROTTLE), POLICY_COURSE_ROUND);
	assert_int_equal(policy_course(POLICY_FREEZE_TIMEOUT), POLICY_COURSE_FREEZE);
	assert_int_equal(policy_course(POLICY_POSTCOPY_TIMEOUT), POLICY_COURSE_POSTCOPY);
	assert_int_equal(policy_course(POLICY_STOP_FIXED), POLICY_COURSE_STOP);
	assert_int_equal(policy_course(POLICY_DECISION_MAX), POLICY_COURSE_STOP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ways),
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_courses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
