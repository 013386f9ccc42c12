/*
 * Helpers of the tracker's tests: see tracker-helpers.h.
 */
#include "tracker-helpers.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

char *map_pages(uint64_t bytes, int protection, int flags, int fd)
{
	char *area = mmap(NULL, bytes, protection, flags, fd, 0);

	if (area == MAP_FAILED)
		_exit(97);
	return area;
}

int pliable(int fd, void *argument)
{
	int memfd = argument ? *(int *)argument : -1;
	char *area = map_pages(AREA_BYTES, PROT_READ | PROT_WRITE,
			       memfd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, memfd);

	for (size_t i = 0; i < PAGES; i++)
		area[i * PAGE_BYTES] = (char)(i + 1);
	child_send(fd, (uintptr_t)area);
	for (;;) {
		uint64_t order = child_receive(fd), answer = 0;
		char *page = area + (order >> 8) * PAGE_BYTES;

		switch (order & 0xff) {
		case ORDER_WRITE:
			(*page)++;
			break;
		case ORDER_READ:
			answer = (uint64_t) * (volatile char *)page;
			break;
		case ORDER_DONTNEED:
			madvise(page, PAGE_BYTES, MADV_DONTNEED);
			break;
		case ORDER_UNMAP:
			munmap(page, PAGE_BYTES);
			break;
		case ORDER_MAP:
			page = map_pages(AREA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
			memset(page, 7, AREA_BYTES);
			answer = (uintptr_t)page;
			break;
		case ORDER_LOCK:
			answer = (uint64_t)syscall(SYS_mlock, page, PAGE_BYTES);
			break;
		case ORDER_IO_URING:
			answer = (uint64_t)syscall(SYS_io_uring_setup, 1, (char[120]){ 0 });
			break;
		case ORDER_PROTECT_NONE:
			mprotect(page, PAGE_BYTES, PROT_NONE);
			break;
		default:
			return 1;
		}
		child_send(fd, answer);
	}
}

uint64_t order_page(const struct child *c, enum order order, uint64_t page)
{
	return child_ask(c, (uint64_t)order | page << 8);
}

static enum tracker_kind kind_to_test(struct error *err)
{
	const char *name = getenv("PHAUL_TEST_TRACKER");

	if (!name)
		return tracker_probe(err);
	if (!strcmp(name, "write-protect"))
		return TRACKER_WRITE_PROTECT;
	if (!strcmp(name, "soft-dirty"))
		return TRACKER_SOFT_DIRTY;
	error_set(err, EINVAL, "PHAUL_TEST_TRACKER is '%s': expected write-protect or soft-dirty", name);
	return TRACKER_KIND_MAX;
}

struct tracker *new_tracker(void)
{
	struct error err = { 0 };
	struct tracker *t = NULL;

	if (tracker_new(kind_to_test(&err), &t, &err) < 0)
		fail_msg("%s", err.text);
	return t;
}

bool kernel_cannot(void)
{
	struct error err = { 0 };

	if (kind_to_test(&err) != TRACKER_NONE)
		return false;
	printf("1..0 # SKIP %s\n", err.text);
	return true;
}

#define CHILDREN_MAX 64

static void update(struct tracker *t, enum tracker_pass pass, const struct child *children, size_t n)
{
	struct error err = { 0 };
	pid_t pids[CHILDREN_MAX];

	assert_true(n <= ARRAY_SIZE(pids));
	for (size_t i = 0; i < n; i++)
		pids[i] = children[i].pid;
	if (tracker_update(t, pass, pids, pids, n, &err) < 0)
		fail_msg("%s", err.text);
}

struct page_runs collect(struct tracker *t, enum tracker_pass pass, const struct child *children, size_t n)
{
	struct page_runs runs = { 0 };
	struct error err = { 0 };
	uint64_t sum = 0;

	update(t, pass, children, n);
	if (tracker_collect(t, pass, &runs, &err) < 0)
		fail_msg("%s", err.text);
	for (size_t i = 0; i < runs.n_runs; i++) {
		const struct page_run *run = &runs.runs[i], *last = i ? run - 1 : NULL;

		sum += run->pages;
		if (last && last->space == run->space)
			assert_true(last->address + (last->pages << PAGE_SHIFT) <= run->address);
	}
	assert_int_equal(sum, runs.pages);
	return runs;
}

uint64_t reported(const struct page_runs *runs, uint64_t start, uint64_t bytes)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < runs->n_runs; i++) {
		const struct page_run *run = &runs->runs[i];
		uint64_t from = MAX(run->pid_address, start);
		uint64_t to = MIN(run->pid_address + (run->pages << PAGE_SHIFT), start + bytes);

		if (from < to)
			pages += (to - from) >> PAGE_SHIFT;
	}
	return pages;
}

uint64_t collect_reported(struct tracker *t, enum tracker_pass pass, const struct child *c, uint64_t start,
			  uint64_t bytes)
{
	struct page_runs runs = collect(t, pass, c, 1);
	uint64_t pages = reported(&runs, start, bytes);

	page_runs_free(&runs);
	return pages;
}

void stop_child(const struct child *c)
{
	int status;

	kill(c->pid, SIGSTOP);
	assert_int_equal(waitpid(c->pid, &status, WUNTRACED), c->pid);
	assert_true(WIFSTOPPED(status));
}
