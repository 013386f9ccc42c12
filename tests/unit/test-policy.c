/*
 * Unit tests of the policy of pre-copy: histories as people would draw them, and random ones for what must always hold.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "migration/policy.h"

#define ROUNDS 20
#define K 1000ULL

/* Beside max_rounds: the limits' members of that name. */
#define ASKED (1U << 16)
#define PROMISE (1U << 17)

/* A round: pages sent, milliseconds it took, pages dirty after it. */
#define R(sent, ms, dirty)                                                                                             \
	{                                                                                                              \
		(sent), (sent)*4096ULL, (ms)*NS_PER_MS, (dirty)                                                        \
	}

static const struct {
	const char *name;
	uint64_t downtime_ms;
	uint32_t max_rounds;
	uint64_t fixed_ms;
	struct policy_round rounds[ROUNDS];
	uint32_t n;
	enum policy_decision decision;
	uint64_t estimate_ms;
} histories[] = {
	{ "idle: nothing is left after the first round",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 0) },
	  1,
	  POLICY_FREEZE_SMALL,
	  20 },
	{ "64 pages are small", 100, 16, 20, { R(100 * K, 1000, 64) }, 1, POLICY_FREEZE_SMALL, 20 },
	{ "65 are not", 100, 16, 20, { R(100 * K, 1000, 65) }, 1, POLICY_AGAIN, 20 },
	{ "tiny: fewer pages than are small in all", 100, 16, 20, { R(10, 1, 10) }, 1, POLICY_FREEZE_SMALL, 21 },
	{ "small goes before every other reason", 0, 1, 500, { R(100, 1000, 64) }, 1, POLICY_FREEZE_SMALL, 1140 },
	{ "the first round never fits, however little it left",
	  10000,
	  16,
	  20,
	  { R(100 * K, 1000, 100) },
	  1,
	  POLICY_AGAIN,
	  21 },
	{ "converging: the second does",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 10 * K), R(10 * K, 100, 1 * K) },
	  2,
	  POLICY_FREEZE_FITS,
	  30 },
	{ "converging, not there yet",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 50 * K), R(50 * K, 500, 25 * K) },
	  2,
	  POLICY_AGAIN,
	  270 },
	{ "exactly the downtime fits",
	  120,
	  16,
	  20,
	  { R(100 * K, 1000, 20 * K), R(20 * K, 200, 10 * K) },
	  2,
	  POLICY_FREEZE_FITS,
	  120 },
	{ "one millisecond more does not",
	  119,
	  16,
	  20,
	  { R(100 * K, 1000, 20 * K), R(20 * K, 200, 10 * K) },
	  2,
	  POLICY_AGAIN,
	  120 },
	{ "the fixed part alone is too long",
	  10,
	  16,
	  20,
	  { R(100 * K, 1000, 1 * K), R(1 * K, 10, 100) },
	  2,
	  POLICY_AGAIN,
	  21 },
	{ "no downtime granted at all: small or the last round",
	  0,
	  3 | ASKED,
	  0,
	  { R(100 * K, 1000, 1 * K), R(1 * K, 10, 500), R(500, 5, 300) },
	  3,
	  POLICY_FREEZE_EXHAUSTED,
	  3 },
	{ "a slow last round does not spoil the estimate",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 10 * K), R(10 * K, 1000, 5 * K) },
	  2,
	  POLICY_FREEZE_FITS,
	  70 },
	{ "but two slow ones do",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 50 * K), R(50 * K, 5000, 10 * K), R(10 * K, 1000, 5 * K) },
	  3,
	  POLICY_AGAIN,
	  520 },
	{ "diverging: four rounds show it",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 50 * K), R(50 * K, 500, 60 * K), R(60 * K, 600, 70 * K), R(70 * K, 700, 80 * K) },
	  4,
	  POLICY_FREEZE_STALLED,
	  820 },
	{ "diverging beyond what can be borne",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 80 * K), R(80 * K, 800, 90 * K), R(90 * K, 900, 100 * K), R(100 * K, 1000, 101 * K) },
	  4,
	  POLICY_STOP_WRITES,
	  1030 },
	{ "diverging: three do not",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 50 * K), R(50 * K, 500, 60 * K), R(60 * K, 600, 70 * K) },
	  3,
	  POLICY_AGAIN,
	  720 },
	{ "stalled: a tenth less is no progress",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 50 * K), R(50 * K, 500, 40 * K), R(40 * K, 400, 38 * K), R(38 * K, 380, 36 * K) },
	  4,
	  POLICY_FREEZE_STALLED,
	  380 },
	{ "stalled with noise: one good round in between",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 50 * K), R(50 * K, 500, 52 * K), R(52 * K, 520, 40 * K), R(40 * K, 400, 41 * K) },
	  4,
	  POLICY_AGAIN,
	  430 },
	{ "noise, then stalled",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 50 * K), R(50 * K, 500, 52 * K), R(52 * K, 520, 40 * K), R(40 * K, 400, 41 * K),
	    R(41 * K, 410, 40 * K) },
	  5,
	  POLICY_FREEZE_STALLED,
	  420 },
	{ "stalled, but the pages alone would fit: more copying does not help, the freeze does",
	  100,
	  16,
	  60,
	  { R(100 * K, 1000, 6 * K), R(6 * K, 60, 6 * K), R(6 * K, 60, 6 * K), R(6 * K, 60, 6 * K) },
	  4,
	  POLICY_FREEZE_STALLED,
	  120 },
	{ "the same, when the downtime is a promise",
	  100,
	  16 | PROMISE,
	  60,
	  { R(100 * K, 1000, 6 * K), R(6 * K, 60, 6 * K), R(6 * K, 60, 6 * K), R(6 * K, 60, 6 * K) },
	  4,
	  POLICY_STOP_FIXED,
	  120 },
	{ "a promise that the fixed part breaks: small does not help",
	  100,
	  2 | PROMISE,
	  200,
	  { R(100 * K, 1000, 10), R(10, 10, 10) },
	  2,
	  POLICY_STOP_FIXED,
	  200 },
	{ "a promise is kept by going on while there are rounds left",
	  100,
	  16 | PROMISE,
	  200,
	  { R(100 * K, 1000, 10), R(10, 10, 10) },
	  2,
	  POLICY_AGAIN,
	  200 },
	{ "a promise goes before the number of rounds",
	  100,
	  1 | ASKED | PROMISE,
	  20,
	  { R(100 * K, 1000, 50 * K) },
	  1,
	  POLICY_STOP_WRITES,
	  520 },
	{ "nobody asked for that number of rounds",
	  100,
	  2,
	  20,
	  { R(100 * K, 1000, 50 * K), R(50 * K, 500, 40 * K) },
	  2,
	  POLICY_FREEZE_EXHAUSTED,
	  420 },
	{ "the last round may fit, and be the only one",
	  600,
	  1,
	  20,
	  { R(100 * K, 1000, 50 * K) },
	  1,
	  POLICY_FREEZE_FITS,
	  520 },
	{ "shrinking slowly but surely",
	  100,
	  16,
	  20,
	  { R(100 * K, 1000, 80 * K), R(80 * K, 800, 64 * K), R(64 * K, 640, 51 * K), R(51 * K, 510, 41 * K) },
	  4,
	  POLICY_AGAIN,
	  430 },
	{ "max rounds 1", 100, 1 | ASKED, 20, { R(100 * K, 1000, 50 * K) }, 1, POLICY_FREEZE_EXHAUSTED, 520 },
	{ "max rounds 0 is no invitation to go on for ever",
	  100,
	  0 | ASKED,
	  20,
	  { R(100 * K, 1000, 50 * K) },
	  1,
	  POLICY_FREEZE_EXHAUSTED,
	  520 },
	{ "max rounds 2: the second is the last",
	  100,
	  2 | ASKED,
	  20,
	  { R(100 * K, 1000, 50 * K), R(50 * K, 500, 40 * K) },
	  2,
	  POLICY_FREEZE_EXHAUSTED,
	  420 },
	{ "the last round may fit",
	  500,
	  2,
	  20,
	  { R(100 * K, 1000, 50 * K), R(50 * K, 500, 40 * K) },
	  2,
	  POLICY_FREEZE_FITS,
	  420 },
	{ "exhausted goes before stalled",
	  100,
	  4 | ASKED,
	  20,
	  { R(100 * K, 1000, 50 * K), R(50 * K, 500, 60 * K), R(60 * K, 600, 70 * K), R(70 * K, 700, 80 * K) },
	  4,
	  POLICY_FREEZE_EXHAUSTED,
	  820 },
	{ "huge: 16 TiB at 1 GB/s",
	  100,
	  16,
	  20,
	  { R(4ULL << 30, 17592186, 1ULL << 30), R(1ULL << 30, 4398046, 1 << 20) },
	  2,
	  POLICY_AGAIN,
	  4314 },
};

