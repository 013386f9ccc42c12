/*
 * Unit tests of sets of pages, and of which pages count as written in every round.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migration/heat.h"

#define P PAGE_BYTES
#define MODEL_PAGES 100000

/* Pages of space 1 at page number `first`. */
static void add(struct page_runs *runs, uint64_t first, uint64_t pages)
{
	struct page_run run = {
		.space = 1, .address = first * P, .pages = pages, .pid = 7, .pid_address = first * P + 64 * P
	};

	assert_int_equal(page_runs_add(runs, &run), 0);
}

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void test_set_against_model(void **state)
{
	_cleanup_page_bits_ struct page_bits *b = NULL;
	uint8_t *model = calloc(1, MODEL_PAGES);
	uint64_t seed = 5;

	(void)state;
	assert_int_equal(page_bits_new(&b), 0);
	for (int i = 0; i < 300; i++) {
		uint64_t first = random_next(&seed) % (MODEL_PAGES - 500), n = 1 + random_next(&seed) % 300;

		assert_int_equal(page_bits_set(b, 3, first * P, n), 0);
		memset(model + first, 1, n);
	}
	for (uint64_t at = 0; at < MODEL_PAGES;) {
		bool inside = false, other = true;
		uint64_t n = page_bits_part(b, 3, at * P, MODEL_PAGES - at, &inside);

		assert_in_range(n, 1, MODEL_PAGES - at);
		for (uint64_t i = 0; i < n; i++)
			assert_int_equal(model[at + i], inside);
		if (at + n < MODEL_PAGES)
			assert_int_not_equal(model[at + n], inside);
		/* Another space has none of it. */
		assert_int_equal(page_bits_part(b, 4, at * P, n, &other), n);
		assert_false(other);
		at += n;
	}
	free(model);
}

static void test_high_addresses(void **state)
{
	_cleanup_page_bits_ struct page_bits *b = NULL;
	uint64_t last = SPACE_ADDRESS_MAX - P;
	bool inside = false;

	(void)state;
	assert_int_equal(page_bits_new(&b), 0);
	assert_int_equal(page_bits_set(b, SPACES_MAX, last, 1), 0);
	assert_int_equal(page_bits_part(b, SPACES_MAX, last, 1, &inside), 1);
	assert_true(inside);
	assert_int_equal(page_bits_part(b, SPACES_MAX, last - P, 2, &inside), 1);
	assert_false(inside);
}

static void test_select_keeps_places(void **state)
{
	_cleanup_(page_runs_free) struct page_runs runs = { 0 }, in = { 0 }, out = { 0 };
	_cleanup_page_bits_ struct page_bits *b = NULL;

	(void)state;
	add(&runs, 100, 10);
	assert_int_equal(page_bits_new(&b), 0);
	assert_int_equal(page_bits_set(b, 1, 103 * P, 2), 0);
	assert_int_equal(page_runs_select(&runs, b, true, &in), 0);
	assert_int_equal(page_runs_select(&runs, b, false, &out), 0);
	assert_int_equal(in.n_runs, 1);
	assert_int_equal(in.runs[0].address, 103 * P);
	assert_int_equal(in.runs[0].pid_address, 167 * P);
	assert_int_equal(in.pages, 2);
	assert_int_equal(out.n_runs, 2);
	assert_int_equal(out.pages, 8);
	assert_int_equal(out.runs[1].address, 105 * P);
	assert_int_equal(out.runs[1].pid, 7);
}

/* One look: pages [first, first + n) were written. How many of them are hot. */
static uint64_t look(struct heat *h, uint64_t first, uint64_t n)
{
	_cleanup_(page_runs_free) struct page_runs written = { 0 }, hot = { 0 }, others = { 0 };

	if (n)
		add(&written, first, n);
	assert_int_equal(heat_look(h, &written, &hot, &others), 0);
	assert_int_equal(hot.pages + others.pages, n);
	return hot.pages;
}

static void test_three_in_a_row(void **state)
{
	struct heat h = { 0 };

	(void)state;
	assert_int_equal(look(&h, 0, 1000), 0); /* everything is new */
	assert_int_equal(look(&h, 100, 50), 0);
	assert_int_equal(look(&h, 100, 50), 0);
	assert_int_equal(look(&h, 90, 20), 10);
	assert_int_equal(look(&h, 90, 20), 10); /* 100 to 109 */
	assert_int_equal(look(&h, 90, 20), 20); /* and 90 to 99 for the third time */
	assert_int_equal(look(&h, 0, 0), 0);
	assert_int_equal(look(&h, 90, 20), 0); /* one look without, and it begins anew */
	heat_free(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_against_model),
		cmocka_unit_test(test_high_addresses),
		cmocka_unit_test(test_select_keeps_places),
		cmocka_unit_test(test_three_in_a_row),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
