/*
 * The tracker against real child processes: what is reported, what is not, and what the present map says.
 * Each test starts its own children; nothing outside them is touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "child.h"
#include "tracker-helpers.h"

/* All at first, nothing when nothing was written, exactly the page that was; the final pass arms nothing. */
static void test_reports_what_is_written(void **state)
{
	struct child c = child_start(pliable, NULL);
	struct tracker *t = new_tracker();
	uint64_t area = child_receive(c.fd);

	(void)state;
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), PAGES);
	assert_int_equal(tracker_untracked(t, NULL), 0);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), 0);
	order_page(&c, ORDER_WRITE, 5);
	order_page(&c, ORDER_READ, 6);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area + 5 * PAGE_BYTES, PAGE_BYTES), 1);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), 0);
	order_page(&c, ORDER_WRITE, 9);
	stop_child(&c);
	for (int i = 0; i < 2; i++)
		assert_int_equal(collect_reported(t, TRACKER_FINAL, &c, area, AREA_BYTES), 1);
	tracker_free(t);
	child_end(&c);
}

/* Untouched gigabytes are neither reported nor paid for, and stay so. */
static int spacious(int fd, void *argument)
{
	char *area = map_pages(4ULL << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);

	(void)argument;
	madvise(area, 4ULL << 30, MADV_NOHUGEPAGE); /* one page shall be one */
	child_send(fd, (uintptr_t)area);
	child_receive(fd);
	area[1ULL << 30] = 1;
	child_send(fd, 0);
	child_receive(fd);
	return 0;
}

static uint64_t page_table_kib(pid_t pid)
{
	char line[256], path[64];
	uint64_t kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "VmPTE: %lu", &kib);
	fclose(f);
	return kib;
}

static void test_untouched_costs_nothing(void **state)
{
	struct child c = child_start(spacious, NULL);
	struct tracker *t = new_tracker();
	uint64_t area = child_receive(c.fd), before = page_table_kib(c.pid), begin;

	(void)state;
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, 4ULL << 30), 0);
	begin = clock_now_ns();
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, 4ULL << 30), 0);
	print_message("# a round over 4 GiB that were never touched: %.0f us\n",
		      (double)(clock_now_ns() - begin) / 1e3);
	assert_true(page_table_kib(c.pid) <= before + 8);
	child_ask(&c, 1);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, 4ULL << 30), 1);
	tracker_free(t);
	child_end(&c);
}

/* Memory without permissions, new mappings, pages given back, and the present map at the end. */
static void test_mappings_change(void **state)
{
	struct child c = child_start(pliable, NULL);
	struct tracker *t = new_tracker();
	uint64_t area = child_receive(c.fd), fresh;
	_cleanup_range_set_ struct range_set present = { 0 };
	const struct space *spaces;
	struct error err = { 0 };

	(void)state;
	order_page(&c, ORDER_PROTECT_NONE, 3);
	assert_int_equal(order_page(&c, ORDER_LOCK, 20), 0);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), PAGES);
	assert_int_equal(tracker_present(t, 1, &present, &err), -EINVAL);
	fresh = order_page(&c, ORDER_MAP, 0);
	order_page(&c, ORDER_UNMAP, 10);
	order_page(&c, ORDER_DONTNEED, 11);
	order_page(&c, ORDER_DONTNEED, 12);
	order_page(&c, ORDER_READ, 12); /* the zero page */
	order_page(&c, ORDER_DONTNEED, 13);
	order_page(&c, ORDER_WRITE, 13);
	{
		struct page_runs runs = collect(t, TRACKER_ROUND, &c, 1);

		assert_int_equal(reported(&runs, fresh, AREA_BYTES), PAGES);
		assert_int_equal(reported(&runs, area + 11 * PAGE_BYTES, 2 * PAGE_BYTES), 0);
		assert_int_equal(reported(&runs, area + 13 * PAGE_BYTES, PAGE_BYTES), 1);
		/* Soft-dirty: others come again when the new mapping has become one with theirs. */
		if (tracker_kind_of(t) != TRACKER_SOFT_DIRTY)
			assert_int_equal(reported(&runs, area, AREA_BYTES), 1);
		page_runs_free(&runs);
	}
	stop_child(&c);
	assert_int_equal(collect_reported(t, TRACKER_FINAL, &c, area, AREA_BYTES), 0);
	assert_int_equal(tracker_spaces(t, &spaces), 1);
	assert_int_equal(spaces[0].kind, SPACE_PROCESS);
	assert_int_equal(tracker_present(t, spaces[0].id, &present, &err), 0);
	for (uint64_t i = 0; i < PAGES; i++) {
		assert_int_equal(range_set_contains(&present, area + i * PAGE_BYTES), (i < 10 || i > 12) && i != 20);
		assert_true(range_set_contains(&present, fresh + i * PAGE_BYTES));
	}
	assert_true(range_array_valid(present.ranges, present.n_ranges, PAGE_BYTES));
	tracker_free(t);
	child_end(&c);
}

