/*
 * Tests of the pager with real userfaultfds: a child process plays CRIU's restore and the restored task (pager-task.h).
 *
 * What is checked is always the memory that the task sees, to the last byte, while pages are poured in, mappings
 * change, it forks, and the pager is killed.
 * Longer than other files because all scenarios share one rig.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "memory/pager.h"
#include "pager-task.h"
#include "slowdown.h"

/* Fewer where the machine is slow: the sizes below are MiB elsewhere. */
#define MIB_PAGES (256ULL / test_slowdown())
#define DEADLINE_MS 20000

static char directory[64], socket_path[128];
static struct task_shared *shared;

struct rig {
	struct store *store;
	struct range_set present;
	struct pager *pager;
	uint64_t data_pages;
};

static void rig_fill_store(struct rig *rig, uint32_t space, uint64_t pages)
{
	static uint64_t page[PAGE_BYTES / 8];

	rig->data_pages = 0;
	range_set_free(&rig->present);
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t at = REGION + i * PAGE_BYTES;

		if (!page_present(i))
			continue;
		assert_int_equal(range_set_add(&rig->present, at, at + PAGE_BYTES), 0);
		for (uint64_t w = 0; w < PAGE_BYTES / 8; w++)
			page[w] = page_word(i, w);
		if (page_zero(i))
			assert_int_equal(store_put_zero(rig->store, space, at, 1, NULL), 0);
		else
			assert_int_equal(
				store_put(rig->store, space, at, 1, ENCODING_RAW, (uint8_t *)page, PAGE_BYTES, NULL),
				0);
		rig->data_pages += !page_zero(i);
	}
	assert_int_equal(store_apply_present(rig->store, space, &rig->present, NULL), 0);
}

/* The pager listens before the task exists, so its pid is chosen: 77. */
#define ANNOUNCED 77

static void rig_start(struct rig *rig, uint64_t pages)
{
	struct pager_space space = { .space = 1, .image_pid = ANNOUNCED, .present = &rig->present };
	struct error err = { 0 };

	memset((void *)shared, 0, sizeof(*shared));
	*rig = (struct rig){ 0 };
	assert_int_equal(store_new(0, &rig->store, NULL), 0);
	rig_fill_store(rig, 1, pages);
	space.store_fd = store_fd(rig->store, 1);
	if (pager_start(socket_path, &space, 1, &rig->pager, &err) < 0)
		fail_msg("%s", err.text);
}

static void rig_end(struct rig *rig)
{
	pager_free(rig->pager);
	store_free(rig->store);
	range_set_free(&rig->present);
}

