/*
 * What breaks around a held dump or restore: refusals of CRIU, the death of CRIU, of its caller, cancels. After each, exactly
 * the promised tasks run. Needs root and criu >= 4.1; is skipped (77) otherwise.
 */
#include "criu/support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/process.h"

static void wait_ended(pid_t pid)
{
	uint64_t deadline = deadline_in_ms(5000);

	while (process_state(pid) && process_state(pid) != 'Z')
		assert_true(clock_now_ns() < deadline);
}

static void test_undumpable(void **state)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;

	(void)state;
	workload_start(WORKLOAD_UNDUMPABLE, MIB, &w);
	job_start(&o, &job);
	assert_int_equal(criu_dump(job, w.pid, -1, &err), -EIO);
	print_message("# %s\n", err.text);
	assert_non_null(strstr(err.text, "CRIU could not dump the tree: Error (criu/"));
	assert_non_null(strstr(err.text, "userfaultfd"));
	assert_non_null(strstr(err.text, "/dump.log)"));
	assert_runs(&w);
	criu_free(job);
	assert_runs(&w);
	workload_end(&w);
}

static void test_no_such_process(void **state)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;

	(void)state;
	job_start(&o, &job);
	assert_int_equal(criu_dump(job, 4190000, -1, &err), -ESRCH);
	criu_free(job);
}

/* The original runs on while a second copy is tried: it must be refused, and the original must not be hurt. */
static void test_pids_busy(void **state)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;
	pid_t pid = 0;

	(void)state;
	o.full_memory = true;
	workload_start(WORKLOAD_TREE, MIB, &w);
	job = dump_held(&o, &w);
	assert_ok(criu_dump_rollback(job, &err), &err);
	criu_free(job);
	job_start(&o, &job);
	assert_int_equal(criu_restore(job, -1, &pid, &err), -EIO);
	print_message("# %s\n", err.text);
	assert_non_null(strstr(err.text, "File exists"));
	assert_int_equal(pid, 0);
	criu_free(job);
	assert_runs(&w);
	workload_end(&w);
}

static void test_cancel_dump(void **state)
{
	struct criu_options o = fresh_options();
	int cancel_fd = eventfd(1, EFD_CLOEXEC), before = count_criu_tables();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;

	(void)state;
	workload_start(WORKLOAD_TCP, MIB, &w);
	job_start(&o, &job);
	assert_int_equal(criu_dump(job, w.pid, cancel_fd, &err), -ECANCELED);
	assert_runs(&w);
	assert_int_equal(count_criu_tables(), before);
	criu_free(job);
	close(cancel_fd);
	workload_end(&w);
}

/* A CRIU that hangs is killed after the cancel, and the tasks run on. */
static void test_cancel_hung_dump(void **state)
{
	struct criu_options o = fresh_options();
	int cancel_fd = eventfd(1, EFD_CLOEXEC);
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;
	uint64_t start;

	(void)state;
	workload_start(WORKLOAD_PLAIN, MIB, &w);
	job_start(&o, &job);
	kill(criu_program_pid(job), SIGSTOP);
	start = clock_now_ns();
	assert_int_equal(criu_dump(job, w.pid, cancel_fd, &err), -ECANCELED);
	assert_in_range((clock_now_ns() - start) / NS_PER_MS, 1900, 3500);
	assert_int_equal(criu_program_pid(job), 0);
	assert_runs(&w);
	criu_free(job);
	close(cancel_fd);
	workload_end(&w);
}

static void test_cancel_restore(void **state)
{
	struct criu_options o = fresh_options();
	int cancel_fd = eventfd(1, EFD_CLOEXEC);
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;
	pid_t pid;

	(void)state;
	o.full_memory = true;
	workload_start(WORKLOAD_TREE, MIB, &w);
	dump_away(&o, &w);
	job_start(&o, &job);
	assert_int_equal(criu_restore(job, cancel_fd, &pid, &err), -ECANCELED);
	assert_gone(w.pid);
	assert_still(&w);
	criu_free(job);
	/* The images are as good as before. */
	job_start(&o, &job);
	assert_ok(criu_restore(job, -1, &pid, &err), &err);
	assert_ok(criu_restore_resume(job, &err), &err);
	assert_runs(&w);
	criu_free(job);
	close(cancel_fd);
	workload_end(&w);
}

