/*
 * The tracker where processes do special things: a userfaultfd of their own, execve(2), direct I/O, io_uring, huge pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "child.h"
#include "memory/kernel-api.h"
#include "tracker-helpers.h"

/* Its own userfaultfd on one range: that one counts as written each time, the rest is tracked, and somebody is told; unless
 * tracking needs no userfaultfd. */
static int faulting(int fd, void *argument)
{
	char *area = map_pages(AREA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .range = { (uintptr_t)area, AREA_BYTES / 2 },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };

	(void)argument;
	memset(area, 1, AREA_BYTES);
	if (ioctl(uffd, UFFDIO_API, &api) < 0 || ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
		return 1;
	child_send(fd, (uintptr_t)area);
	child_receive(fd);
	return 0;
}

static void test_foreign_userfaultfd(void **state)
{
	struct child c = child_start(faulting, NULL);
	struct tracker *t = new_tracker();
	uint64_t area = child_receive(c.fd);
	bool conflict = tracker_kind_of(t) == TRACKER_WRITE_PROTECT;
	struct error why = { 0 };

	(void)state;
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), PAGES);
	assert_int_equal(tracker_untracked(t, &why), conflict);
	if (conflict)
		assert_non_null(strstr(why.text, "userfaultfd"));
	for (int i = 0; i < 2; i++)
		assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), conflict ? PAGES / 2 : 0);
	tracker_free(t);
	child_end(&c);
}

/* execve(2) gives the process other memory: same space, everything reported again, then tracked again. */
static int executes(int fd, void *argument)
{
	(void)argument;
	child_send(fd, 1);
	child_receive(fd);
	execl("/bin/sleep", "sleep", "100", (char *)NULL);
	return 1;
}

static bool sleeps_as(pid_t pid, const char *name_and_state)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	return !fd_read_file(AT_FDCWD, path, 4096, &text) && strstr((char *)text.data, name_and_state);
}

static void test_execve(void **state)
{
	struct child c = child_start(executes, NULL);
	struct tracker *t = new_tracker();
	uint64_t deadline = deadline_in_ms(5000);
	struct page_runs runs;

	(void)state;
	child_receive(c.fd);
	runs = collect(t, TRACKER_ROUND, &c, 1);
	page_runs_free(&runs);
	child_send(c.fd, 1);
	while (!sleeps_as(c.pid, "(sleep) S") && clock_now_ns() < deadline)
		continue;
	runs = collect(t, TRACKER_ROUND, &c, 1);
	assert_true(runs.pages > 10);
	assert_int_equal(runs.runs[0].space, 1);
	page_runs_free(&runs);
	assert_int_equal(tracker_untracked(t, NULL), 0);
	runs = collect(t, TRACKER_ROUND, &c, 1);
	assert_true(runs.pages < 10);
	page_runs_free(&runs);
	tracker_free(t);
	child_end(&c);
}

/* A descriptor with O_DIRECT, or an AIO ring where the file system has no such: what was written stays dirty for the window, and goes at the end. */
static int direct(int fd, void *argument)
{
	int file = open(argument, O_RDONLY | O_DIRECT | O_CLOEXEC);

	aio_context_t ring = 0;

	if (file < 0 && (errno != EINVAL || syscall(SYS_io_setup, 1, &ring)))
		return 1;
	return pliable(fd, NULL);
}

static void test_direct_io_window(void **state)
{
	char path[] = "/var/tmp/phaul-test-XXXXXX";
	int file = mkostemp(path, O_CLOEXEC);
	struct child c = child_start(direct, path);
	struct tracker *t = new_tracker();
	uint64_t area = child_receive(c.fd), deadline;

	(void)state;
	assert_true(file >= 0);
	unlink(path);
	close(file);
	assert_false(tracker_uses_io_uring(c.pid));
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), PAGES);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), PAGES);
	deadline = deadline_in_ms(8000);
	while (collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES) && clock_now_ns() < deadline)
		usleep(100000);
	assert_true(clock_now_ns() < deadline);
	order_page(&c, ORDER_WRITE, 5);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), 1);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, &c, area, AREA_BYTES), 1);
	stop_child(&c);
	assert_int_equal(collect_reported(t, TRACKER_FINAL, &c, area, AREA_BYTES), 1);
	tracker_free(t);
	child_end(&c);
}

