/*
 * Unit tests of the proof of shared storage: one directory under two names, and two directories that look alike.
 */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/fd.h"
#include "migration/shared.h"

static char top[64];

static const char *at(const char *name)
{
	static char places[4][128];
	static int turn;

	turn = (turn + 1) % 4;
	snprintf(places[turn], sizeof(places[turn]), "%s/%s", top, name);
	return places[turn];
}

static int setup(void **state)
{
	(void)state;
	snprintf(top, sizeof(top), "/tmp/phaul-shared-XXXXXX");
	assert_non_null(mkdtemp(top));
	assert_int_equal(mkdir(at("one"), 0755), 0);
	assert_int_equal(mkdir(at("other"), 0755), 0);
	assert_int_equal(fd_write_file(AT_FDCWD, at("one/file"), "x", 1, 0600), 0);
	assert_int_equal(symlink("one", at("link")), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return dir_remove(top);
}

static int entries(const char *path)
{
	_cleanup_closedir_ DIR *d = opendir(path);
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	return n - 2;
}

static void test_seen(void **state)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, { 7, 8 } };
	struct shared_mark m;
	struct error err = { 0 };
	struct stat st;

	(void)state;
	assert_int_equal(utimensat(AT_FDCWD, at("one"), times, 0), 0);
	assert_int_equal(shared_mark_make(at("one"), false, &m, &err), 0);
	assert_int_equal(entries(at("one")), 2);
	assert_true(shared_seen(at("one"), false, m.name, m.content));
	assert_true(shared_seen(at("one/anything"), true, m.name, m.content));
	assert_false(shared_seen(at("other"), false, m.name, m.content));
	assert_false(shared_seen(at("missing"), false, m.name, m.content));
	assert_false(shared_seen(at("link"), false, m.name, m.content));
	assert_false(shared_seen("relative", false, m.name, m.content));
	/* Of the same name, but not of the same content. */
	m.content[3] ^= 1;
	assert_false(shared_seen(at("one"), false, m.name, m.content));
	shared_mark_remove(&m);
	assert_int_equal(entries(at("one")), 1);
	assert_int_equal(stat(at("one"), &st), 0);
	assert_int_equal(st.st_mtim.tv_sec, 7);
	assert_int_equal(st.st_mtim.tv_nsec, 8);
	assert_false(shared_seen(at("one"), false, m.name, m.content));
	shared_mark_remove(&m); /* once more: nothing */
}

static void test_file(void **state)
{
	struct shared_mark m;
	struct error err = { 0 };

	(void)state;
	assert_int_equal(shared_mark_make(at("one/file"), true, &m, &err), 0);
	assert_true(shared_seen(at("one/file"), true, m.name, m.content));
	assert_false(shared_seen(at("other/file"), true, m.name, m.content));
	shared_mark_remove(&m);
	assert_int_equal(entries(at("one")), 1);
	assert_int_equal(shared_mark_make(at("missing/file"), true, &m, &err), -ENOENT);
	assert_int_equal(shared_mark_make("/proc/self", false, &m, &err), -ELOOP);
	assert_int_equal(shared_mark_make("/proc/1", false, &m, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/proc/1"));
}

/* What one that was killed left is removed by the next; a file that only looks like it is not. */
static void test_left(void **state)
{
	static const char left[] = "one/.phaul-shared-00112233445566778899aabbccddeeff";
	static const char user[] = "one/.phaul-shared-mine";
	const struct timespec old[2] = { { 5, 0 }, { 5, 0 } };
	struct shared_mark m;
	struct error err = { 0 };

	(void)state;
	assert_int_equal(fd_write_file(AT_FDCWD, at(left), "0123456789abcdef", 16, 0600), 0);
	assert_int_equal(fd_write_file(AT_FDCWD, at(user), "x", 1, 0600), 0);
	assert_int_equal(shared_mark_make(at("one"), false, &m, &err), 0);
	shared_mark_remove(&m);
	assert_int_equal(access(at(left), F_OK), 0); /* perhaps another's, at this moment */
	assert_int_equal(utimensat(AT_FDCWD, at(left), old, 0), 0);
	assert_int_equal(utimensat(AT_FDCWD, at(user), old, 0), 0);
	assert_int_equal(shared_mark_make(at("one"), false, &m, &err), 0);
	shared_mark_remove(&m);
	assert_int_equal(access(at(left), F_OK), -1);
	assert_int_equal(access(at(user), F_OK), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_left, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