static uint64_t store_disk_bytes(struct rig *rig)
{
	struct stat st;

	assert_int_equal(fstat(store_fd(rig->store, 1), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static pid_t run_task(struct task *t)
{
	t->shared = shared;
	t->socket_path = socket_path;
	return task_start(t);
}

static void wait_handshake(uint32_t n)
{
	uint64_t deadline = deadline_in_ms(DEADLINE_MS);

	while (shared->handshaken < n) {
		assert_true(clock_now_ns() < deadline);
		sched_yield();
	}
}

static bool process_ended(pid_t pid)
{
	_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 || fd_wait(fd, POLLIN, deadline_in_ms(DEADLINE_MS)) == 1;
}

static void wait_task(pid_t pid)
{
	int status;

	/* One that waits for a page which never comes has to fail the test, not stop it. */
	if (!process_ended(pid)) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		fail_msg("the task hangs");
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), TASK_OK);
}

static void wait_pager(struct rig *rig)
{
	struct error err = { 0 };
	int r = pager_wait(rig->pager, deadline_in_ms(DEADLINE_MS), &err);

	if (r != 1)
		fail_msg("pager_wait: %d %s", r, err.text);
}

static struct pager_status status_of(struct rig *rig)
{
	struct pager_status status;

	assert_int_equal(pager_status(rig->pager, &status, NULL), 0);
	return status;
}

static int compare_latency(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void print_latency(const char *what)
{
	uint64_t n = MIN(shared->latencies, ARRAY_SIZE(shared->latency_ns));

	qsort(shared->latency_ns, n, sizeof(shared->latency_ns[0]), compare_latency);
	if (n)
		print_message("# %s: %llu faults seen by the task, p50 %.1f us, p99 %.1f us, max %.1f us\n", what,
			      (unsigned long long)n, shared->latency_ns[n / 2] / 1e3,
			      shared->latency_ns[n * 99 / 100] / 1e3, shared->latency_ns[n - 1] / 1e3);
}

/* 256 MiB, read at random while they are poured in. */
static void test_random_access(void **state)
{
	struct task t = { .pages = 256 * MIB_PAGES, .body = body_random_access, .seed = 5, .announced = ANNOUNCED };
	struct pager_status status;
	struct rig rig;
	uint64_t full, start;
	bool shrank = false;
	pid_t pid;

	(void)state;
	rig_start(&rig, t.pages);
	full = store_disk_bytes(&rig);
	assert_int_equal(full, rig.data_pages * PAGE_BYTES);
	pid = run_task(&t);
	wait_handshake(1);
	shared->go = 1;
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	start = clock_now_ns();
	while (!(status = status_of(&rig)).finished) {
		assert_int_equal(status.failed, 0);
		/* The target never holds two copies: what is given away is freed. */
		if (status.pages_copied > rig.data_pages / 2 && status.pages_left > rig.data_pages / 10)
			shrank |= store_disk_bytes(&rig) < full * 3 / 4;
		assert_true(clock_now_ns() < start + DEADLINE_MS * NS_PER_MS);
		assert_true(pager_wait(rig.pager, deadline_in_ms(3), NULL) >= 0);
	}
	print_message("# %llu MiB in %.0f ms beside a task that faults\n", (unsigned long long)(rig.data_pages >> 8),
		      (double)(clock_now_ns() - start) / 1e6);
	wait_pager(&rig);
	wait_task(pid);
	print_latency("while filling");
	assert_true(shrank);
	assert_int_equal(status.pages_copied, rig.data_pages);
	assert_int_equal(status.pages_left, 0);
	assert_true(status.connected && status.faults > 0 && status.fault_ns_max > 0);
	assert_int_equal(status.replaced, 0);
	assert_int_equal(store_disk_bytes(&rig), 0);
	rig_end(&rig);
}

/* Before the release nothing is poured in; faults are served all the same. */
static void test_faults_only(void **state)
{
	struct task t = { .pages = 32 * MIB_PAGES, .body = body_random_access, .seed = 6, .announced = ANNOUNCED };
	struct rig rig;
	pid_t pid;

	(void)state;
	rig_start(&rig, t.pages);
	pid = run_task(&t);
	wait_handshake(1);
	shared->go = 1;
	wait_task(pid);
	print_latency("before the fill");
	assert_int_equal(status_of(&rig).pages_copied, rig.data_pages);
	assert_true(status_of(&rig).faults >= rig.data_pages);
	assert_false(status_of(&rig).finished);
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	wait_pager(&rig);
	rig_end(&rig);
}

/* Nobody faults: how fast the fill is. */
static void test_fill_speed(void **state)
{
	struct task t = { .pages = 512 * MIB_PAGES, .body = body_check, .announced = ANNOUNCED };
	struct rig rig;
	uint64_t start;
	pid_t pid;

	(void)state;
	rig_start(&rig, t.pages);
	pid = run_task(&t);
	wait_handshake(1);
	start = clock_now_ns();
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	wait_pager(&rig);
	start = clock_now_ns() - start;
	print_message("# fill alone: %llu MiB in %.0f ms, %.2f GB/s\n", (unsigned long long)(rig.data_pages >> 8),
		      (double)start / 1e6, (double)(rig.data_pages * PAGE_BYTES) / (double)start);
	assert_int_equal(status_of(&rig).pages_copied, rig.data_pages);
	shared->go = 1;
	wait_task(pid);
	rig_end(&rig);
}

/* The task remaps, discards, unmaps and forks, first while only faults are served and then during the fill. */
static void test_mutations(void **state)
{
	(void)state;
	for (uint64_t round = 0; round < 4; round++) {
		struct task t = {
			.pages = 64 * MIB_PAGES, .body = body_mutate, .seed = 99 + round, .announced = ANNOUNCED
		};
		struct rig rig;
		pid_t pid;

		rig_start(&rig, t.pages);
		pid = run_task(&t);
		wait_handshake(1);
		shared->go = 1;
		while (shared->operations < 100 * round && !waitpid(pid, NULL, WNOHANG | WNOWAIT))
			sched_yield();
		assert_int_equal(pager_release(rig.pager, NULL), 0);
		wait_pager(&rig);
		shared->stop = 1;
		wait_task(pid);
		assert_int_equal(status_of(&rig).pages_left, 0);
		assert_int_equal(store_disk_bytes(&rig), 0);
		rig_end(&rig);
	}
}

/* Copies that meet mremap(2) in the middle say ENOENT; the page must not be given up for that. */
static void test_moves(void **state)
{
	uint64_t moves = 0;

	(void)state;
	for (uint64_t round = 0; round < 4; round++) {
		struct task t = {
			.pages = 64 * MIB_PAGES, .body = body_move, .seed = 31 + round, .announced = ANNOUNCED
		};
		struct rig rig;
		pid_t pid;

		rig_start(&rig, t.pages);
		pid = run_task(&t);
		wait_handshake(1);
		shared->go = 1;
		/* Some faults are answered before anything is poured in. */
		while (shared->operations < 100 && !waitpid(pid, NULL, WNOHANG | WNOWAIT))
			sched_yield();
		assert_int_equal(pager_release(rig.pager, NULL), 0);
		wait_pager(&rig);
		moves += shared->operations;
		shared->stop = 1;
		wait_task(pid);
		assert_int_equal(status_of(&rig).pages_copied, rig.data_pages);
		rig_end(&rig);
	}
	print_message("# %llu moves\n", (unsigned long long)moves);
}

static uint64_t progress_of(struct rig *rig)
{
	struct pager_status status = status_of(rig);

	return status.pages_copied + status.pages_zero + status.faults;
}

/* Ends the pager when a successor of the last one is up, after a random while, or once it has done something: too many in
 * a row that die before are a failure, and rightly so. */
static bool kill_pager(struct rig *rig, uint64_t *seed, pid_t *last, bool at_work)
{
	uint64_t before = progress_of(rig);
	struct timespec pause = { .tv_nsec = (long)(random_next(seed) % 2500000) };
	uint64_t deadline = deadline_in_ms(DEADLINE_MS);

	while (pager_pid(rig->pager) == *last && !status_of(rig).finished) {
		assert_true(clock_now_ns() < deadline);
		sched_yield();
	}
	while (at_work && progress_of(rig) == before && !status_of(rig).finished) {
		assert_true(clock_now_ns() < deadline);
		sched_yield();
	}
	ppoll(NULL, 0, &pause, NULL);
	if (status_of(rig).finished)
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
	pid = run_task(&t);
	shared->go = 1;
	for (int kills = 0; kills < KILLS; kills++) {
		/* The first ones hit the handshake and the faults, most of them the fill. */
		if (kills == 8) {
			wait_handshake(1);
			assert_int_equal(pager_release(rig.pager, NULL), 0);
		}
		assert_true(kill_pager(&rig, &seed, &last, kills >= 8 && kills % 3 == 0));
	}
	assert_false(status_of(&rig).finished);
	wait_pager(&rig);
	shared->stop = 1;
	wait_task(pid);
	assert_int_equal(status_of(&rig).replaced, KILLS);
	assert_int_equal(status_of(&rig).pages_left, 0);
	print_message("# %d kills, %llu operations of the task\n", KILLS, (unsigned long long)shared->operations);
	rig_end(&rig);
}

static pid_t parent_of(pid_t pid)
{
	char path[64], line[256];
	_cleanup_fclose_ FILE *f = NULL;
	int parent = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "PPid: %d", &parent) == 1)
			break;
	return parent;
}