static void test_io_uring_is_seen(void **state)
{
	struct child c = child_start(pliable, NULL);

	(void)state;
	child_receive(c.fd);
	assert_false(tracker_uses_io_uring(c.pid));
	if ((int)order_page(&c, ORDER_IO_URING, 0) < 0) {
		child_end(&c);
		print_message("# not tested: no io_uring here\n");
		return;
	}
	assert_true(tracker_uses_io_uring(c.pid));
	child_end(&c);
}

/* Huge pages of a private mapping: reported 2 MiB at a time (soft-dirty: once, CRIU's images have the rest), not lazy, readable. */
#define HUGE_BYTES (2UL << 20)

static int huge(int fd, void *argument)
{
	char *area =
		mmap(NULL, 2 * HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	(void)argument;
	if (area == MAP_FAILED) {
		child_send(fd, 0);
		return 0;
	}
	memset(area, 1, 2 * HUGE_BYTES);
	child_send(fd, (uintptr_t)area);
	child_receive(fd);
	area[HUGE_BYTES + 5] = 2;
	child_send(fd, 0);
	child_receive(fd);
	return 0;
}

static int set_huge_pages(const char *text)
{
	_cleanup_close_ int fd = open("/proc/sys/vm/nr_hugepages", O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd_write_full(fd, text, strlen(text));
}

static void check_huge_pages(struct tracker *t, const struct child *c, uint64_t area)
{
	_cleanup_range_set_ struct range_set present = { 0 };
	struct range second = { area + HUGE_BYTES, area + 2 * HUGE_BYTES };
	char *data = malloc(HUGE_BYTES);
	struct error err = { 0 };

	assert_int_equal(collect_reported(t, TRACKER_ROUND, c, area, 2 * HUGE_BYTES), 1024);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, c, area, 2 * HUGE_BYTES), 0);
	child_ask(c, 1);
	assert_int_equal(collect_reported(t, TRACKER_ROUND, c, second.start, HUGE_BYTES),
			 tracker_kind_of(t) == TRACKER_SOFT_DIRTY ? 0 : 512);
	assert_int_equal(reader_read(c->pid, &second, 1, data, NULL, &err), 0);
	assert_true(data[4] == 1 && data[5] == 2);
	stop_child(c);
	assert_int_equal(collect_reported(t, TRACKER_FINAL, c, area, 2 * HUGE_BYTES), 0);
	assert_int_equal(tracker_untracked(t, NULL), 0);
	assert_int_equal(tracker_present(t, 1, &present, &err), 0);
	assert_false(range_set_contains(&present, area));
	free(data);
}

static void test_huge_pages(void **state)
{
	_cleanup_buffer_ struct buffer before = { 0 };
	struct child c;
	uint64_t area;

	(void)state;
	assert_int_equal(fd_read_file(AT_FDCWD, "/proc/sys/vm/nr_hugepages", 100, &before), 0);
	if (!strtoul((char *)before.data, NULL, 10))
		set_huge_pages("4");
	c = child_start(huge, NULL);
	area = child_receive(c.fd);
	if (area) {
		struct tracker *t = new_tracker();

		check_huge_pages(t, &c, area);
		tracker_free(t);
	}
	child_end(&c);
	set_huge_pages((char *)before.data);
	if (!area)
		print_message("# not tested: no huge pages to be had\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_foreign_userfaultfd), cmocka_unit_test(test_execve),
		cmocka_unit_test(test_direct_io_window),    cmocka_unit_test(test_io_uring_is_seen),
		cmocka_unit_test(test_huge_pages),
	};

	if (kernel_cannot())
		return 0;
	return cmocka_run_group_tests_name("tracker-special", tests, NULL, NULL);
}