static void test_histories(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(histories); i++) {
		const struct policy_limits limits = { histories[i].downtime_ms * NS_PER_MS,
						      histories[i].max_rounds & 0xffff,
						      histories[i].fixed_ms * NS_PER_MS,
						      .rounds_asked = histories[i].max_rounds & ASKED,
						      .promise = histories[i].max_rounds & PROMISE };
		uint64_t estimate_ns = 0;
		enum policy_decision d = policy_decide(&limits, histories[i].rounds, histories[i].n, &estimate_ns);
		uint64_t estimate_ms = (estimate_ns + NS_PER_MS / 2) / NS_PER_MS;

		if (d != histories[i].decision)
			fail_msg("%s: \"%s\" instead of \"%s\"", histories[i].name, policy_explain(d),
				 policy_explain(histories[i].decision));
		/* Halves are rounded. */
		if (estimate_ms + 1 < histories[i].estimate_ms || estimate_ms > histories[i].estimate_ms + 1)
			fail_msg("%s: estimate %llu ms", histories[i].name, (unsigned long long)estimate_ms);
	}
}

static void test_explanations(void **state)
{
	(void)state;
	for (int a = 0; a < POLICY_DECISION_MAX; a++) {
		assert_string_not_equal(policy_explain((enum policy_decision)a), "unknown");
		for (int b = 0; b < a; b++)
			assert_string_not_equal(policy_explain((enum policy_decision)a),
						policy_explain((enum policy_decision)b));
	}
	assert_string_equal(policy_explain(POLICY_DECISION_MAX), "unknown");
}

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Anything from 0 to `bits` bits long, small numbers as likely as large ones. */
static uint64_t random_any(uint64_t *seed, unsigned int bits)
{
	unsigned int length = (unsigned int)(random_next(seed) % (bits + 1));

	return length ? random_next(seed) >> (64 - length) : 0;
}

