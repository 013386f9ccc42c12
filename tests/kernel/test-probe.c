/*
 * What the tracker says about the kernel it runs on, against what the kernel's release lets expect: before Linux 6.7 there is no
 * asynchronous write-protection, and a kernel with soft-dirty must be used by it. Run by tests/kernel/run, on a kernel of
 * which that is known; one thread.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include <cmocka.h>

#include "memory/tracker.h"

static bool has_write_protection(void)
{
	unsigned int major, minor;
	struct utsname name;

	assert_int_equal(uname(&name), 0);
	assert_int_equal(sscanf(name.release, "%u.%u", &major, &minor), 2);
	return major > 6 || (major == 6 && minor >= 7);
}

static void test_probe(void **state)
{
	struct error err = { 0 };

	(void)state;
	assert_int_equal(tracker_probe(&err), has_write_protection() ? TRACKER_WRITE_PROTECT : TRACKER_SOFT_DIRTY);
}

static void test_soft_dirty(void **state)
{
	struct tracker *t = NULL;
	struct error err = { 0 };

	(void)state;
	if (tracker_new(TRACKER_SOFT_DIRTY, &t, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(tracker_kind_of(t), TRACKER_SOFT_DIRTY);
	tracker_free(t);
}

/* Refused with one sentence that says why, and nothing is left behind. */
static void test_write_protection_is_refused(void **state)
{
	struct tracker *t = NULL;
	struct error err = { 0 };
	int r = tracker_new(TRACKER_WRITE_PROTECT, &t, &err);

	(void)state;
	if (has_write_protection()) {
		assert_int_equal(r, 0);
		tracker_free(t);
		return;
	}
	assert_true(r < 0);
	assert_null(t);
	assert_non_null(strstr(err.text, "PAGEMAP_SCAN"));
	assert_non_null(strstr(err.text, "6.7"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_soft_dirty),
		cmocka_unit_test(test_write_protection_is_refused),
	};

	return cmocka_run_group_tests_name("kernel-probe", tests, NULL, NULL);
}