/* Two processes map one memfd at different addresses: one space, each page in one run, whoever wrote. */
static void test_shared_memory_is_one(void **state)
{
	int memfd = memfd_create("shared", MFD_CLOEXEC);
	struct child c[2];
	struct tracker *t = new_tracker();
	struct page_runs runs;
	const struct space *spaces;
	uint32_t shared = 0;

	(void)state;
	assert_int_equal(ftruncate(memfd, AREA_BYTES), 0);
	for (int i = 0; i < 2; i++) {
		c[i] = child_start(pliable, &memfd);
		child_receive(c[i].fd);
	}
	runs = collect(t, TRACKER_ROUND, c, 2);
	for (size_t i = tracker_spaces(t, &spaces); i-- > 0;)
		if (spaces[i].kind == SPACE_SHARED) {
			assert_int_equal(shared, 0);
			shared = spaces[i].id;
		}
	assert_int_not_equal(shared, 0);
	assert_int_equal(runs.runs[runs.n_runs - 1].space, shared);
	assert_int_equal(runs.runs[runs.n_runs - 1].pages, PAGES);
	assert_int_equal(runs.runs[runs.n_runs - 1].address, 0);
	page_runs_free(&runs);
	order_page(&c[0], ORDER_WRITE, 7);
	order_page(&c[1], ORDER_WRITE, 7);
	order_page(&c[1], ORDER_WRITE, 8);
	runs = collect(t, TRACKER_ROUND, c, 2);
	{
		uint64_t pages = 0;

		for (size_t i = 0; i < runs.n_runs; i++)
			if (runs.runs[i].space == shared) {
				assert_true(runs.runs[i].address >= 7 * PAGE_BYTES);
				pages += runs.runs[i].pages;
			}
		assert_int_equal(pages, 2);
	}
	page_runs_free(&runs);
	tracker_free(t);
	child_end(&c[0]);
	child_end(&c[1]);
	close(memfd);
}

/* A private mapping of a file: only the pages the process made its own. */
static int file_mapper(int fd, void *argument)
{
	char *area = mmap(NULL, AREA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, *(int *)argument, 0);
	volatile char sum = 0;

	for (size_t i = 0; i < PAGES; i++)
		sum = (char)(sum + area[i * PAGE_BYTES]);
	area[4 * PAGE_BYTES] = 9;
	child_send(fd, (uintptr_t)area);
	child_receive(fd);
	area[5 * PAGE_BYTES] = 9;
	child_send(fd, 0);
	child_receive(fd);
	return 0;
}

static void test_private_file_pages(void **state)
{
	char path[] = "/var/tmp/phaul-test-XXXXXX";
	int file = mkostemp(path, O_CLOEXEC);
	_cleanup_range_set_ struct range_set present = { 0 };
	struct tracker *t = new_tracker();
	struct error err = { 0 };
	struct child c;
	uint64_t area;

	(void)state;
	assert_true(file >= 0);
	unlink(path);
	assert_int_equal(ftruncate(file, AREA_BYTES), 0);
	c = child_start(file_mapper, &file);
	area = child_receive(c.fd);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), 1);
	child_ask(&c, 1);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area + 5 * PAGE_BYTES, PAGE_BYTES), 1);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), 0);
	stop_child(&c);
	assert_int_equal(collect_reported(t, TRACKER_FINAL, &c, area, AREA_BYTES), 0);
	assert_int_equal(tracker_present(t, 1, &present, &err), 0);
	assert_false(range_set_contains(&present, area + 4 * PAGE_BYTES)); /* not lazy in CRIU */
	tracker_free(t);
	child_end(&c);
	close(file);
}

