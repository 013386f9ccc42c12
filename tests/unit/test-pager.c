/*
 * Tests of the pager with real userfaultfds: a child process plays CRIU's restore and the restored task (pager-task.h).
 *
 * What is checked is always the memory that the task sees, to the last byte, while pages are poured in, mappings
 * change and it forks. What happens when somebody dies is in test-pager-deaths.c.
 */
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/clock.h"
#include "pager-rig.h"

static int compare_latency(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void print_latency(const char *what)
{
	uint64_t n = MIN(rig_shared->latencies, ARRAY_SIZE(rig_shared->latency_ns)), half = n / 2, most = n * 99 / 100;

	qsort(rig_shared->latency_ns, n, sizeof(rig_shared->latency_ns[0]), compare_latency);
	if (n)
		print_message("# %s: %llu faults seen by the task, p50 %.1f us, p99 %.1f us, max %.1f us\n", what,
			      (unsigned long long)n, rig_shared->latency_ns[half] / 1e3,
			      rig_shared->latency_ns[most] / 1e3, rig_shared->latency_ns[n - 1] / 1e3);
}

/* 256 MiB, read at random while they are poured in. */
static void test_random_access(void **state)
{
	struct task t = { .pages = 256 * MIB_PAGES, .body = body_random_access, .seed = 5, .announced = ANNOUNCED };
	struct pager_status status;
	struct rig rig;
	uint64_t full, start;
	bool shrank = false, nice = false;
	pid_t pid;

	(void)state;
	rig_start(&rig, t.pages);
	full = rig_disk_bytes(&rig);
	assert_int_equal(full, rig.data_pages * PAGE_BYTES);
	pid = rig_run_task(&t);
	rig_wait_handshake(1);
	rig_shared->go = 1;
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	start = clock_now_ns();
	while (!(status = rig_status(&rig)).finished) {
		assert_int_equal(status.failed, 0);
		/* The target never holds two copies: what is given away is freed. */
		if (status.pages_copied > rig.data_pages / 2 && status.pages_left > rig.data_pages / 10)
			shrank |= rig_disk_bytes(&rig) < full * 3 / 4;
		/* The fill lets others go first, who may be whom the memory is for. */
		nice |= getpriority(PRIO_PROCESS, (id_t)pager_pid(rig.pager)) > 0;
		assert_true(clock_now_ns() < start + DEADLINE_MS * NS_PER_MS);
		assert_true(pager_wait(rig.pager, deadline_in_ms(3), NULL) >= 0);
	}
	print_message("# %llu MiB in %.0f ms beside a task that faults\n", (unsigned long long)(rig.data_pages >> 8),
		      (double)(clock_now_ns() - start) / 1e6);
	rig_wait_pager(&rig);
	rig_wait_task(pid);
	print_latency("while filling");
	assert_true((shrank && nice) || test_slowdown() > 1); /* then nobody may have looked at the right time */
	assert_int_equal(status.pages_copied, rig.data_pages);
	assert_int_equal(status.pages_left, 0);
	assert_true(status.connected && status.faults > 0 && status.fault_ns_max > 0);
	assert_int_equal(status.replaced, 0);
	assert_int_equal(rig_disk_bytes(&rig), 0);
	rig_end(&rig);
}

/* Before the release nothing is poured in; faults are served all the same. */
static void test_faults_only(void **state)
{
	struct task t = { .pages = 32 * MIB_PAGES, .body = body_random_access, .seed = 6, .announced = ANNOUNCED };
	struct rig rig;
	pid_t pid;

	(void)state;
	pid = rig_begin(&rig, &t);
	rig_shared->go = 1;
	rig_wait_task(pid);
	print_latency("before the fill");
	assert_int_equal(rig_status(&rig).pages_copied, rig.data_pages);
	assert_true(rig_status(&rig).faults >= rig.data_pages);
	assert_false(rig_status(&rig).finished);
	/* Who waits for a page waits for nobody else. */
	assert_int_equal(getpriority(PRIO_PROCESS, (id_t)pager_pid(rig.pager)), -10);
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	rig_wait_pager(&rig);
	rig_end(&rig);
}

/* While the task is still held, all of its memory gets there; nothing ends before the release. */
static void test_fill_held(void **state)
{
	struct task t = { .pages = 64 * MIB_PAGES, .body = body_check, .announced = ANNOUNCED };
	uint64_t deadline = deadline_in_ms(DEADLINE_MS);
	struct rig rig;
	pid_t pid;

	(void)state;
	pid = rig_begin(&rig, &t);
	assert_int_equal(pager_wait(rig.pager, deadline_in_ms(50), NULL), 0);
	assert_int_equal(rig_status(&rig).pages_copied, 0);
	pager_fill(rig.pager);
	while (rig_status(&rig).pages_copied < rig.data_pages)
		assert_true(clock_now_ns() < deadline);
	assert_int_equal(pager_wait(rig.pager, deadline_in_ms(50), NULL), 0);
	assert_int_equal(rig_status(&rig).faults, 0);
	rig_shared->go = 1;
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	rig_wait_pager(&rig);
	rig_wait_task(pid);
	rig_end(&rig);
}

#define BUSY_PAGES (64 * MIB_PAGES)

static bool far_and_scattered(uint64_t page)
{
	return page >= BUSY_PAGES * 3 / 4 && page % 8 == 3;
}

/* Scattered pages at the end of the memory are there before the rest, which nobody waits for. */
static void test_busy_first(void **state)
{
	struct task t = { .pages = BUSY_PAGES, .body = body_resident, .announced = ANNOUNCED };
	uint64_t busy = 0, others = 0, deadline = deadline_in_ms(DEADLINE_MS);
	struct rig rig;
	pid_t pid;

	(void)state;
	rig_start_busy(&rig, t.pages, far_and_scattered);
	for (uint64_t i = 0; i < t.pages; i++)
		busy += far_and_scattered(i) && !page_zero(i);
	pid = rig_run_task(&t);
	rig_wait_handshake(1);
	rig_shared->go = 1;
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	while (rig_status(&rig).pages_copied < busy)
		assert_true(clock_now_ns() < deadline);
	kill(rig_wait_pid(&rig), SIGSTOP);
	rig_shared->stop = 1;
	while (!rig_shared->operations)
		assert_true(clock_now_ns() < deadline);
	for (uint64_t i = 0; i < t.pages; i++) {
		if (far_and_scattered(i) && !page_zero(i))
			assert_true(rig_shared->resident[i] & 1);
		others += !far_and_scattered(i) && rig_shared->resident[i] & 1;
	}
	print_message("# %llu pages were there, then %llu others\n", (unsigned long long)busy,
		      (unsigned long long)others);
	kill(rig_wait_pid(&rig), SIGCONT);
	rig_wait_pager(&rig);
	rig_wait_task(pid);
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
	pid = rig_begin(&rig, &t);
	start = clock_now_ns();
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	rig_wait_pager(&rig);
	start = clock_now_ns() - start;
	print_message("# fill alone: %llu MiB in %.0f ms, %.2f GB/s\n", (unsigned long long)(rig.data_pages >> 8),
		      (double)start / 1e6, (double)(rig.data_pages * PAGE_BYTES) / (double)start);
	assert_int_equal(rig_status(&rig).pages_copied, rig.data_pages);
	rig_shared->go = 1;
	rig_wait_task(pid);
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

		pid = rig_begin(&rig, &t);
		rig_shared->go = 1;
		while (rig_shared->operations < 100 * round && !waitpid(pid, NULL, WNOHANG | WNOWAIT))
			sched_yield();
		assert_int_equal(pager_release(rig.pager, NULL), 0);
		rig_wait_pager(&rig);
		rig_shared->stop = 1;
		rig_wait_task(pid);
		assert_int_equal(rig_status(&rig).pages_left, 0);
		assert_int_equal(rig_disk_bytes(&rig), 0);
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

		pid = rig_begin(&rig, &t);
		rig_shared->go = 1;
		/* Some faults are answered before anything is poured in. */
		while (rig_shared->operations < 100 && !waitpid(pid, NULL, WNOHANG | WNOWAIT))
			sched_yield();
		assert_int_equal(pager_release(rig.pager, NULL), 0);
		rig_wait_pager(&rig);
		moves += rig_shared->operations;
		rig_shared->stop = 1;
		rig_wait_task(pid);
		assert_int_equal(rig_status(&rig).pages_copied, rig.data_pages);
		rig_end(&rig);
	}
	print_message("# %llu moves\n", (unsigned long long)moves);
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
	pid = rig_begin(&rig, &t);
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	rig_wait_pager(&rig);
	assert_true(rig_status(&rig).pages_copied < rig.data_pages / 2);
	rig_shared->go = 1;
	rig_wait_task(pid);
	rig_end(&rig);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults_only),   cmocka_unit_test(test_fill_held),
		cmocka_unit_test(test_busy_first),    cmocka_unit_test(test_fill_speed),
		cmocka_unit_test(test_random_access), cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_moves),	      cmocka_unit_test(test_superset),
	};

	/* The supervisor is this program again. */
	if (argc == 3 && !strcmp(argv[1], "pager"))
		return pager_main(atoi(argv[2]));
	return cmocka_run_group_tests(tests, rig_group_setup, rig_group_teardown);
}
