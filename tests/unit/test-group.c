/*
 * Tests of what is done with control groups.
 *
 * Real ones of this machine, and nothing is changed in them: the process moves to where it is. What is measured is compared with itself, for
 * a busy machine is slow at both.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "driver/group.h"

#define SAMPLES 11

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* How long it takes this process to move to where it is, when nobody did for the time before but the one who eases it. ns, the median. */
static uint64_t move_ns(int fd, bool eased)
{
	uint64_t took[SAMPLES];

	for (int i = 0; i < SAMPLES; i++) {
		uint64_t began;

		/* 60 ms: long enough for the kernel to be at rest again. */
		for (int k = 0; k < 60 / GROUP_EASE_MS; k++) {
			if (eased)
				group_ease(fd);
			usleep(GROUP_EASE_MS * 1000);
		}
		began = clock_now_ns();
		assert_int_equal(write(fd, "0", 1), 1);
		took[i] = clock_now_ns() - began;
	}
	qsort(took, SAMPLES, sizeof(took[0]), compare);
	return took[SAMPLES / 2];
}

static void test_ease(void **state)
{
	_cleanup_close_ int fd = group_open_own();
	uint64_t plain, eased;

	(void)state;
	if (fd < 0) {
		print_message("# no control group can be written here\n");
		skip();
	}
	plain = move_ns(fd, false);
	eased = move_ns(fd, true);
	print_message("# to move a process: %.2f ms, eased %.3f ms\n", (double)plain / 1e6, (double)eased / 1e6);
	/* A kernel that is mounted with favordynmods has nothing to ease. */
	assert_true(eased * 2 < plain || plain < NS_PER_MS);
}

static void test_remove_tree(void **state)
{
	char directory[] = "/tmp/test-group-XXXXXX", path[64];

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/a", directory);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/a/b", directory);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(group_remove_tree(directory), 0);
	assert_int_equal(access(directory, F_OK), -1);
	assert_int_equal(group_remove_tree(directory), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ease),
		cmocka_unit_test(test_remove_tree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