/* Processes that come late, end, or are named though they have ended. */
static void test_processes_come_and_go(void **state)
{
	struct child c[3] = { child_start(pliable, NULL), child_start(pliable, NULL), child_start(pliable, NULL) };
	struct tracker *t = new_tracker();
	const struct space *spaces;
	struct page_runs runs;
	uint64_t area[3];

	(void)state;
	for (int i = 0; i < 3; i++)
		area[i] = child_receive(c[i].fd);
	runs = collect(t, TRACKER_ROUND, c, 2);
	page_runs_free(&runs);
	assert_int_equal(tracker_spaces(t, &spaces), 2);
	kill(c[0].pid, SIGKILL); /* a zombie now, still named */
	assert_int_equal(waitid(P_PID, (id_t)c[0].pid, &(siginfo_t){ 0 }, WEXITED | WNOWAIT), 0);
	runs = collect(t, TRACKER_FINAL, c, 3);
	assert_int_equal(reported(&runs, area[2], AREA_BYTES), PAGES);
	page_runs_free(&runs);
	assert_int_equal(tracker_spaces(t, &spaces), 2);
	assert_int_equal(spaces[0].id, 2);
	assert_true(spaces[1].id >= 3); /* on some kernels the zombie got an id before it was found to be one */
	assert_int_equal(tracker_untracked(t, NULL), 0);
	tracker_free(t);
	for (int i = 0; i < 3; i++)
		child_end(&c[i]);
}

/* Many at once, which are attached side by side: each is tracked by itself, and the one that has ended harms nobody. */
static void test_many_at_once(void **state)
{
	enum { N = 24, ENDED = 7 };
	struct tracker *t = new_tracker();
	struct child c[N];
	struct page_runs runs;
	uint64_t area[N];

	(void)state;
	for (int i = 0; i < N; i++) {
		c[i] = child_start(pliable, NULL);
		area[i] = child_receive(c[i].fd);
	}
	kill(c[ENDED].pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)c[ENDED].pid, &(siginfo_t){ 0 }, WEXITED | WNOWAIT), 0);
	runs = collect(t, TRACKER_ROUND, c, N);
	page_runs_free(&runs);
	assert_int_equal(tracker_untracked(t, NULL), 0);
	for (int i = 0; i < N; i++)
		if (i != ENDED)
			order_page(&c[i], ORDER_WRITE, (uint64_t)i);
	runs = collect(t, TRACKER_ROUND, c, N);
	for (int i = 0; i < N; i++) {
		uint64_t in_area = 0, written = 0;

		for (size_t k = 0; k < runs.n_runs; k++) {
			const struct page_run *run = &runs.runs[k];

			if (run->pid != c[i].pid || run->address < area[i] || run->address >= area[i] + AREA_BYTES)
				continue;
			in_area += run->pages;
			written += run->address == area[i] + (uint64_t)i * PAGE_BYTES;
		}
		assert_int_equal(in_area, i == ENDED ? 0 : 1);
		assert_int_equal(written, i == ENDED ? 0 : 1);
	}
	page_runs_free(&runs);
	tracker_free(t);
	for (int i = 0; i < N; i++)
		child_end(&c[i]);
}

/* Whole page tables are moved by mremap(2) onto memory that was tracked before; nothing is written. */
#define MOVED_BYTES (4ULL << 20)
#define TABLE_BYTES (2ULL << 20)

