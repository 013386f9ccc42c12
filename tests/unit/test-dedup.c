/*
 * Unit tests of the index of page contents, against a plain table, and from several threads at once.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "memory/dedup.h"

static struct page_hash hash_of_number(uint64_t n)
{
	static _Thread_local uint64_t page[PAGE_BYTES / 8];

	page[17] = n;
	return page_hash_of(page);
}

static void test_hash(void **state)
{
	struct page_hash a = hash_of_number(1), b = hash_of_number(2), c = hash_of_number(1);

	(void)state;
	assert_memory_equal(&a, &c, sizeof(a));
	assert_true(a.low != b.low && a.high != b.high);
}

/* A place that was forgotten gives no reference, whichever of a content's places it was, and can be noted again. */
static void test_forget(void **state)
{
	struct page_hash one = hash_of_number(1), two = hash_of_number(2);
	struct page_reference found;
	struct dedup_index *d;

	(void)state;
	assert_int_equal(dedup_new(&d, NULL), 0);
	assert_int_equal(dedup_note(d, 1, 0x1000, &one), 0);
	assert_int_equal(dedup_note(d, 1, 0x2000, &two), 0);
	assert_int_equal(dedup_note(d, 2, 0x2000, &one), 0);
	dedup_forget(d, 1, 0x1000, 2);
	assert_false(dedup_find(d, &two, &found));
	assert_false(dedup_is_current(d, 1, 0x1000, &one));
	assert_true(dedup_find(d, &one, &found));
	assert_int_equal(found.space, 2);
	dedup_forget(d, 2, 0, 16);
	assert_false(dedup_find(d, &one, &found));
	dedup_forget(d, 3, 0x1000, 1); /* never heard of */
	assert_int_equal(dedup_note(d, 1, 0x2000, &two), 0);
	assert_true(dedup_find(d, &two, &found));
	assert_int_equal(found.address, 0x2000);
	dedup_free(d);
}

#define MODEL_PLACES 3000
#define MODEL_CONTENTS 200

/* After every step: a content is found exactly while some place has it, and at a place that has it. */
static void test_against_model(void **state)
{
	static struct page_hash hashes[MODEL_CONTENTS];
	static int model[MODEL_PLACES]; /* content + 1 */
	int used[MODEL_CONTENTS] = { 0 };
	struct dedup_index *d;
	unsigned int seed = 5;

	(void)state;
	for (uint64_t i = 0; i < MODEL_CONTENTS; i++)
		hashes[i] = hash_of_number(i);
	assert_int_equal(dedup_new(&d, NULL), 0);
	for (int step = 0; step < 60000; step++) {
		int place = rand_r(&seed) % MODEL_PLACES;
		/* Skewed: some contents are everywhere, some nearly nowhere. */
		int content = rand_r(&seed) % (1 + rand_r(&seed) % MODEL_CONTENTS), probe;
		struct page_reference found;

		assert_int_equal(
			dedup_note(d, 1 + (uint32_t)place % 3, (uint64_t)place / 3 * PAGE_BYTES, &hashes[content]), 0);
		if (model[place])
			used[model[place] - 1]--;
		model[place] = content + 1;
		used[content]++;

		probe = rand_r(&seed) % MODEL_CONTENTS;
		assert_int_equal(dedup_find(d, &hashes[probe], &found), used[probe] > 0);
		if (used[probe]) {
			size_t at = found.address / PAGE_BYTES * 3 + found.space - 1;

			assert_int_equal(model[at], probe + 1);
		}
		place = rand_r(&seed) % MODEL_PLACES;
		assert_int_equal(
			dedup_is_current(d, 1 + (uint32_t)place % 3, (uint64_t)place / 3 * PAGE_BYTES, &hashes[probe]),
			model[place] == probe + 1);
	}
	dedup_free(d);
}

/* A replaced version is never found again, however many places shared it. */
static void test_replaced_is_gone(void **state)
{
	struct page_hash old = hash_of_number(1), new = hash_of_number(2);
	struct page_reference found;
	struct dedup_index *d;

	(void)state;
	assert_int_equal(dedup_new(&d, NULL), 0);
	for (uint64_t i = 0; i < 5000; i++)
		assert_int_equal(dedup_note(d, 1, i * PAGE_BYTES, &old), 0);
	for (uint64_t i = 0; i < 5000; i++) {
		assert_true(dedup_find(d, &old, &found));
		assert_true(found.address >= i * PAGE_BYTES);
		assert_int_equal(dedup_note(d, 1, i * PAGE_BYTES, &new), 0);
	}
	assert_false(dedup_find(d, &old, &found));
	assert_true(dedup_find(d, &new, &found));
	dedup_free(d);
}

/* Many places of one content must not make the others slow: linear time, not quadratic. */
static void test_same_content_everywhere(void **state)
{
	struct page_hash same = hash_of_number(1);
	uint64_t start, first, second;
	struct dedup_index *d;

	(void)state;
	assert_int_equal(dedup_new(&d, NULL), 0);
	start = clock_now_ns();
	for (uint64_t i = 0; i < 300000; i++)
		assert_int_equal(dedup_note(d, 1, i * PAGE_BYTES, &same), 0);
	first = clock_now_ns() - start;
	start = clock_now_ns();
	for (uint64_t i = 0; i < 300000; i++)
		assert_int_equal(dedup_note(d, 1, i * PAGE_BYTES, &same), 0);
	second = clock_now_ns() - start;
	print_message("# dedup_note: %llu ns new, %llu ns again\n", (unsigned long long)first / 300000,
		      (unsigned long long)second / 300000);
	/* A walk of the list would take 300000 * 150000 steps: minutes. */
	assert_true(second < 10 * NS_PER_S);
	dedup_free(d);
}

struct job {
	struct dedup_index *d;
	uint32_t space;
	bool failed;
};

static void *note_many(void *data)
{
	struct job *job = data;

	for (uint64_t i = 0; i < 20000; i++) {
		struct page_hash h = hash_of_number(i % 97 + job->space * 1000);

		if (dedup_note(job->d, job->space, i % 4096 * PAGE_BYTES, &h) < 0 ||
		    !dedup_is_current(job->d, job->space, i % 4096 * PAGE_BYTES, &h))
			job->failed = true;
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct job jobs[4];
	pthread_t threads[4];
	struct dedup_index *d;

	(void)state;
	assert_int_equal(dedup_new(&d, NULL), 0);
	for (uint32_t i = 0; i < 4; i++) {
		jobs[i] = (struct job){ .d = d, .space = i + 1 };
		assert_int_equal(pthread_create(&threads[i], NULL, note_many, &jobs[i]), 0);
	}
	for (uint32_t i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_false(jobs[i].failed);
	}
	dedup_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_forget),
		cmocka_unit_test(test_against_model),
		cmocka_unit_test(test_replaced_is_gone),
		cmocka_unit_test(test_same_content_everywhere),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
