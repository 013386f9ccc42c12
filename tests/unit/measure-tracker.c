/*
 * Measures the tracker and the reader; prints one line per figure. Not a test: run it by hand on a quiet machine.
 *
 *     build/tests/unit/measure-tracker [GiB]
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "child.h"
#include "memory/tracker.h"

static uint64_t area_bytes = 1ULL << 30;

struct shared {
	_Atomic uint64_t gap_ns; /* the longest time between two steps of the child */
	_Atomic uint64_t touch_ns;
	char *_Atomic area;
};

static struct shared *shared;

/* Order 1: write every page once; 2: watch the clock and touch a page now and then, until 3 comes. */
static int subject(int fd, void *argument)
{
	char *area = mmap(NULL, area_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)argument;
	for (uint64_t i = 0; i < area_bytes; i += 8)
		*(uint64_t *)(area + i) = i * 0x9e3779b97f4a7c15ULL;
	shared->area = area;
	child_send(fd, (uintptr_t)area);
	for (;;) {
		uint64_t order = child_receive(fd), begin = clock_now_ns(), last = begin;
		unsigned int seed = 1;

		if (!order)
			return 0;
		if (order == 1) {
			for (uint64_t i = 0; i < area_bytes; i += PAGE_BYTES)
				area[i]++;
			shared->touch_ns = clock_now_ns() - begin;
			child_send(fd, 0);
			continue;
		}
		shared->gap_ns = 0;
		child_send(fd, 0);
		while (shared->gap_ns != UINT64_MAX) {
			uint64_t now;

			area[(uint64_t)rand_r(&seed) % (area_bytes >> PAGE_SHIFT) << PAGE_SHIFT]++;
			now = clock_now_ns();
			if (now - last > shared->gap_ns && shared->gap_ns != UINT64_MAX)
				shared->gap_ns = now - last;
			last = now;
		}
		child_send(fd, 0);
	}
}

static uint64_t end_watch(const struct child *c)
{
	uint64_t gap = shared->gap_ns;

	shared->gap_ns = UINT64_MAX;
	child_receive(c->fd);
	return gap;
}

static double ms_since(uint64_t begin_ns)
{
	return (double)(clock_now_ns() - begin_ns) / 1e6;
}

static void die(const struct error *err)
{
	fprintf(stderr, "%s\n", err->text);
	_exit(1);
}

static struct page_runs timed_pass(struct tracker *t, enum tracker_pass pass, pid_t pid, const char *what)
{
	struct page_runs runs = { 0 };
	struct error err = { 0 };
	uint64_t begin = clock_now_ns();
	double update_ms;

	if (tracker_update(t, pass, &pid, &pid, 1, &err) < 0)
		die(&err);
	update_ms = ms_since(begin);
	begin = clock_now_ns();
	if (tracker_collect(t, pass, &runs, &err) < 0)
		die(&err);
	printf("%-34s update %7.2f ms, scan %7.2f ms, %lu pages in %zu runs\n", what, update_ms, ms_since(begin),
	       (unsigned long)runs.pages, runs.n_runs);
	return runs;
}

static void measure_reading(pid_t pid, const struct page_runs *runs)
{
	enum { BATCH = 256 };
	static char data[BATCH * PAGE_BYTES];
	struct range ranges[BATCH];
	struct error err = { 0 };
	uint64_t area = (uintptr_t)shared->area, begin, bytes = 0;

	memset(data, 1, sizeof(data));
	begin = clock_now_ns();
	for (size_t i = 0; i < runs->n_runs; i++)
		for (uint64_t done = 0; done < runs->runs[i].pages; done += BATCH) {
			uint64_t n = MIN(runs->runs[i].pages - done, (uint64_t)BATCH);
			uint64_t at = runs->runs[i].pid_address + done * PAGE_BYTES;

			ranges[0] = (struct range){ at, at + n * PAGE_BYTES };
			if (reader_read(pid, ranges, 1, data, NULL, &err) < 0)
				die(&err);
			bytes += n * PAGE_BYTES;
		}
	printf("%-34s %.2f GB/s\n", "reading in pieces of 1 MiB", (double)bytes / (ms_since(begin) * 1e6));
	begin = clock_now_ns();
	for (uint64_t at = 0; at < area_bytes; at += 2 * BATCH * PAGE_BYTES) {
		for (uint64_t i = 0; i < BATCH; i++)
			ranges[i] =
				(struct range){ area + at + 2 * i * PAGE_BYTES, area + at + (2 * i + 1) * PAGE_BYTES };
		if (reader_read(pid, ranges, BATCH, data, NULL, &err) < 0)
			die(&err);
	}
	printf("%-34s %.2f GB/s\n", "reading every other page", (double)area_bytes / 2 / (ms_since(begin) * 1e6));
}

