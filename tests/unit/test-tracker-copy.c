/*
 * A whole pre-copy in miniature: a child whose threads write, map, unmap, move, protect and give back memory and fork, is
 * copied round by round into a sparse file (offset = address, like the store); then it is stopped, and after the final
 * pass every page of the present map must be in the file with the very bytes the child has, and every page of its
 * private anonymous memory outside the present map must be zero.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "child.h"
#include "memory/maps.h"
#include "memory/tracker.h"
#include "slowdown.h"

#define ARENA_PAGES (8192ULL / test_slowdown()) /* 1024 at least: two huge pages */
#define SLOTS 16
#define PASSES 13
#define SLOT_PAGES 64ULL
#define BATCH_PAGES 1024

static char *arena; /* ARENA_PAGES, huge pages welcome: written only */
static char *slots; /* SLOTS * SLOT_PAGES: mapped and unmapped, moved and protected */

static void stamp(char *page, uint64_t value)
{
	*(volatile uint64_t *)page = value;
	*(volatile uint64_t *)(page + 2048) = ~value;
}

static void *write_arena(void *argument)
{
	unsigned int seed = (unsigned int)(uintptr_t)argument;

	for (uint64_t i = 0;; i++)
		stamp(arena + ((uint64_t)rand_r(&seed) % ARENA_PAGES) * PAGE_BYTES, i ^ (uint64_t)seed << 32);
	return NULL;
}

static void map_slot(char *slot)
{
	if (mmap(slot, SLOT_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) != slot)
		_exit(1);
}

static void change_slot(unsigned int *seed)
{
	char *slot = slots + ((uint64_t)rand_r(seed) % SLOTS) * SLOT_PAGES * PAGE_BYTES;
	char *other = slots + ((uint64_t)rand_r(seed) % SLOTS) * SLOT_PAGES * PAGE_BYTES;
	uint64_t first = (uint64_t)rand_r(seed) % SLOT_PAGES, n = (uint64_t)rand_r(seed) % (SLOT_PAGES - first) + 1;
	uint64_t bytes = SLOT_PAGES * PAGE_BYTES;

	switch (rand_r(seed) % 8) {
	case 0:
		munmap(slot, bytes);
		map_slot(slot);
		break;
	case 1:
		madvise(slot + first * PAGE_BYTES, n * PAGE_BYTES, MADV_DONTNEED);
		break;
	case 2:
		if (slot != other && mremap(slot, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, other) == other)
			map_slot(slot);
		break;
	case 3:
		mprotect(slot + first * PAGE_BYTES, n * PAGE_BYTES, PROT_READ);
		mprotect(slot + first * PAGE_BYTES, n * PAGE_BYTES, PROT_READ | PROT_WRITE);
		break;
	case 4:
		(void)*(volatile char *)(slot + first * PAGE_BYTES);
		break;
	default:
		for (uint64_t i = 0; i < n; i++)
			stamp(slot + (first + i) * PAGE_BYTES, (uint64_t)rand_r(seed) << 32 | (uint64_t)rand_r(seed));
	}
}