/* What the estimate is by its definition, in a type that does not overflow. */
static long double estimate_by_definition(const struct policy_limits *l, const struct policy_round *r, uint32_t n)
{
	long double rate = 0;

	for (uint32_t i = n > 1 ? n - 2 : 0; i < n; i++)
		if (r[i].pages && r[i].ns)
			rate = fmaxl(rate, (long double)r[i].pages / (long double)r[i].ns);
	return (long double)l->fixed_ns + (rate > 0 ? (long double)r[n - 1].dirty_pages / rate : 0);
}

static void check_random(uint64_t *seed, unsigned int bits)
{
	struct policy_limits limits = { random_any(seed, bits),
					(uint32_t)random_any(seed, 5),
					random_any(seed, bits),
					.promise = random_next(seed) % 2,
					.rounds_asked = random_next(seed) % 2,
					.auto_converge = random_next(seed) % 4 == 0,
					.throttle = (uint32_t)(random_next(seed) % 100),
					.postcopy = random_next(seed) % 4 == 0 };
	struct policy_round rounds[ROUNDS];
	uint32_t n = 1 + (uint32_t)(random_next(seed) % ROUNDS);
	enum policy_decision d;
	uint64_t estimate = 0;
	long double expected;

	for (uint32_t i = 0; i < n; i++)
		rounds[i] = (struct policy_round){ random_any(seed, bits), random_any(seed, bits),
						   random_any(seed, bits), random_any(seed, bits) };
	d = policy_decide(&limits, rounds, n, &estimate);
	assert_in_range(d, POLICY_AGAIN, POLICY_DECISION_MAX - 1);
	assert_false(d == POLICY_AGAIN && n >= limits.max_rounds);
	if (!limits.promise)
		assert_int_equal(d == POLICY_FREEZE_SMALL, rounds[n - 1].dirty_pages <= POLICY_SMALL_PAGES);
	assert_false(d == POLICY_FREEZE_FITS &&
		     ((n == 1 && limits.max_rounds > 1) || estimate > limits.max_downtime_ns));
	assert_false(d == POLICY_FREEZE_STALLED && n < 4);
	/* What was asked for is kept: nothing longer is begun, unless pages may stay behind. */
	assert_false(limits.promise && policy_course(d) == POLICY_COURSE_FREEZE && estimate > limits.max_downtime_ns);
	assert_false(d == POLICY_THROTTLE && (!limits.auto_converge || limits.throttle >= POLICY_THROTTLE_MAX));
	assert_false(policy_course(d) == POLICY_COURSE_POSTCOPY && !limits.postcopy);
	expected = fminl(estimate_by_definition(&limits, rounds, n), (long double)UINT64_MAX);
	/* A double has 53 bits. */
	if (fabsl((long double)estimate - expected) > 2 + expected / (1ULL << 48))
		fail_msg("estimate %llu, not %.0Lf (%u rounds, %llu dirty)", (unsigned long long)estimate, expected, n,
			 (unsigned long long)rounds[n - 1].dirty_pages);
}

