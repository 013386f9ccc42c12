/*
 * Tests of the pager, its supervisor, their parent and the task when one of them dies or fails (test-pager.c has the rest).
 *
 * Whatever happens to the pager, the task goes on with the right memory or not at all, and no process is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "pager-rig.h"

static uint64_t progress_of(struct rig *rig)
{
	struct pager_status status = rig_status(rig);

	return status.pages_copied + status.pages_zero + status.faults;
}

/* Ends the pager when a successor of the last one is up, after a random while, or once it has done something: too many in
 * a row that die before are a failure, and rightly so. */
static bool kill_pager(struct rig *rig, uint64_t *seed, pid_t *last, bool at_work)
{
	uint64_t before = progress_of(rig);
	struct timespec pause = { .tv_nsec = (long)(random_next(seed) % 2500000) };
	uint64_t deadline = deadline_in_ms(DEADLINE_MS);

	while (pager_pid(rig->pager) == *last && !rig_status(rig).finished) {
		assert_true(clock_now_ns() < deadline);
		sched_yield();
	}
	while (at_work && progress_of(rig) == before && !rig_status(rig).finished) {
		assert_true(clock_now_ns() < deadline);
		sched_yield();
	}
	ppoll(NULL, 0, &pause, NULL);
	if (rig_status(rig).finished)
		return false;
	*last = pager_pid(rig->pager);
	return !kill(*last, SIGKILL);
}

#define KILLS (test_slowdown() > 1 ? 25 : 50)

static void test_killed(void **state)
{
	struct task t = { .pages = 512 * MIB_PAGES, .body = body_mutate, .seed = 7, .announced = ANNOUNCED };
	uint64_t seed = 4242;
	pid_t pid, last = 0;
	struct rig rig;

	(void)state;
	rig_start(&rig, t.pages);
	pid = rig_run_task(&t);
	rig_shared->go = 1;
	for (int kills = 0; kills < KILLS; kills++) {
		/* The first ones hit the handshake and the faults, most of them the fill. */
		if (kills == 8) {
			rig_wait_handshake(1);
			assert_int_equal(pager_release(rig.pager, NULL), 0);
		}
		assert_true(kill_pager(&rig, &seed, &last, kills >= 8 && kills % 3 == 0));
	}
	assert_false(rig_status(&rig).finished);
	rig_wait_pager(&rig);
	rig_shared->stop = 1;
	rig_wait_task(pid);
	assert_int_equal(rig_status(&rig).replaced, KILLS);
	assert_int_equal(rig_status(&rig).pages_left, 0);
	print_message("# %d kills, %llu operations of the task\n", KILLS, (unsigned long long)rig_shared->operations);
	rig_end(&rig);
}

static pid_t only_child(void)
{
	char path[64], text[64] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	return atoi(text);
}

/* Prepared in vain: it ends without a word. Killed before it is started: a sentence says so. */
static void test_prepared(void **state)
{
	struct error err = { 0 };
	struct pager *p = NULL;
	pid_t supervisor;

	(void)state;
	assert_int_equal(pager_prepare(rig_socket_path, &p, &err), 0);
	supervisor = only_child();
	assert_int_equal(access(rig_socket_path, F_OK), 0);
	pager_free(p);
	assert_true(rig_process_ended(supervisor));
	assert_int_equal(access(rig_socket_path, F_OK), -1);
	assert_int_equal(pager_prepare(rig_socket_path, &p, &err), 0);
	supervisor = only_child();
	assert_int_equal(kill(supervisor, SIGKILL), 0);
	assert_true(pager_start(p, NULL, 0, &err) < 0);
	assert_non_null(strstr(err.text, "pager"));
	pager_free(p);
	assert_true(rig_process_ended(supervisor));
}

/* The restore is given up: both processes end, and nothing is left on the path. */
static void test_abort(void **state)
{
	struct rig rig;
	pid_t pager, supervisor;

	(void)state;
	rig_start(&rig, MIB_PAGES);
	pager = rig_wait_pid(&rig);
	supervisor = rig_parent_of(pager);
	assert_true(supervisor > 1);
	rig_end(&rig);
	assert_true(rig_process_ended(pager));
	assert_true(rig_process_ended(supervisor));
	assert_int_equal(access(rig_socket_path, F_OK), -1);
}

