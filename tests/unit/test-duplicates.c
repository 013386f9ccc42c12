/*
 * The index of what was sent: what is found is what the target has, whatever was overwritten since; and when it pays to look.
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
#include "memory/duplicates.h"

#define PLACES 512
#define CONTENTS 200

static unsigned int seed = 9;

static void fill(uint8_t *page, uint32_t content)
{
	for (size_t i = 0; i < PAGE_BYTES; i += 4)
		memcpy(page + i, &content, 4);
}

/* Pages go in rounds with contents that repeat; a model of the target says what each reference would bring. */
static void test_exact(void **state)
{
	uint32_t has[PLACES] = { 0 }; /* the target: content, 0: never sent */
	uint8_t page[PAGE_BYTES];
	struct duplicates *d;
	uint64_t found = 0;

	(void)state;
	assert_int_equal(duplicates_new(&d), 0);
	for (uint32_t round = 1; round < 200; round++) {
		struct page_runs runs = { 0 };
		bool last = round % 13 == 0, listed[PLACES] = { false };
		uint64_t position = 0;

		for (uint32_t i = 0; i < PLACES; i++) {
			struct page_run run = { .space = 1 + i / 256,
						.address = (uint64_t)i << PAGE_SHIFT,
						.pages = 1 };

			listed[i] = (unsigned int)rand_r(&seed) % 100 < (round % 5 ? 30 : 90);
			if (listed[i])
				assert_int_equal(page_runs_add(&runs, &run), 0);
		}
		assert_int_equal(duplicates_begin(d, &runs, last), 0);
		for (uint32_t i = 0; i < PLACES; i++) {
			uint32_t content = 1 + (uint32_t)rand_r(&seed) % CONTENTS;
			struct page_copy self = { (uint64_t)i << PAGE_SHIFT, ++position, 1 + i / 256, 0 }, copy;

			if (!listed[i])
				continue;
			fill(page, content);
			if (duplicates_look(d, page, &self, &copy)) {
				uint64_t of = copy.address >> PAGE_SHIFT;

				found++;
				assert_int_equal(copy.space, 1 + of / 256);
				assert_int_equal(has[of], content);
				/* Of this round with its place in it, of an earlier one without. */
				assert_true(listed[of] ? copy.position == of + 1 : !copy.position);
				assert_true(!last || copy.position);
			}
			has[i] = content;
		}
		page_runs_free(&runs);
		if (round % 17 == 0)
			duplicates_clear(d);
	}
	assert_true(found > 10000);
	duplicates_free(d);
	duplicates_free(NULL);
}

/* Far more contents than there is room for: nothing wrong, and some are found. */
static void test_bounded(void **state)
{
	struct page_run run = { .space = 1, .pages = 1 };
	struct page_runs runs = { 0 };
	uint8_t page[PAGE_BYTES];
	struct duplicates *d;
	uint64_t found = 0;

	(void)state;
	assert_int_equal(page_runs_add(&runs, &run), 0);
	assert_int_equal(duplicates_new(&d), 0);
	assert_int_equal(duplicates_begin(d, &runs, false), 0);
	for (uint32_t i = 0; i < 40000; i++) {
		uint32_t content = i % 20000;
		struct page_copy self = { (uint64_t)i << PAGE_SHIFT, i + 1, 1, 0 }, copy;

		fill(page, content + 1);
		if (!duplicates_look(d, page, &self, &copy))
			continue;
		assert_int_equal((copy.address >> PAGE_SHIFT) % 20000, content);
		found++;
	}
	assert_in_range(found, 1, 20000);
	page_runs_free(&runs);
	duplicates_free(d);
}

/* One in 16 or so, and the same ones whenever they come. */
static void test_sampled(void **state)
{
	uint8_t page[PAGE_BYTES];
	uint32_t sampled = 0;

	(void)state;
	for (uint32_t i = 1; i <= 16000; i++) {
		bool is;

		fill(page, i);
		is = duplicates_sampled(page);
		sampled += is;
		assert_int_equal(duplicates_sampled(page), is);
	}
	assert_in_range(sampled, 500, 1500);
}

static void test_pays(void **state)
{
	static const struct {
		struct duplicates_search search;
		uint64_t rate;
		bool pays;
	} cases[] = {
		/* not measured yet: 1 Gbit/s, and fast */
		{ { 0, 0 }, 0, true },
		{ { 0, 0 }, 1500000000, false },
		/* nothing is found: a narrow link can afford it */
		{ { 1000, 0 }, 62500000, true },
		{ { 1000, 0 }, 1500000000, false },
		/* 2.7 us to send a page, 0.8 to look: a third */
		{ { 1000, 310 }, 1500000000, true },
		{ { 1000, 280 }, 1500000000, false },
	};
	struct duplicates_search s = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(duplicates_search_pays(&cases[i].search, cases[i].rate), cases[i].pays);
	/* It stops when nothing is found any more. */
	duplicates_search_add(&s, 16000, 16000);
	assert_true(duplicates_search_pays(&s, 1500000000));
	for (int i = 0; i < 100; i++)
		duplicates_search_add(&s, 1000, 0);
	assert_false(duplicates_search_pays(&s, 1500000000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_sampled),
		cmocka_unit_test(test_pays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
