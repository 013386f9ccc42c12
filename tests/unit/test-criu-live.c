/*
 * criu/ against a real CRIU and real processes: dumps and restores that hold, both ways out, and what breaks in between.
 * Needs root and criu >= 4.1; is skipped (77) otherwise.
 */
#include "criu/support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_rollback(void **state)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;

	(void)state;
	workload_start(WORKLOAD_PLAIN, 8 * MIB, &w);
	assert_runs(&w);
	job = dump_held(&o, &w);
	assert_int_equal(process_state(w.pid), 't');
	assert_int_equal(process_tracer(w.pid), criu_program_pid(job));
	assert_still(&w);
	assert_int_equal(count_listeners(), 0);
	assert_ok(criu_dump_rollback(job, &err), &err);
	assert_int_equal(criu_program_pid(job), 0);
	assert_int_equal(process_tracer(w.pid), 0);
	assert_runs(&w);
	assert_ok(criu_dump_rollback(job, &err), &err);
	assert_int_equal(criu_dump_commit(job, &err), -EINVAL);
	criu_free(job);
	workload_end(&w);
}

/* Stopped, and not one connection locked: a byte that comes now is received. Then on to the end, or back. */
static void test_stop(void **state)
{
	struct error err = { 0 };
	struct workload w;

	(void)state;
	for (int on = 0; on < 3; on++) {
		struct criu_options o = fresh_options();
		struct criu_job *job;

		if (on == 2)
			o.tcp_established = true;
		workload_start(on == 2 ? WORKLOAD_TCP : WORKLOAD_PLAIN, MIB, &w);
		job_start(&o, &job);
		assert_ok(criu_dump_stop(job, w.pid, -1, &err), &err);
		assert_int_equal(process_state(w.pid), 't');
		assert_still(&w);
		if (!on) {
			assert_ok(criu_dump_rollback(job, &err), &err);
			assert_int_equal(criu_dump(job, w.pid, -1, &err), -EINVAL);
			assert_runs(&w);
		} else {
			assert_ok(criu_dump(job, w.pid, -1, &err), &err);
			assert_still(&w);
			assert_ok(criu_dump_rollback(job, &err), &err);
			assert_runs(&w);
		}
		criu_free(job);
		workload_end(&w);
		assert_int_equal(count_criu_tables(), 0);
	}
}

static void test_commit(void **state)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;

	(void)state;
	workload_start(WORKLOAD_TREE, 8 * MIB, &w);
	job = dump_held(&o, &w);
	assert_still(&w);
	assert_int_equal(count_listeners(), 0);
	assert_ok(criu_dump_commit(job, &err), &err);
	assert_gone(w.pid);
	assert_ok(criu_dump_commit(job, &err), &err);
	assert_int_equal(criu_dump_rollback(job, &err), -EINVAL);
	criu_free(job);
	workload_end(&w);
}

static void restore_and_resume(enum workload_kind kind)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;
	uint64_t start;
	pid_t pid;

	o.full_memory = true;
	workload_start(kind, 8 * MIB, &w);
	dump_away(&o, &w);
	job_start(&o, &job);
	start = clock_now_ns();
	assert_ok(criu_restore(job, -1, &pid, &err), &err);
	print_message("# restore held after %.1f ms\n", (double)(clock_now_ns() - start) / 1e6);
	if (kind != WORKLOAD_INIT)
		assert_int_equal(pid, w.pid);
	w.pid = pid;
	assert_true(process_state(pid) != 0);
	assert_still(&w);
	assert_ok(criu_restore_resume(job, &err), &err);
	assert_int_equal(criu_program_pid(job), 0);
	assert_runs(&w);
	assert_int_equal(process_parent(pid), 1);
	assert_int_equal(process_tracer(pid), 0);
	assert_int_equal(criu_restore_abort(job, &err), -EINVAL);
	criu_free(job);
	assert_runs(&w);
	workload_end(&w);
}

static void test_restore_plain(void **state)
{
	(void)state;
	restore_and_resume(WORKLOAD_PLAIN);
}

static void test_restore_threads(void **state)
{
	(void)state;
	restore_and_resume(WORKLOAD_THREADS);
}

static void test_restore_tree(void **state)
{
	(void)state;
	restore_and_resume(WORKLOAD_TREE);
}

static void test_restore_user(void **state)
{
	(void)state;
	restore_and_resume(WORKLOAD_USER);
}

static void test_restore_tcp(void **state)
{
	(void)state;
	restore_and_resume(WORKLOAD_TCP);
}

static void test_restore_init(void **state)
{
	(void)state;
	restore_and_resume(WORKLOAD_INIT);
}

static void test_abort(void **state)
{
	static const enum workload_kind kinds[] = { WORKLOAD_PLAIN, WORKLOAD_TREE, WORKLOAD_TCP, WORKLOAD_INIT };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct criu_options o = fresh_options();
		struct error err = { 0 };
		struct criu_job *job;
		struct workload w;
		int tables;
		pid_t pid;

		o.full_memory = true;
		workload_start(kinds[i], 4 * MIB, &w);
		dump_away(&o, &w);
		tables = count_criu_tables();
		job_start(&o, &job);
		assert_ok(criu_restore(job, -1, &pid, &err), &err);
		assert_ok(criu_restore_abort(job, &err), &err);
		assert_gone(pid);
		assert_still(&w);
		assert_int_equal(count_criu_tables(), tables);
		assert_ok(criu_restore_abort(job, &err), &err);
		criu_free(job);
		workload_end(&w);
	}
}

/* cmocka must not be told of a world that could not be made. */
static int main_in_world(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rollback),	cmocka_unit_test(test_stop),
		cmocka_unit_test(test_commit),		cmocka_unit_test(test_restore_plain),
		cmocka_unit_test(test_restore_threads), cmocka_unit_test(test_restore_tree),
		cmocka_unit_test(test_restore_user),	cmocka_unit_test(test_restore_tcp),
		cmocka_unit_test(test_restore_init),	cmocka_unit_test(test_abort),
	};

	cmocka_set_test_filter(getenv("TEST_FILTER"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	struct error err;
	char program[4096];

	if (geteuid() != 0 || criu_find(program, sizeof(program), &err) < 0)
		return 77;
	return world_run(argc, argv, main_in_world);
}