static pid_t wait_pager_pid(struct rig *rig)
{
	uint64_t deadline = deadline_in_ms(DEADLINE_MS);

	while (!pager_pid(rig->pager)) {
		assert_true(clock_now_ns() < deadline);
		sched_yield();
	}
	return pager_pid(rig->pager);
}

/* The restore is given up: both processes end, and nothing is left on the path. */
static void test_abort(void **state)
{
	struct rig rig;
	pid_t pager, supervisor;

	(void)state;
	rig_start(&rig, MIB_PAGES);
	pager = wait_pager_pid(&rig);
	supervisor = parent_of(pager);
	assert_true(supervisor > 1);
	rig_end(&rig);
	assert_true(process_ended(pager));
	assert_true(process_ended(supervisor));
	assert_int_equal(access(socket_path, F_OK), -1);
}

/* The supervisor is killed in the middle: the pager goes on alone. */
static void test_supervisor_killed(void **state)
{
	struct task t = { .pages = 64 * MIB_PAGES, .body = body_mutate, .seed = 3, .announced = ANNOUNCED };
	struct rig rig;
	pid_t pid;

	(void)state;
	rig_start(&rig, t.pages);
	pid = run_task(&t);
	wait_handshake(1);
	assert_int_equal(kill(parent_of(wait_pager_pid(&rig)), SIGKILL), 0);
	shared->go = 1;
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	wait_pager(&rig);
	shared->stop = 1;
	wait_task(pid);
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

	memset((void *)shared, 0, sizeof(*shared));
	assert_int_equal(pipe2(pids[0], O_CLOEXEC), 0);
	assert_int_equal(pipe2(pids[1], O_CLOEXEC), 0);
	worker = fork();
	if (!worker) {
		struct rig rig;

		rig_start(&rig, t.pages);
		pager = wait_pager_pid(&rig);
		if (fd_write_full(pids[0][1], &pager, sizeof(pager)) < 0 || fd_read_full(pids[1][0], &byte, 1) < 0)
			_exit(1);
		if (released && pager_release(rig.pager, NULL) < 0)
			_exit(1);
		raise(SIGKILL);
	}
	assert_int_equal(fd_read_full(pids[0][0], &pager, sizeof(pager)), 0);
	supervisor = parent_of(pager);
	pid = run_task(&t);
	wait_handshake(1);
	assert_int_equal(fd_write_full(pids[1][1], "g", 1), 0);
	assert_int_equal(waitpid(worker, &status, 0), worker);
	assert_true(WIFSIGNALED(status));
	if (released) {
		shared->go = 1;
		wait_task(pid);
	} else {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	assert_true(process_ended(pager));
	assert_true(process_ended(supervisor));
	for (int i = 0; i < 4; i++)
		close(pids[i / 2][i % 2]);
}

static void test_worker_gone(void **state)
{
	(void)state;
	worker_goes(true);
	worker_goes(false);
}

/* The present map says more than CRIU registered: what has no place is skipped, and the fill ends. */
static void test_superset(void **state)
{
	struct task t = {
		.pages = 32 * MIB_PAGES, .registered = 10 * MIB_PAGES + 77, .body = body_check, .announced = ANNOUNCED
	};
	struct rig rig;
	pid_t pid;

	(void)state;
	rig_start(&rig, t.pages);
	pid = run_task(&t);
	wait_handshake(1);
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	wait_pager(&rig);
	assert_true(status_of(&rig).pages_copied < rig.data_pages / 2);
	shared->go = 1;
	wait_task(pid);
	rig_end(&rig);
}

/* The task dies in the middle of the fill: that is an end like another. */
static void test_task_dies(void **state)
{
	struct task t = { .pages = 256 * MIB_PAGES, .body = body_check, .announced = ANNOUNCED };
	struct rig rig;
	pid_t pid;

	(void)state;
	rig_start(&rig, t.pages);
	pid = run_task(&t);
	wait_handshake(1);
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	wait_pager(&rig);
	assert_int_equal(store_disk_bytes(&rig), 0);
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
	pid = run_task(&t);
	assert_int_equal(pager_wait(rig.pager, deadline_in_ms(DEADLINE_MS), &err), -ENOENT);
	assert_non_null(strstr(err.text, "process 78"));
	assert_int_equal(status_of(&rig).failed, ENOENT);
	assert_false(status_of(&rig).connected);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	rig_end(&rig);
}

static int group_setup(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/phaul-test-pager-XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/lazy-pages.socket", directory);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED ? -1 : 0;
}

static int group_teardown(void **state)
{
	(void)state;
	return dir_remove(directory);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults_only),
		cmocka_unit_test(test_fill_speed),
		cmocka_unit_test(test_random_access),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_superset),
		cmocka_unit_test(test_task_dies),
		cmocka_unit_test(test_worker_gone),
		cmocka_unit_test(test_supervisor_killed),
		cmocka_unit_test(test_unknown_process),
	};

	/* The supervisor is this program again. */
	if (argc == 3 && !strcmp(argv[1], "pager"))
		return pager_main(atoi(argv[2]));
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