static int mover(int fd, void *argument)
{
	char *area = map_pages(4 * MOVED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1), *to, *from;

	(void)argument;
	madvise(area, 4 * MOVED_BYTES, MADV_NOHUGEPAGE);
	to = (char *)(((uintptr_t)area + TABLE_BYTES - 1) & ~(TABLE_BYTES - 1));
	from = to + 2 * MOVED_BYTES;
	memset(to, 1, MOVED_BYTES);
	memset(from, 2, MOVED_BYTES);
	child_send(fd, (uintptr_t)to);
	child_receive(fd);
	if (mremap(from, MOVED_BYTES, MOVED_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return 1;
	child_send(fd, 0);
	child_receive(fd);
	return 0;
}

static void test_moved_onto_tracked(void **state)
{
	struct child c = child_start(mover, NULL);
	struct tracker *t = new_tracker();
	uint64_t area = child_receive(c.fd);

	(void)state;
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, MOVED_BYTES), MOVED_BYTES / PAGE_BYTES);
	for (int i = 0; i < 2; i++)
		assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, 4 * MOVED_BYTES - TABLE_BYTES), 0);
	child_ask(&c, 1);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, MOVED_BYTES), MOVED_BYTES / PAGE_BYTES);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, MOVED_BYTES), 0);
	tracker_free(t);
	child_end(&c);
}

/* Private memory in the place of shared memory, between an update and its collect: all of it is new. */
static int replacer(int fd, void *argument)
{
	char *area = map_pages(AREA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);

	(void)argument;
	memset(area, 1, AREA_BYTES);
	child_send(fd, (uintptr_t)area);
	child_receive(fd);
	if (mmap(area, AREA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != area)
		return 1;
	memset(area, 2, AREA_BYTES);
	child_send(fd, 0);
	child_receive(fd);
	return 0;
}

static void test_private_replaces_shared(void **state)
{
	struct child c = child_start(replacer, NULL);
	struct tracker *t = new_tracker();
	uint64_t area = child_receive(c.fd), private_pages = 0;
	struct error err = { 0 };
	struct page_runs runs;

	(void)state;
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), PAGES);
	assert_int_equal(tracker_update(t, TRACKER_ROUND, &c.pid, &c.pid, 1, &err), 0);
	child_ask(&c, 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(tracker_collect(t, TRACKER_ROUND, &runs, &err), 0);
		for (size_t k = 0; k < runs.n_runs; k++)
			if (runs.runs[k].space == 1 && runs.runs[k].address >= area &&
			    runs.runs[k].address < area + AREA_BYTES)
				private_pages += runs.runs[k].pages;
		page_runs_free(&runs);
		assert_int_equal(tracker_update(t, TRACKER_ROUND, &c.pid, &c.pid, 1, &err), 0);
	}
	assert_int_equal(private_pages, PAGES);
	tracker_free(t);
	child_end(&c);
}

static void test_none_reports_everything(void **state)
{
	struct child c = child_start(pliable, NULL);
	uint64_t area = child_receive(c.fd);
	struct tracker *t = NULL;
	struct error err = { 0 };

	(void)state;
	assert_int_equal(tracker_new(TRACKER_NONE, &t, &err), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), PAGES);
	assert_int_equal(tracker_untracked(t, &err), 1);
	tracker_free(t);
	child_end(&c);
}

static void test_probe_is_honest(void **state)
{
	struct error err = { 0 };
	enum tracker_kind kind = tracker_probe(&err);
	struct tracker *t = NULL;

	(void)state;
	assert_true(kind > TRACKER_AUTO && kind < TRACKER_KIND_MAX);
	if (kind == TRACKER_NONE)
		assert_true(strlen(err.text) > 20);
	assert_int_equal(tracker_new(TRACKER_AUTO, &t, &err), 0);
	assert_int_equal(tracker_kind_of(t), kind);
	tracker_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probe_is_honest),		cmocka_unit_test(test_reports_what_is_written),
		cmocka_unit_test(test_untouched_costs_nothing), cmocka_unit_test(test_mappings_change),
		cmocka_unit_test(test_shared_memory_is_one),	cmocka_unit_test(test_private_file_pages),
		cmocka_unit_test(test_moved_onto_tracked),	cmocka_unit_test(test_private_replaces_shared),
		cmocka_unit_test(test_processes_come_and_go),	cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_none_reports_everything),
	};

	if (kernel_cannot())
		return 0;
	return cmocka_run_group_tests_name("tracker", tests, NULL, NULL);
}
