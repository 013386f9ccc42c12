/*
 * The tracker beside a process that moves its mappings about: what it asks the kernel for must never fail because it is tracked.
 * mremap(2) wants one mapping, so a registration or its end must not cut one in two.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "child.h"
#include "tracker-helpers.h"

#define REGION_PAGES_MIN 16
#define REGION_PAGES_MAX 96
#define NEIGHBOURS 8
#define LARGE_BYTES (24UL << 20)
#define RUN_MS 2000

/* Of the child, seen by its parent. */
struct tally {
	uint64_t steps, failures;
	int error; /* of the last failure */
};

struct mover {
	char *region;
	size_t pages;
	uint64_t random;
	char *neighbours[NEIGHBOURS];
	size_t neighbour_pages[NEIGHBOURS];
};

static uint64_t next_random(struct mover *m)
{
	m->random = m->random * 6364136223846793005ULL + 1442695040888963407ULL;
	return m->random >> 33;
}

static char *map_anonymous(size_t pages, int protection)
{
	return mmap(NULL, pages * PAGE_BYTES, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* Grows, shrinks, moves; 0 or an errno. */
static int remap(struct mover *m)
{
	size_t pages = REGION_PAGES_MIN + next_random(m) % (REGION_PAGES_MAX - REGION_PAGES_MIN);
	bool moves = next_random(m) & 1;
	char *place = moves ? map_anonymous(pages, PROT_NONE) : NULL;
	char *region = mremap(m->region, m->pages * PAGE_BYTES, pages * PAGE_BYTES,
			      MREMAP_MAYMOVE | (moves ? MREMAP_FIXED : 0), place);

	if (region == MAP_FAILED) {
		int r = errno;

		if (moves)
			munmap(place, pages * PAGE_BYTES);
		return r;
	}
	m->region = region;
	m->pages = pages;
	for (size_t i = 0; i < pages; i += 7)
		region[i * PAGE_BYTES] = 1;
	return 0;
}

static void replace_neighbour(struct mover *m)
{
	size_t i = next_random(m) % NEIGHBOURS;

	if (m->neighbours[i])
		munmap(m->neighbours[i], m->neighbour_pages[i] * PAGE_BYTES);
	m->neighbour_pages[i] = 1 + next_random(m) % REGION_PAGES_MAX;
	m->neighbours[i] = map_anonymous(m->neighbour_pages[i], PROT_READ | PROT_WRITE);
	m->neighbours[i][0] = 1;
}

static int moves_about(int fd, void *argument)
{
	volatile struct tally *tally = argument;
	struct mover m = { .pages = REGION_PAGES_MIN, .random = (uint64_t)getpid() };

	m.region = map_anonymous(m.pages, PROT_READ | PROT_WRITE);
	child_send(fd, 0);
	for (;;) {
		int r = remap(&m);

		if (r) {
			tally->error = r;
			tally->failures++;
		}
		replace_neighbour(&m);
		tally->steps++;
	}
}

/* A large region, longer and shorter by a page all the time. */
static int breathes(int fd, void *argument)
{
	volatile struct tally *tally = argument;
	char *region = map_anonymous(LARGE_BYTES / PAGE_BYTES, PROT_READ | PROT_WRITE);
	size_t bytes = LARGE_BYTES;

	memset(region, 1, bytes);
	child_send(fd, 0);
	for (;;) {
		size_t other = bytes == LARGE_BYTES ? LARGE_BYTES - PAGE_BYTES : LARGE_BYTES;
		char *moved = mremap(region, bytes, other, MREMAP_MAYMOVE);

		if (moved == MAP_FAILED) {
			tally->error = errno;
			tally->failures++;
		} else {
			region = moved;
			bytes = other;
		}
		tally->steps++;
	}
}

static struct tally *new_tally(void)
{
	struct tally *tally = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(tally != MAP_FAILED);
	return tally;
}

/* Tracks it, `rounds` at a time, again and again. */
static void track_beside(child_function *function, size_t rounds)
{
	struct tally *tally = new_tally();
	struct child c = child_start(function, tally);
	uint64_t deadline;

	child_receive(c.fd);
	deadline = deadline_in_ms(RUN_MS);
	while (clock_now_ns() < deadline) {
		struct tracker *t = new_tracker();

		for (size_t i = 0; i < rounds; i++) {
			struct page_runs runs = collect(t, TRACKER_ROUND, &c, 1);

			page_runs_free(&runs);
		}
		assert_int_equal(tracker_untracked(t, NULL), 0);
		tracker_free(t);
	}
	print_message("# %lu steps, %lu failed (%s)\n", tally->steps, tally->failures,
		      tally->failures ? strerror(tally->error) : "none");
	assert_true(tally->steps > 100);
	assert_int_equal(tally->failures, 0);
	child_end(&c);
	munmap(tally, PAGE_BYTES);
}

static void test_mappings_move(void **state)
{
	(void)state;
	track_beside(moves_about, 200);
}

static void test_let_go(void **state)
{
	(void)state;
	track_beside(breathes, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mappings_move),
		cmocka_unit_test(test_let_go),
	};

	if (kernel_cannot())
		return 0;
	return cmocka_run_group_tests_name("tracker-mappings", tests, NULL, NULL);
}