/* The tracer's death releases the tasks: held by ptrace alone is not stopped (handover.md). */
static void test_criu_killed_holding_dump(void **state)
{
	static const enum workload_kind kinds[] = { WORKLOAD_PLAIN, WORKLOAD_THREADS, WORKLOAD_TREE };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct criu_options o = fresh_options();
		struct error err = { 0 };
		struct criu_job *job;
		struct workload w;

		workload_start(kinds[i], MIB, &w);
		job = dump_held(&o, &w);
		kill(criu_program_pid(job), SIGKILL);
		assert_runs(&w);
		assert_int_equal(criu_dump_commit(job, &err) < 0, 1);
		print_message("# %s\n", err.text);
		assert_runs(&w);
		assert_ok(criu_dump_rollback(job, &err), &err);
		criu_free(job);
		/* It can be dumped again: no trace of the first one hinders. */
		o = fresh_options();
		job = dump_held(&o, &w);
		assert_ok(criu_dump_rollback(job, &err), &err);
		criu_free(job);
		assert_runs(&w);
		workload_end(&w);
	}
}

/* The same with a connection: its lock outlives CRIU, with its name in the log; its repair mode is ended by the rollback. */
static void test_criu_killed_leaves_lock(void **state)
{
	struct criu_options o = fresh_options();
	const char *nft[] = { "nft", "delete", "table", "inet", NULL, NULL };
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;
	char table[128];
	int before = count_criu_tables();

	(void)state;
	workload_start(WORKLOAD_TCP, MIB, &w);
	job = dump_held(&o, &w);
	assert_int_equal(count_criu_tables(), before + 1);
	kill(w.pid, SIGSTOP); /* the second means of stopping: takes effect when ptrace lets go */
	kill(criu_program_pid(job), SIGKILL);
	assert_still(&w);
	assert_ok(criu_dump_rollback(job, &err), &err);
	assert_int_equal(process_state(w.pid), 'T');
	assert_int_equal(count_criu_tables(), before + 1);
	assert_int_equal(criu_network_table(o.work_directory, table, sizeof(table)), 0);
	nft[4] = table;
	if (process_run(nft, NULL, deadline_in_ms(10000), &err) != 0)
		fail_msg("%s: %s", table, err.text);
	assert_int_equal(count_criu_tables(), before);
	kill(w.pid, SIGCONT);
	assert_runs(&w);
	criu_free(job);
	workload_end(&w);
}

/* After a good end of the dump: rollback takes the lock away, commit leaves it. */
static void test_lock_after_verdict(void **state)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;
	int before = count_criu_tables();

	(void)state;
	workload_start(WORKLOAD_TCP, MIB, &w);
	job = dump_held(&o, &w);
	assert_int_equal(count_criu_tables(), before + 1);
	assert_ok(criu_dump_rollback(job, &err), &err);
	assert_int_equal(count_criu_tables(), before);
	assert_runs(&w);
	criu_free(job);
	o = fresh_options();
	job = dump_held(&o, &w);
	assert_ok(criu_dump_commit(job, &err), &err);
	assert_int_equal(count_criu_tables(), before + 1);
	criu_free(job);
	workload_end(&w);
}

/* The caller dies while it holds: CRIU finds its sockets closed, undoes and ends. */
static void test_caller_killed_holding_dump(void **state)
{
	struct criu_options o = fresh_options();
	struct workload w;
	pid_t caller, criu = 0;
	int held[2], before = count_criu_tables();

	(void)state;
	workload_start(WORKLOAD_TCP, MIB, &w);
	assert_int_equal(pipe2(held, O_CLOEXEC), 0);
	caller = fork();
	if (caller == 0) {
		struct criu_job *job = dump_held(&o, &w);

		criu = criu_program_pid(job);
		if (write(held[1], &criu, sizeof(criu)) == sizeof(criu))
			pause();
		_exit(1);
	}
	close(held[1]); /* a caller that fails ends the read */
	assert_int_equal(read(held[0], &criu, sizeof(criu)), sizeof(criu));
	assert_still(&w);
	kill(caller, SIGKILL);
	waitpid(caller, NULL, 0);
	assert_runs(&w);
	wait_ended(criu);
	assert_int_equal(process_tracer(w.pid), 0);
	assert_int_equal(count_criu_tables(), before);
	close(held[0]);
	workload_end(&w);
}

static void test_criu_killed_holding_restore(void **state)
{
	static const enum workload_kind kinds[] = { WORKLOAD_PLAIN, WORKLOAD_TREE, WORKLOAD_INIT };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds) * 2; i++) {
		struct criu_options o = fresh_options();
		struct error err = { 0 };
		struct criu_job *job;
		struct workload w;
		pid_t pid;

		o.full_memory = true;
		workload_start(kinds[i / 2], MIB, &w);
		dump_away(&o, &w);
		job_start(&o, &job);
		assert_ok(criu_restore(job, -1, &pid, &err), &err);
		kill(criu_program_pid(job), SIGKILL);
		if (i % 2)
			assert_ok(criu_restore_abort(job, &err), &err);
		else
			assert_int_equal(criu_restore_resume(job, &err) < 0, 1);
		assert_gone(pid);
		assert_still(&w);
		criu_free(job);
		workload_end(&w);
	}
}

