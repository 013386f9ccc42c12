/*
 * What changed in a page, and the versions it is taken against: round trips of random changes, hostile deltas, a cache that is full.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "memory/last-sent.h"

static unsigned int seed = 5;

static void fill(uint8_t *page)
{
	for (size_t i = 0; i < PAGE_BYTES; i++)
		page[i] = (uint8_t)rand_r(&seed);
}

/* Changes bytes in n places. */
static void change(uint8_t *page, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		size_t at = (size_t)rand_r(&seed) % PAGE_BYTES, length = 1 + (size_t)rand_r(&seed) % 16;

		for (size_t k = at; k < at + length && k < PAGE_BYTES; k++)
			page[k] = (uint8_t)rand_r(&seed);
	}
}

static void test_round_trip(void **state)
{
	uint8_t before[PAGE_BYTES], now[PAGE_BYTES], delta[DELTA_PAGE_MAX];
	int fits = 0;

	(void)state;
	for (unsigned int i = 0; i < 4000; i++) {
		int n;

		fill(before);
		memcpy(now, before, PAGE_BYTES);
		change(now, i % 200);
		n = delta_encode(before, now, delta);
		assert_true(n <= DELTA_PAGE_MAX);
		if (n < 0) {
			assert_true(i % 200 > 50);
			continue;
		}
		fits++;
		assert_int_equal(delta_apply(before, delta, (size_t)n), 0);
		assert_memory_equal(before, now, PAGE_BYTES);
	}
	assert_true(fits > 1000);
	/* Nothing changed, the first and the last byte, everything. */
	assert_int_equal(delta_encode(now, now, delta), 0);
	memcpy(before, now, PAGE_BYTES);
	now[0] ^= 1;
	now[PAGE_BYTES - 1] ^= 1;
	assert_int_equal(delta_encode(before, now, delta), 2 * (4 + 8));
	assert_int_equal(delta_apply(before, delta, 24), 0);
	assert_memory_equal(before, now, PAGE_BYTES);
	fill(now);
	assert_int_equal(delta_encode(before, now, delta), -1);
}

static void test_hostile(void **state)
{
	static const struct {
		uint16_t words[8];
		size_t bytes;
		int result;
	} cases[] = {
		{ { 0 }, 0, 0 },
		{ { 511, 1, 1, 2, 3, 4 }, 12, 0 },
		{ { 0, 0 }, 4, -EBADMSG },			/* nothing follows */
		{ { 0, 1, 1, 2, 3 }, 10, -EBADMSG },		/* cut short */
		{ { 0, 1 }, 3, -EBADMSG },			/* in the counts */
		{ { 512, 1, 1, 2, 3, 4 }, 12, -EBADMSG },	/* behind the page */
		{ { 511, 2, 1, 2, 3, 4 }, 12, -EBADMSG },	/* partly */
		{ { 65535, 65535 }, 4, -EBADMSG },		/* overflow */
		{ { 0, 1, 1, 2, 3, 4, 511, 1 }, 16, -EBADMSG }, /* the second one */
	};
	uint8_t page[PAGE_BYTES] = { 0 }, delta[DELTA_PAGE_MAX] = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(delta_apply(page, (const uint8_t *)cases[i].words, cases[i].bytes), cases[i].result);
	for (int i = 0; i < 100000; i++) {
		uint8_t *exact;
		size_t n = (size_t)rand_r(&seed) % 64;

		for (size_t k = 0; k < n; k++)
			delta[k] = rand_r(&seed) % 3 ? (uint8_t)(rand_r(&seed) % 4) : (uint8_t)rand_r(&seed);
		exact = malloc(n + !n);
		memcpy(exact, delta, n);
		delta_apply(page, exact, n); /* any answer, within bounds */
		free(exact);
	}
}

/* Versions of an earlier round only; what is forgotten, or found no room, has none. */
static void test_last_sent(void **state)
{
	uint8_t page[PAGE_BYTES], delta[DELTA_PAGE_MAX] = { 0 };
	uint64_t looked, found;
	struct last_sent *l;
	int held = 0;

	(void)state;
	assert_int_equal(last_sent_new(1, &l), 0);
	fill(page);
	assert_int_equal(last_sent_exchange(l, 1, 0x1000, 2, page, delta), -1);
	page[8] ^= 1;
	assert_int_equal(last_sent_exchange(l, 2, 0x1000, 3, page, delta), -1); /* another space */
	assert_int_equal(last_sent_exchange(l, 1, 0x1000, 3, page, delta), 12);
	assert_int_equal(last_sent_exchange(l, 1, 0x1000, 4, page, delta), 0);
	assert_int_equal(last_sent_exchange(l, 1, 0x1000, 4, page, delta),
			 -1); /* of the same round: not acknowledged */
	last_sent_forget(l, 1, 0x1000);
	assert_int_equal(last_sent_exchange(l, 1, 0x1000, 5, page, delta), -1);
	last_sent_forget(l, 7, 0x1000); /* never there */
	last_sent_count(l, &looked, &found);
	assert_int_equal(looked, 6);
	assert_int_equal(found, 2);
	/* Four times what fits: of one round the first ones stay, and are there in the next. */
	for (uint64_t i = 0; i < 4096; i++)
		last_sent_exchange(l, 1, i << PAGE_SHIFT, 6, page, delta);
	for (uint64_t i = 0; i < 4096; i++)
		held += last_sent_exchange(l, 1, i << PAGE_SHIFT, 7, page, delta) == 0;
	assert_in_range(held, 256, 1024);
	last_sent_free(l);
	last_sent_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_last_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
