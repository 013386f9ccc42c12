/*
 * libphaul-criu.so's memcpy() (built as library_memcpy here): the bytes are always memcpy's, whatever was touched on either side,
 * and what nobody touched is not allocated by it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/page.h"
#include "criu/preload/library.h"

#define PAGES 2048UL
#define BYTES (PAGES * PAGE_BYTES)

struct library library;
static int said;

void library_say(bool *once, const char *what)
{
	(void)what;
	*once = true;
	said++;
}

void *library_memcpy(void *restrict dest, const void *restrict src, size_t n);

static uint8_t *map(int kind)
{
	void *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static unsigned long resident(void *p)
{
	static unsigned char pages[PAGES];
	unsigned long n = 0;

	assert_int_equal(mincore(p, BYTES, pages), 0);
	for (unsigned long i = 0; i < PAGES; i++)
		n += pages[i] & 1;
	return n;
}

/* Touches about one page in `every`, partly. */
static void touch(uint8_t *p, unsigned int every, unsigned int *seed)
{
	for (unsigned long i = 0; i < PAGES; i++)
		if ((unsigned int)rand_r(seed) % every == 0)
			memset(p + i * PAGE_BYTES + (unsigned int)rand_r(seed) % 100, rand_r(seed),
			       (unsigned int)rand_r(seed) % 3900);
}

static void test_random(void **state)
{
	unsigned int seed = 1;

	(void)state;
	library.active = library.hide = true;
	for (int turn = 0; turn < 60; turn++) {
		uint8_t *from = map(MAP_PRIVATE), *to = map(turn % 3 ? MAP_SHARED : MAP_PRIVATE);
		uint8_t *expected = malloc(BYTES);
		size_t a = (unsigned int)rand_r(&seed) % 9000, b = turn % 2 ? a : (unsigned int)rand_r(&seed) % 9000;
		size_t n = BYTES - 9000 - (unsigned int)rand_r(&seed) % 9000;

		assert_non_null(expected);
		touch(from, turn % 5 ? 50 : 2, &seed);
		touch(to, turn % 7 ? 60 : 3, &seed);
		memmove(expected, to, BYTES);
		memmove(expected + b, from + a, n);
		assert_ptr_equal(library_memcpy(to + b, from + a, n), to + b);
		assert_int_equal(memcmp(to, expected, BYTES), 0);
		free(expected);
		munmap(from, BYTES);
		munmap(to, BYTES);
	}
	assert_true(said > 0);
}

/* What CRIU does: the beginning of a long array is used, the rest is not. */
static void test_not_allocated(void **state)
{
	uint8_t *from = map(MAP_PRIVATE), *to = map(MAP_SHARED);

	(void)state;
	memset(from, 7, 3 * PAGE_BYTES);
	library.active = library.hide = true;
	library_memcpy(to + 200, from, BYTES - PAGE_BYTES);
	assert_in_range(resident(to), 3, 8);
	assert_in_range(resident(from), 3, 8);
	assert_int_equal(to[200 + 3 * PAGE_BYTES - 1], 7);
	/* A program that is not ours to speed up gets a plain copy. */
	library.active = false;
	library_memcpy(to, from, BYTES);
	assert_int_equal(resident(to), PAGES);
	munmap(from, BYTES);
	munmap(to, BYTES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_not_allocated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