static void touch(const struct child *c, const char *what)
{
	child_ask(c, 1);
	printf("%-34s %.0f ns per page\n", what, (double)shared->touch_ns / (double)(area_bytes >> PAGE_SHIFT));
}

static int idle(int fd, void *argument)
{
	(void)argument;
	/* Not the ends of the children before it: the last of them would have a hundred. */
	dup2(fd, 3);
	close_range(4, ~0U, 0);
	fd = 3;
	child_send(fd, 1);
	return (int)child_receive(fd);
}

/* A tree of small processes that wait. */
static void measure_attaching(void)
{
	enum { N = 64 };
	struct child children[N];
	struct tracker *t = NULL;
	struct error err = { 0 };
	pid_t pids[N];
	uint64_t begin;

	for (int i = 0; i < N; i++) {
		children[i] = child_start(idle, NULL);
		child_receive(children[i].fd);
		pids[i] = children[i].pid;
	}
	if (tracker_new(TRACKER_AUTO, &t, &err) < 0)
		die(&err);
	for (int i = 0; i < 3; i++) {
		static const char *const what[] = { "attaching 64 processes", "update of 64 known processes",
						    "final update of 64 processes" };
		struct page_runs runs = { 0 };

		begin = clock_now_ns();
		if (tracker_update(t, i < 2 ? TRACKER_ROUND : TRACKER_FINAL, pids, pids, N, &err) < 0)
			die(&err);
		printf("%-34s %.0f us each, ", what[i], ms_since(begin) * 1e3 / N);
		begin = clock_now_ns();
		if (tracker_collect(t, i < 2 ? TRACKER_ROUND : TRACKER_FINAL, &runs, &err) < 0)
			die(&err);
		printf("scan %.0f us each, %lu pages\n", ms_since(begin) * 1e3 / N, (unsigned long)runs.pages);
		page_runs_free(&runs);
	}
	tracker_free(t);
	for (int i = 0; i < N; i++)
		child_end(&children[i]);
}

int main(int argc, char **argv)
{
	struct tracker *t = NULL;
	struct error err = { 0 };
	struct page_runs runs;
	struct child c;
	uint64_t begin;
	int status;

	if (argc > 1)
		area_bytes = strtoull(argv[1], NULL, 10) << 30;
	fd_reserve_table(); /* as phaul does, before there are threads */
	shared = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	measure_attaching();
	c = child_start(subject, NULL);
	child_receive(c.fd);
	touch(&c, "write, not tracked");
	if (tracker_new(TRACKER_AUTO, &t, &err) < 0)
		die(&err);
	runs = timed_pass(t, TRACKER_ROUND, c.pid, "first round (attaches)");
	measure_reading(c.pid, &runs);
	page_runs_free(&runs);
	runs = timed_pass(t, TRACKER_ROUND, c.pid, "round, nothing written");
	page_runs_free(&runs);
	touch(&c, "write, each page protected");
	touch(&c, "write, none protected any more");
	runs = timed_pass(t, TRACKER_ROUND, c.pid, "round, everything written");
	page_runs_free(&runs);
	child_ask(&c, 2);
	for (int i = 0; i < 3; i++) {
		runs = timed_pass(t, TRACKER_ROUND, c.pid, "round, random writes");
		page_runs_free(&runs);
	}
	printf("%-34s %.2f ms\n", "longest stall in those rounds", (double)end_watch(&c) / 1e6);
	kill(c.pid, SIGSTOP);
	waitpid(c.pid, &status, WUNTRACED);
	runs = timed_pass(t, TRACKER_FINAL, c.pid, "final pass");
	page_runs_free(&runs);
	kill(c.pid, SIGCONT);
	child_ask(&c, 2);
	begin = clock_now_ns();
	tracker_free(t);
	printf("%-34s %.2f ms", "letting go", ms_since(begin));
	printf(", longest stall of the process %.2f ms\n", (double)end_watch(&c) / 1e6);
	child_ask(&c, 2);
	usleep(100000);
	printf("%-34s %.2f ms\n", "longest stall with nobody around", (double)end_watch(&c) / 1e6);
	child_end(&c);
	return 0;
}
