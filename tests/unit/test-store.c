/*
 * Unit tests of the store: contents against a model, present maps, holes, limits, bad input, several threads.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "memory/store-internal.h"
#include "memory/store.h"

#define HIGH_ADDRESS 0x7ffffffde000ULL
#define MODEL_PAGES 700
/* The model lies across the border of two windows. */
#define MODEL_START ((1ULL << 46) - 300 * PAGE_BYTES)

static void fill(uint8_t *page, uint64_t tag)
{
	for (size_t i = 0; i < PAGE_BYTES / 8; i++)
		((uint64_t *)(void *)page)[i] = tag * 0x9e3779b97f4a7c15ULL + i * (tag | 1);
}

static uint64_t disk_bytes(struct store *s, uint32_t space)
{
	struct stat st;

	assert_int_equal(fstat(store_fd(s, space), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

enum put { PUT_RAW, PUT_LZ4, PUT_WINDOW, PUT_ZERO, PUT_MAX };

static void put_pages(struct store *s, struct codec *c, enum put how, uint64_t address, uint32_t pages, uint8_t *data)
{
	struct page_segment segments[CODEC_PIECE_PAGES];
	struct error err = { 0 };
	int n;

	switch (how) {
	case PUT_RAW:
		assert_int_equal(store_put(s, 1, address, pages, ENCODING_RAW, data, pages * PAGE_BYTES, &err), 0);
		return;
	case PUT_ZERO:
		assert_int_equal(store_put_zero(s, 1, address, pages, &err), 0);
		return;
	case PUT_WINDOW:
		while (pages) {
			uint32_t got;
			uint8_t *at;

			assert_int_equal(store_window(s, 1, address, pages, &at, &got, &err), 0);
			assert_true(got >= 1 && got <= pages);
			memcpy(at, data, got * PAGE_BYTES);
			assert_int_equal(store_commit(s, 1, address, got, &err), 0);
			address += got * PAGE_BYTES;
			data += got * PAGE_BYTES;
			pages -= got;
		}
		return;
	case PUT_LZ4:
		n = codec_encode(c, data, pages, segments);
		for (int i = 0; i < n; i++)
			assert_int_equal(store_put(s, 1, address + segments[i].first * PAGE_BYTES, segments[i].pages,
						   segments[i].encoding, segments[i].payload, segments[i].payload_bytes,
						   &err),
					 0);
		return;
	case PUT_MAX:
		return;
	}
}

/* Whatever way pages come in and are forgotten, what is held is what a plain array says. */
static void test_against_model(void **state)
{
	static uint64_t model[MODEL_PAGES]; /* 0: never received; 1: zeros; else the tag */
	static uint8_t data[64 * PAGE_BYTES], page[PAGE_BYTES], expected[PAGE_BYTES];
	unsigned int seed = 9;
	struct store *s;
	struct codec *c;
	uint64_t tag = 2;

	(void)state;
	assert_int_equal(store_new(0, &s, NULL), 0);
	assert_int_equal(codec_new(ENCODINGS_PACKED, &c, NULL), 0);
	codec_set_link_rate(c, 1000);
	for (int step = 0; step < 400; step++) {
		uint32_t first = (uint32_t)rand_r(&seed) % MODEL_PAGES, pages = 1 + (uint32_t)rand_r(&seed) % 64;
		enum put how = (enum put)(rand_r(&seed) % PUT_MAX);
		uint64_t held = 0;

		pages = MIN(pages, MODEL_PAGES - first);
		for (uint32_t i = 0; i < pages; i++) {
			model[first + i] = how == PUT_ZERO ? 1 : ++tag;
			fill(data + i * PAGE_BYTES, tag);
		}
		put_pages(s, c, how, MODEL_START + first * PAGE_BYTES, pages, data);

		if (step % 50 == 49) {
			_cleanup_range_set_ struct range_set present = { 0 };

			for (uint64_t i = 0; i < MODEL_PAGES; i++) {
				if (model[i] && rand_r(&seed) % 3)
					range_set_add(&present, MODEL_START + i * PAGE_BYTES,
						      MODEL_START + (i + 1) * PAGE_BYTES);
				else
					model[i] = 0;
			}
			assert_int_equal(store_apply_present(s, 1, &present, NULL), 0);
		}
		for (uint64_t i = 0; i < MODEL_PAGES; i++)
			held += model[i] > 1;
		assert_int_equal(store_bytes(s), held * PAGE_BYTES);
		assert_int_equal(disk_bytes(s, 1), held * PAGE_BYTES);
		if (step % 10)
			continue;
		for (uint64_t i = 0; i < MODEL_PAGES; i++) {
			int r = store_get(s, 1, MODEL_START + i * PAGE_BYTES, 1, page, NULL);

			assert_int_equal(r, model[i] ? 0 : -ENOENT);
			memset(expected, 0, PAGE_BYTES);
			if (model[i] > 1)
				fill(expected, model[i]);
			if (model[i])
				assert_memory_equal(page, expected, PAGE_BYTES);
		}
	}
	codec_free(c);
	store_free(s);
}

/* A page that exists and never came is found, named, and nothing is lost over it. */
static void test_missing_page(void **state)
{
	static uint8_t page[PAGE_BYTES];
	_cleanup_range_set_ struct range_set present = { 0 };
	struct error err = { 0 };
	struct store *s;

	(void)state;
	fill(page, 3);
	assert_int_equal(store_new(0, &s, NULL), 0);
	for (uint64_t i = 0; i < 200; i++)
		if (i != 130)
			assert_int_equal(
				store_put(s, 4, HIGH_ADDRESS - i * PAGE_BYTES, 1, ENCODING_RAW, page, PAGE_BYTES, NULL),
				0);
	assert_int_equal(store_put_zero(s, 4, 0x1000, 5, NULL), 0);
	range_set_add(&present, 0x1000, 0x6000);
	range_set_add(&present, HIGH_ADDRESS - 150 * PAGE_BYTES, HIGH_ADDRESS + PAGE_BYTES);
	assert_int_equal(store_apply_present(s, 4, &present, &err), -ENODATA);
	assert_non_null(strstr(err.text, "0x7ffffff5c000"));
	/* Nothing was forgotten yet, not even what lies outside. */
	assert_int_equal(store_get(s, 4, HIGH_ADDRESS - 199 * PAGE_BYTES, 1, page, NULL), 0);
	assert_int_equal(store_put(s, 4, HIGH_ADDRESS - 130 * PAGE_BYTES, 1, ENCODING_RAW, page, PAGE_BYTES, NULL), 0);
	assert_int_equal(store_apply_present(s, 4, &present, &err), 0);
	assert_int_equal(store_get(s, 4, HIGH_ADDRESS - 199 * PAGE_BYTES, 1, page, NULL), -ENOENT);
	/* A range in a window of which nothing was received; a space of which nothing was. */
	range_set_add(&present, 1ULL << 40, (1ULL << 40) + PAGE_BYTES);
	assert_int_equal(store_apply_present(s, 4, &present, &err), -ENODATA);
	assert_non_null(strstr(err.text, "0x10000000000"));
	assert_int_equal(store_apply_present(s, 5, &present, &err), -ENODATA);
	range_set_free(&present);
	assert_int_equal(store_apply_present(s, 5, &present, &err), 0);
	assert_int_equal(store_fd(s, 5), -1);
	assert_int_equal(store_apply_present(s, 4, &present, &err), 0);
	assert_int_equal(store_bytes(s), 0);
	store_free(s);
}

/* Zeros cost nothing, but to know of them does: one frame may name 16 TiB. */
static void test_scattered_zeros(void **state)
{
	struct error err = { 0 };
	struct store *s;
	uint32_t fits = 0;

	(void)state;
	assert_int_equal(store_new(8ULL << 20, &s, NULL), 0);
	while (fits < 1024 && !store_put_zero(s, 1 + fits, (uint64_t)fits << 30, 1, &err))
		fits++;
	assert_int_equal(err.number, ENOSPC);
	assert_in_range(fits, 100, 128); /* 8 MiB hold 128 maps of 64 KiB */
	assert_int_equal(store_put_zero(s, 1, 0, UINT32_MAX, &err), -ENOSPC);
	assert_int_equal(store_bytes(s), 0);
	store_free(s);
}

static void test_limit(void **state)
{
	static uint8_t data[8 * PAGE_BYTES];
	struct error err = { 0 };
	uint8_t *at;
	uint32_t got;
	struct store *s;

	(void)state;
	/* 10 pages, and the maps of one GiB of each of two spaces. */
	assert_int_equal(store_new(10 * PAGE_BYTES + 2 * sizeof(struct store_window), &s, NULL), 0);
	assert_int_equal(store_put_zero(s, 2, 0, 1, NULL), 0);
	assert_int_equal(store_put(s, 1, 0, 8, ENCODING_RAW, data, sizeof(data), &err), 0);
	/* The same pages again take nothing more. */
	assert_int_equal(store_put(s, 1, 0, 8, ENCODING_RAW, data, sizeof(data), &err), 0);
	assert_int_equal(store_put(s, 2, 0, 8, ENCODING_RAW, data, sizeof(data), &err), -ENOSPC);
	assert_true(strlen(err.text) > 20);
	assert_int_equal(store_window(s, 2, 0, 3, &at, &got, &err), -ENOSPC);
	assert_int_equal(store_window(s, 2, 0, 2, &at, &got, &err), 0);
	assert_int_equal(store_put_zero(s, 1, 0, 7, &err), 0);
	assert_int_equal(store_put(s, 2, 0, 8, ENCODING_RAW, data, sizeof(data), &err), 0);
	assert_int_equal(store_bytes(s), 9 * PAGE_BYTES);
	store_drop(s, 2);
	assert_int_equal(store_bytes(s), PAGE_BYTES);
	assert_int_equal(store_fd(s, 2), -1);
	store_free(s);
}

static void test_bad_input(void **state)
{
	static uint8_t page[PAGE_BYTES];
	static const struct {
		uint32_t space;
		uint64_t address;
		uint32_t pages;
		int result;
	} cases[] = {
		{ 1, SPACE_ADDRESS_MAX - PAGE_BYTES, 1, 0 },
		{ 0, 0, 1, -EINVAL },
		{ SPACES_MAX + 1, 0, 1, -EINVAL },
		{ UINT32_MAX, 0, 1, -EINVAL },
		{ 1, 123, 1, -EINVAL },
		{ 1, 0, 0, -EINVAL },
		{ 1, SPACE_ADDRESS_MAX, 1, -EINVAL },
		{ 1, SPACE_ADDRESS_MAX - PAGE_BYTES, 2, -EINVAL },
		{ 1, UINT64_MAX - PAGE_BYTES + 1, 1, -EINVAL },
		{ SPACES_MAX, 0, 1, 0 },
	};
	struct range range = { 1, 4096 };
	struct range_set present = { .ranges = &range, .n_ranges = 1 };
	struct store *s;

	(void)state;
	assert_int_equal(store_new(0, &s, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t length = cases[i].pages * PAGE_BYTES;

		if (length <= PAGE_BYTES)
			assert_int_equal(store_put(s, cases[i].space, cases[i].address, cases[i].pages, ENCODING_RAW,
						   page, length, NULL),
					 cases[i].result);
		assert_int_equal(store_put_zero(s, cases[i].space, cases[i].address, cases[i].pages, NULL),
				 cases[i].result);
		assert_int_equal(store_commit(s, cases[i].space, cases[i].address, cases[i].pages, NULL),
				 cases[i].result);
	}
	assert_int_equal(store_put(s, 1, 0, 1, ENCODING_RAW, page, 100, NULL), -EBADMSG);
	assert_int_equal(store_put(s, 1, 0, 1, ENCODING_LZ4, page, 100, NULL), -EBADMSG);
	assert_int_equal(store_put(s, 1, 0, 300, ENCODING_LZ4, page, 100, NULL), -EBADMSG);
	assert_int_equal(store_get(s, 1, 0, 1, page, NULL), -ENOENT);
	assert_int_equal(store_apply_present(s, 1, &present, NULL), -EINVAL);
	range = (struct range){ 0, SPACE_ADDRESS_MAX + PAGE_BYTES };
	assert_int_equal(store_apply_present(s, 1, &present, NULL), -EINVAL);
	store_free(s);
}

struct job {
	struct store *s;
	uint64_t lane;
	bool failed;
};

#define LANES 4
#define LANE_PAGES 4000

/* Interleaved pages: neighbours in a bitmap word belong to different threads. */
static void *put_lane(void *data)
{
	struct job *job = data;
	uint8_t page[PAGE_BYTES] __attribute__((aligned(8)));

	for (uint64_t i = job->lane; i < LANE_PAGES; i += LANES) {
		int r;

		fill(page, i + 2);
		r = i % 5 ? store_put(job->s, 1 + i % 3, MODEL_START + i * PAGE_BYTES, 1, ENCODING_RAW, page,
				      PAGE_BYTES, NULL)
			  : store_put_zero(job->s, 1 + i % 3, MODEL_START + i * PAGE_BYTES, 1, NULL);
		job->failed |= r < 0;
	}
	return NULL;
}

static void test_threads(void **state)
{
	static uint8_t page[PAGE_BYTES], expected[PAGE_BYTES];
	struct job jobs[LANES];
	pthread_t threads[LANES];
	struct store *s;

	(void)state;
	assert_int_equal(store_new(0, &s, NULL), 0);
	for (uint64_t i = 0; i < LANES; i++) {
		jobs[i] = (struct job){ .s = s, .lane = i };
		assert_int_equal(pthread_create(&threads[i], NULL, put_lane, &jobs[i]), 0);
	}
	for (size_t i = 0; i < LANES; i++) {
		pthread_join(threads[i], NULL);
		assert_false(jobs[i].failed);
	}
	assert_int_equal(store_bytes(s), LANE_PAGES * 4 / 5 * PAGE_BYTES);
	for (uint64_t i = 0; i < LANE_PAGES; i++) {
		assert_int_equal(store_get(s, 1 + i % 3, MODEL_START + i * PAGE_BYTES, 1, page, NULL), 0);
		memset(expected, 0, PAGE_BYTES);
		if (i % 5)
			fill(expected, i + 2);
		assert_memory_equal(page, expected, PAGE_BYTES);
	}
	store_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_model), cmocka_unit_test(test_missing_page),
		cmocka_unit_test(test_limit),	      cmocka_unit_test(test_scattered_zeros),
		cmocka_unit_test(test_bad_input),     cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