/* The supervisor is killed in the middle: the pager goes on alone. */
static void test_supervisor_killed(void **state)
{
	struct task t = { .pages = 64 * MIB_PAGES, .body = body_mutate, .seed = 3, .announced = ANNOUNCED };
	struct rig rig;
	pid_t pid;

	(void)state;
	pid = rig_begin(&rig, &t);
	assert_int_equal(kill(rig_parent_of(rig_wait_pid(&rig)), SIGKILL), 0);
	rig_shared->go = 1;
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	rig_wait_pager(&rig);
	rig_shared->stop = 1;
	rig_wait_task(pid);
	rig_end(&rig);
}

/* A worker in a process of its own, which goes away: after the release the task gets all its pages, before it the
 * pager ends. */
static void worker_goes(bool released)
{
	struct task t = { .pages = 64 * MIB_PAGES, .body = body_random_access, .seed = 8, .announced = ANNOUNCED };
	int pids[2][2], status;
	pid_t worker, pid, pager, supervisor;
	char byte;

	memset((void *)rig_shared, 0, sizeof(*rig_shared));
	assert_int_equal(pipe2(pids[0], O_CLOEXEC), 0);
	assert_int_equal(pipe2(pids[1], O_CLOEXEC), 0);
	worker = fork();
	if (!worker) {
		struct rig rig;

		rig_start(&rig, t.pages);
		pager = rig_wait_pid(&rig);
		if (fd_write_full(pids[0][1], &pager, sizeof(pager)) < 0 || fd_read_full(pids[1][0], &byte, 1) < 0)
			_exit(1);
		if (released && pager_release(rig.pager, NULL) < 0)
			_exit(1);
		raise(SIGKILL);
	}
	assert_int_equal(fd_read_full(pids[0][0], &pager, sizeof(pager)), 0);
	supervisor = rig_parent_of(pager);
	pid = rig_run_task(&t);
	rig_wait_handshake(1);
	assert_int_equal(fd_write_full(pids[1][1], "g", 1), 0);
	assert_int_equal(waitpid(worker, &status, 0), worker);
	assert_true(WIFSIGNALED(status));
	if (released) {
		rig_shared->go = 1;
		rig_wait_task(pid);
	} else {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	assert_true(rig_process_ended(pager));
	assert_true(rig_process_ended(supervisor));
	for (int i = 0; i < 4; i++)
		close(pids[i / 2][i % 2]);
}

static void test_worker_gone(void **state)
{
	(void)state;
	worker_goes(true);
	worker_goes(false);
}

/* The task dies in the middle of the fill: that is an end like another. */
static void test_task_dies(void **state)
{
	struct task t = { .pages = 256 * MIB_PAGES, .body = body_check, .announced = ANNOUNCED };
	struct rig rig;
	pid_t pid;

	(void)state;
	pid = rig_begin(&rig, &t);
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	rig_wait_pager(&rig);
	assert_int_equal(rig_disk_bytes(&rig), 0);
	rig_end(&rig);
}

/* A process that nobody sent memory for must not run on zeros: the pager fails before the tasks are released. */
static void test_unknown_process(void **state)
{
	struct task t = { .pages = MIB_PAGES, .body = body_check, .announced = 78 };
	struct error err = { 0 };
	struct rig rig;
	pid_t pid;

	(void)state;
	rig_start(&rig, t.pages);
	pid = rig_run_task(&t);
	assert_int_equal(pager_wait(rig.pager, deadline_in_ms(DEADLINE_MS), &err), -ENOENT);
	assert_non_null(strstr(err.text, "process 78"));
	assert_int_equal(rig_status(&rig).failed, ENOENT);
	assert_false(rig_status(&rig).connected);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	rig_end(&rig);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed),		cmocka_unit_test(test_prepared),
		cmocka_unit_test(test_abort),		cmocka_unit_test(test_task_dies),
		cmocka_unit_test(test_worker_gone),	cmocka_unit_test(test_supervisor_killed),
		cmocka_unit_test(test_unknown_process),
	};

	/* The supervisor is this program again. */
	if (argc == 3 && !strcmp(argv[1], "pager"))
		return pager_main(atoi(argv[2]));
	return cmocka_run_group_tests(tests, rig_group_setup, rig_group_teardown);
}