static void test_random_histories(void **state)
{
	uint64_t seed = 0x5eed;

	(void)state;
	for (int i = 0; i < 200000; i++)
		check_random(&seed, 48);
}

/* Numbers that no host has: a wrong clock or a counter gone wild must not turn into a short freeze. */
static void test_absurd_histories(void **state)
{
	uint64_t seed = 0xab5e;

	(void)state;
	for (int i = 0; i < 200000; i++)
		check_random(&seed, 64);
}

/* The part of a freeze that is not pages. */
static void test_fixed_part(void **state)
{
	static const struct {
		const char *name;
		struct policy_freeze freeze;
		uint64_t ms;
	} rows[] = {
		{ "one process, nothing measured", { .processes = 1 }, 50 },
		{ "none counts as one", { 0 }, 50 },
		{ "each further process", { .processes = 11 }, 190 },
		{ "a large memory is looked through", { .processes = 1, .scan_ns = 40 * NS_PER_MS }, 90 },
		{ "a slow link is crossed three times", { .processes = 1, .round_trip_ns = 20 * NS_PER_MS }, 110 },
		{ "idle: ran, never waited", { .processes = 1, .ran_ns = NS_PER_S }, 50 },
		{ "busy: waited as long as it ran",
		  { .processes = 1, .ran_ns = NS_PER_S, .waited_ns = NS_PER_S },
		  100 },
		{ "what was measured under the load is not multiplied by it",
		  { .processes = 1,
		    .ran_ns = 1,
		    .waited_ns = 1,
		    .scan_ns = 10 * NS_PER_MS,
		    .round_trip_ns = 10 * NS_PER_MS },
		  140 },
		{ "overloaded: bounded", { .processes = 1, .ran_ns = 1, .waited_ns = 1000 }, 400 },
		{ "nonsense stays a number",
		  { .processes = UINT32_MAX, .scan_ns = UINT64_MAX },
		  UINT64_MAX / NS_PER_MS },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (policy_fixed_ns(&rows[i].freeze) / NS_PER_MS != rows[i].ms)
			fail_msg("%s: %llu ms", rows[i].name,
				 (unsigned long long)(policy_fixed_ns(&rows[i].freeze) / NS_PER_MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_histories),	 cmocka_unit_test(test_fixed_part),
		cmocka_unit_test(test_explanations),	 cmocka_unit_test(test_random_histories),
		cmocka_unit_test(test_absurd_histories),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