static int restless(int fd, void *argument)
{
	unsigned int seed = (unsigned int)(uintptr_t)argument;
	pthread_t thread;

	arena = mmap(NULL, ARENA_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	slots = mmap(NULL, SLOTS * SLOT_PAGES * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(arena, ARENA_PAGES * PAGE_BYTES, MADV_HUGEPAGE);
	for (uint64_t i = 0; i < SLOTS; i++)
		map_slot(slots + i * SLOT_PAGES * PAGE_BYTES);
	if (pthread_create(&thread, NULL, write_arena, argument))
		return 1;
	child_send(fd, 1);
	for (;;) {
		for (int i = 0; i < 200; i++)
			change_slot(&seed);
		if (rand_r(&seed) % 8 == 0) {
			pid_t pid = fork();

			if (!pid)
				_exit(0);
			waitpid(pid, NULL, 0);
		}
		usleep(500);
	}
}

/* Reads the runs of one space into the file; pages that went away become zero, as the next pass will say. */
static void copy_runs(const struct page_runs *runs, int store)
{
	static char data[BATCH_PAGES * PAGE_BYTES];

	for (size_t i = 0; i < runs->n_runs; i++)
		for (uint64_t done = 0; done < runs->runs[i].pages;) {
			const struct page_run *run = &runs->runs[i];
			uint64_t n = MIN(run->pages - done, (uint64_t)BATCH_PAGES);
			struct range range = { run->pid_address + done * PAGE_BYTES,
					       run->pid_address + (done + n) * PAGE_BYTES };
			struct error err = { 0 };

			if (reader_read(run->pid, &range, 1, data, NULL, &err) < 0)
				fail_msg("%s", err.text);
			assert_int_equal(pwrite(store, data, n * PAGE_BYTES, (off_t)(run->address + done * PAGE_BYTES)),
					 (ssize_t)(n * PAGE_BYTES));
			done += n;
		}
}

static void pass(struct tracker *t, enum tracker_pass which, pid_t pid, int store)
{
	struct page_runs runs = { 0 };
	struct error err = { 0 };

	if (tracker_update(t, which, &pid, &pid, 1, &err) < 0 || tracker_collect(t, which, &runs, &err) < 0)
		fail_msg("%s", err.text);
	copy_runs(&runs, store);
	page_runs_free(&runs);
}

static void compare_page(pid_t pid, uint64_t at, bool present, int store)
{
	static const char zeros[PAGE_BYTES];
	char theirs[PAGE_BYTES], ours[PAGE_BYTES] = { 0 };
	struct range range = { at, at + PAGE_BYTES };
	struct error err = { 0 };

	if (reader_read(pid, &range, 1, theirs, NULL, &err) != 0)
		return; /* nothing there can be read (a guard): the restored process cannot either */
	if (present)
		assert_true(pread(store, ours, PAGE_BYTES, (off_t)at) >= 0);
	if (memcmp(theirs, present ? ours : zeros, PAGE_BYTES) != 0)
		fail_msg("page %lx, %s the present map, is not what the process has", (unsigned long)at,
			 present ? "in" : "outside");
}

static uint64_t compare_all(struct tracker *t, pid_t pid, int store)
{
	_cleanup_range_set_ struct range_set present = { 0 };
	_cleanup_maps_ struct maps maps = { 0 };
	struct error err = { 0 };
	uint64_t compared = 0;

	assert_int_equal(tracker_present(t, 1, &present, &err), 0);
	assert_int_equal(maps_read(pid, &maps, &err), 0);
	for (size_t i = 0; i < maps.n_maps; i++) {
		const struct map *map = &maps.maps[i];

		if (map->name != MAP_NAME_NONE || map->shared || map->end - map->start > (64UL << 20))
			continue;
		for (uint64_t at = map->start; at < map->end; at += PAGE_BYTES, compared++)
			compare_page(pid, at, range_set_contains(&present, at), store);
	}
	return compared;
}

static void copy_and_compare(enum tracker_kind kind, unsigned int seed)
{
	int store = memfd_create("store", MFD_CLOEXEC), status;
	struct child c = child_start(restless, (void *)(uintptr_t)seed);
	struct tracker *t = NULL;
	int passes = kind == TRACKER_NONE ? 3 : PASSES; /* each of them copies all then */
	uint64_t begin, compared;
	struct error err = { 0 };

	if (tracker_new(kind, &t, &err) < 0)
		fail_msg("%s", err.text);
	child_receive(c.fd);
	begin = clock_now_ns();
	for (int i = 1; i < passes; i++)
		pass(t, TRACKER_ROUND, c.pid, store);
	if (kind != TRACKER_NONE)
		assert_int_equal(tracker_untracked(t, NULL), 0);
	kill(c.pid, SIGSTOP);
	assert_int_equal(waitpid(c.pid, &status, WUNTRACED), c.pid);
	pass(t, TRACKER_FINAL, c.pid, store);
	begin = clock_now_ns() - begin;
	compared = compare_all(t, c.pid, store);
	print_message("# %d passes in %.0f ms, %lu pages compared\n", passes, (double)begin / 1e6,
		      (unsigned long)compared);
	assert_true(compared > ARENA_PAGES);
	tracker_free(t);
	child_end(&c);
	close(store);
}

static bool available(enum tracker_kind kind)
{
	struct tracker *t = NULL;
	struct error err = { 0 };

	if (tracker_new(kind, &t, &err) < 0) {
		print_message("# not tested: %s\n", err.text);
		return false;
	}
	tracker_free(t);
	return true;
}

static void test_write_protect(void **state)
{
	(void)state;
	if (!available(TRACKER_WRITE_PROTECT))
		return;
	for (unsigned int seed = 1; seed <= 6; seed++)
		copy_and_compare(TRACKER_WRITE_PROTECT, seed);
}

static void test_soft_dirty(void **state)
{
	(void)state;
	if (!available(TRACKER_SOFT_DIRTY))
		return;
	for (unsigned int seed = 1; seed <= (test_slowdown() > 1 ? 2 : 3); seed++)
		copy_and_compare(TRACKER_SOFT_DIRTY, seed);
}

static void test_none(void **state)
{
	(void)state;
	copy_and_compare(TRACKER_NONE, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write_protect),
		cmocka_unit_test(test_soft_dirty),
		cmocka_unit_test(test_none),
	};

	return cmocka_run_group_tests_name("tracker-copy", tests, NULL, NULL);
}
