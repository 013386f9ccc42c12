/*
 * Unit tests of work directories: which of them a killed process left, and that many who make and sweep them at once never take one that is in use.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "migration/work-directory.h"

#define THREADS 8
#define ROUNDS 1000

static char run[] = "/tmp/phaul-test-work-XXXXXX", journals[64];

static int setup(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(run));
	snprintf(journals, sizeof(journals), "%s/journals", run);
	assert_int_equal(dir_make(journals, 0700), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return dir_remove(run);
}

static const char *at(const char *name, const char *further)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s%s", run, name, further);
	return path;
}

static void new_id(char ret[UUID_TEXT_SIZE])
{
	struct uuid id;

	assert_int_equal(uuid_new(&id), 0);
	uuid_format(&id, ret);
}

static void make_file(const char *path)
{
	assert_int_equal(fd_write_file(AT_FDCWD, path, "x", 1, 0600), 0);
}

static void make_another(void)
{
	char id[UUID_TEXT_SIZE];
	int lock = -1;

	new_id(id);
	assert_int_equal(work_directory_make(run, id, journals, &lock, NULL), 0);
	assert_int_equal(dir_remove(at(id, "")), 0);
	close(lock);
}

static bool exists(const char *name)
{
	return access(at(name, ""), F_OK) == 0;
}

/* Killed right after the directory was made, after that of its images was, or while the CPUs were compared. */
static void test_abandoned(void **state)
{
	char bare[UUID_TEXT_SIZE], empty[UUID_TEXT_SIZE], id[UUID_TEXT_SIZE], cpu[UUID_TEXT_SIZE + 8];

	(void)state;
	new_id(bare);
	assert_int_equal(dir_make(at(bare, ""), 0700), 0);
	new_id(empty);
	assert_int_equal(dir_make(at(empty, "/images"), 0700), 0);
	new_id(id);
	snprintf(cpu, sizeof(cpu), WORK_DIRECTORY_CPU "%s", id);
	assert_int_equal(dir_make(at(cpu, ""), 0700), 0);
	make_file(at(cpu, "/cpuinfo.img"));
	make_another();
	assert_false(exists(bare));
	assert_false(exists(empty));
	assert_false(exists(cpu));
}

static void test_kept(void **state)
{
	char images[UUID_TEXT_SIZE], journal[UUID_TEXT_SIZE], path[256], cpu[UUID_TEXT_SIZE + 8], held[UUID_TEXT_SIZE];
	int lock = -1, cpu_lock = -1;

	(void)state;
	new_id(images); /* --keep-images */
	assert_int_equal(dir_make(at(images, "/images"), 0700), 0);
	make_file(at(images, "/images/core-1.img"));
	new_id(journal);
	assert_int_equal(dir_make(at(journal, ""), 0700), 0);
	snprintf(path, sizeof(path), "%s/%s", journals, journal);
	assert_int_equal(dir_make(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/%s/journal", journals, journal);
	make_file(path);
	new_id(held);
	assert_int_equal(work_directory_make(run, held, journals, &lock, NULL), 0);
	snprintf(cpu, sizeof(cpu), WORK_DIRECTORY_CPU "%s", held);
	assert_int_equal(work_directory_make(run, cpu, journals, &cpu_lock, NULL), 0);
	assert_int_equal(dir_make(at("cpu-cooler", ""), 0700), 0); /* somebody else's */
	make_another();
	assert_true(exists(images));
	assert_true(exists(journal));
	assert_true(exists(held));
	assert_true(exists(cpu));
	assert_true(exists("cpu-cooler"));
	close(lock);
	close(cpu_lock);
	make_another();
	assert_false(exists(held));
	assert_false(exists(cpu));
	assert_true(exists(images));
}

static void test_wrong(void **state)
{
	struct error err = { 0 };
	int lock = -1;

	(void)state;
	make_file(at("file", ""));
	assert_int_equal(work_directory_make(at("file", ""), "name", NULL, &lock, &err), -ENOTDIR);
	assert_non_null(strstr(err.text, "cannot make the work directory"));
	assert_int_equal(lock, -1);
}

static void *make_many(void *context)
{
	size_t *failed = context;

	for (int i = 0; i < ROUNDS; i++) {
		char id[UUID_TEXT_SIZE], path[256];
		struct error err = { 0 };
		struct uuid u;
		int lock = -1, r;

		if (uuid_new(&u) < 0)
			abort();
		uuid_format(&u, id);
		r = work_directory_make(run, id, journals, &lock, &err);
		snprintf(path, sizeof(path), "%s/%s/images", run, id);
		if (!r)
			r = dir_make(path, 0700);
		snprintf(path, sizeof(path), "%s/%s", run, id);
		if (r < 0 || access(path, F_OK) < 0 || dir_remove(path) < 0)
			++*failed;
		close_fd(&lock);
	}
	return NULL;
}

static void test_at_once(void **state)
{
	size_t failed[THREADS] = { 0 };
	pthread_t threads[THREADS];

	(void)state;
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, make_many, &failed[i]), 0);
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(failed[i], 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_abandoned),
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_at_once),
	};

	return cmocka_run_group_tests_name("work-directory", tests, setup, teardown);
}
