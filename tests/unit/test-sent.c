/*
 * What of a round is sent again: by hand for the edges, and random rounds against a page by page reckoning.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migration/sent.h"

#define CHANNELS 3
#define SPACES 4
#define PLACES 512

static uint64_t seed_now;

static uint64_t pick(uint64_t below)
{
	seed_now = seed_now * 6364136223846793005ULL + 1442695040888963407ULL;
	return (seed_now >> 33) % below;
}

static void add(struct page_runs *runs, uint32_t space, uint64_t page, uint64_t pages)
{
	struct page_run run = { .space = space,
				.address = page << PAGE_SHIFT,
				.pages = pages,
				.pid = (pid_t)(100 + space),
				.pid_address = (page + 7) << PAGE_SHIFT };

	assert_int_equal(page_runs_add(runs, &run), 0);
}

static void assert_run(const struct page_runs *runs, size_t i, uint32_t space, uint64_t page, uint64_t pages)
{
	assert_true(i < runs->n_runs);
	assert_int_equal(runs->runs[i].space, space);
	assert_int_equal(runs->runs[i].address >> PAGE_SHIFT, page);
	assert_int_equal(runs->runs[i].pages, pages);
	assert_int_equal(runs->runs[i].pid, 100 + space);
	assert_int_equal(runs->runs[i].pid_address >> PAGE_SHIFT, page + 7);
}

static void test_edges(void **state)
{
	struct page_runs runs = { 0 }, first = { 0 }, second = { 0 }, rest = { 0 };
	struct sent channels[2] = { { &first, 0 }, { &second, 0 } };

	(void)state;
	add(&runs, 1, 10, 100);
	add(&runs, 2, 10, 50);
	add(&first, 1, 10, 40);
	add(&first, 2, 10, 50);
	add(&second, 1, 50, 60);
	/* Nothing came. */
	assert_int_equal(sent_remaining(&runs, channels, 2, &rest, NULL), 0);
	assert_int_equal(rest.pages, 150);
	assert_run(&rest, 0, 1, 10, 100);
	page_runs_free(&rest);
	/* A part of each; the same addresses in another space are not meant. */
	channels[0].arrived = 39;
	channels[1].arrived = 1;
	assert_int_equal(sent_remaining(&runs, channels, 2, &rest, NULL), 0);
	assert_int_equal(rest.n_runs, 3);
	assert_run(&rest, 0, 1, 49, 1);
	assert_run(&rest, 1, 1, 51, 59);
	assert_run(&rest, 2, 2, 10, 50);
	page_runs_free(&rest);
	/* Into the second run of the log, and all of the other. */
	channels[0].arrived = 41;
	channels[1].arrived = UINT64_MAX;
	assert_int_equal(sent_remaining(&runs, channels, 2, &rest, NULL), 0);
	assert_int_equal(rest.n_runs, 1);
	assert_run(&rest, 0, 2, 11, 49);
	page_runs_free(&rest);
	/* More than was ever sent: a peer may say so. */
	channels[0].arrived = 1000;
	assert_int_equal(sent_remaining(&runs, channels, 2, &rest, NULL), 0);
	assert_int_equal(rest.pages, 0);
	page_runs_free(&rest);
	page_runs_free(&runs);
	page_runs_free(&first);
	page_runs_free(&second);
}

/* A random round: each page is in it or not, the pieces go to random channels, a random part of each comes. */
static void random_round(uint64_t seed)
{
	static bool wanted[SPACES][PLACES], came[SPACES][PLACES];
	struct page_runs runs = { 0 }, logs[CHANNELS] = { 0 }, rest = { 0 };
	struct sent channels[CHANNELS];
	uint64_t expected = 0;

	seed_now = seed;
	memset(wanted, 0, sizeof(wanted));
	memset(came, 0, sizeof(came));
	for (uint32_t space = 0; space < SPACES; space++)
		for (uint64_t page = 0; page < PLACES;) {
			uint64_t n = pick(20) + 1;

			n = MIN(n, PLACES - page);
			if (pick(3)) {
				add(&runs, space + 1, page, n);
				add(&logs[pick(CHANNELS)], space + 1, page, n);
				memset(&wanted[space][page], 1, n);
			}
			page += n;
		}
	for (size_t i = 0; i < CHANNELS; i++) {
		uint64_t left = pick(logs[i].pages + 1);

		channels[i] = (struct sent){ &logs[i], left };
		for (size_t j = 0; j < logs[i].n_runs && left; j++) {
			uint64_t n = MIN(left, logs[i].runs[j].pages);

			memset(&came[logs[i].runs[j].space - 1][logs[i].runs[j].address >> PAGE_SHIFT], 1, n);
			left -= n;
		}
	}
	assert_int_equal(sent_remaining(&runs, channels, CHANNELS, &rest, NULL), 0);
	for (size_t i = 0; i < rest.n_runs; i++)
		for (uint64_t j = 0; j < rest.runs[i].pages; j++) {
			uint64_t page = (rest.runs[i].address >> PAGE_SHIFT) + j;

			assert_true(wanted[rest.runs[i].space - 1][page]);
			assert_false(came[rest.runs[i].space - 1][page]);
			came[rest.runs[i].space - 1][page] = true; /* once */
		}
	for (uint32_t space = 0; space < SPACES; space++)
		for (uint64_t page = 0; page < PLACES; page++)
			expected += wanted[space][page] && !came[space][page];
	assert_int_equal(expected, 0);
	for (size_t i = 0; i < CHANNELS; i++)
		page_runs_free(&logs[i]);
	page_runs_free(&runs);
	page_runs_free(&rest);
}

static void test_random(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 500; seed++)
		random_round(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests_name("sent", tests, NULL, NULL);
}