struct killer {
	pid_t pid;
	uint64_t at_ns;
};

/* Kills CRIU at a given time: the threads of a CRIU that dies anywhere on its way. */
static void *killer_main(void *argument)
{
	const struct killer *k = argument;
	struct timespec at = { .tv_sec = (time_t)(k->at_ns / NS_PER_S), .tv_nsec = (long)(k->at_ns % NS_PER_S) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
	kill(k->pid, SIGKILL);
	return NULL;
}

/* A CRIU that is killed anywhere in a restore leaves no task, and the images good. */
static void test_criu_killed_in_restore(void **state)
{
	static const enum workload_kind kinds[] = { WORKLOAD_TREE, WORKLOAD_INIT };

	(void)state;
	for (size_t i = 0; i < 40; i++) {
		struct criu_options o = fresh_options();
		struct error err = { 0 };
		struct criu_job *job;
		struct killer killer;
		struct workload w;
		pthread_t thread;
		pid_t pid = 0;
		int r;

		o.full_memory = true;
		workload_start(kinds[i % 2], MIB, &w);
		dump_away(&o, &w);
		job_start(&o, &job);
		killer = (struct killer){ criu_program_pid(job), clock_now_ns() + i * NS_PER_MS / 2 };
		assert_int_equal(pthread_create(&thread, NULL, killer_main, &killer), 0);
		r = criu_restore(job, -1, &pid, &err);
		pthread_join(thread, NULL);
		if (!r)
			assert_ok(criu_restore_abort(job, &err), &err);
		criu_free(job);
		/* A killed task that is still on its way out of the kernel is seen for a moment; a stuck one stays. */
		for (uint64_t deadline = deadline_in_ms(1000); count_workloads() && clock_now_ns() < deadline;)
			sched_yield();
		if (count_workloads())
			fail_msg("killed at %zu.%zu ms, restore said %d, %d tasks are left", i / 2, i % 2 * 5, r,
				 count_workloads());
		workload_end(&w);
	}
}

/* A CRIU that is killed anywhere in a dump leaves the tasks running, and fit for another dump. */
static void test_criu_killed_in_dump(void **state)
{
	int n_early = 0;

	(void)state;
	for (size_t i = 0; i < 60; i++) {
		struct criu_options o = fresh_options();
		struct error err = { 0 };
		struct criu_job *job;
		struct killer killer;
		struct workload w;
		pthread_t thread;

		workload_start(i % 2 ? WORKLOAD_THREADS : WORKLOAD_TREE, MIB, &w);
		job_start(&o, &job);
		killer = (struct killer){ criu_program_pid(job), clock_now_ns() + i * NS_PER_MS / 2 };
		assert_int_equal(pthread_create(&thread, NULL, killer_main, &killer), 0);
		n_early += criu_dump(job, w.pid, -1, &err) < 0;
		pthread_join(thread, NULL);
		criu_free(job);
		if (process_state(w.pid) == 'Z' || !process_state(w.pid))
			fail_msg("killed at %zu.%zu ms: the task is dead", i / 2, i % 2 * 5);
		assert_runs(&w);
		workload_end(&w);
	}
	assert_in_range(n_early, 10, 60);
}

static void test_bad_images(void **state)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	pid_t pid;

	(void)state;
	job_start(&o, &job);
	assert_int_equal(criu_restore(job, -1, &pid, &err), -EIO);
	print_message("# %s\n", err.text);
	assert_non_null(strstr(err.text, "restore the tree: Error ("));
	criu_free(job);
	o.images_directory = "/tmp/not-there";
	assert_int_equal(criu_start(&o, &job, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/tmp/not-there"));
}

static int main_in_world(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_undumpable),
		cmocka_unit_test(test_no_such_process),
		cmocka_unit_test(test_pids_busy),
		cmocka_unit_test(test_cancel_dump),
		cmocka_unit_test(test_cancel_hung_dump),
		cmocka_unit_test(test_cancel_restore),
		cmocka_unit_test(test_criu_killed_holding_dump),
		cmocka_unit_test(test_criu_killed_leaves_lock),
		cmocka_unit_test(test_lock_after_verdict),
		cmocka_unit_test(test_caller_killed_holding_dump),
		cmocka_unit_test(test_criu_killed_holding_restore),
		cmocka_unit_test(test_criu_killed_in_restore),
		cmocka_unit_test(test_criu_killed_in_dump),
		cmocka_unit_test(test_bad_images),
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
