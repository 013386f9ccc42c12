/*
 * For the tests of the pager: a process in the role of CRIU's restore and of the restored task. It registers a region
 * with a userfaultfd of its own, hands it over by CRIU's handshake, waits for the go and runs a body that checks its memory.
 *
 * Every page of the region has known contents: page_word(page, i), or zeros for pages that hold none.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/page.h"

#define REGION 0x200000000000ULL
#define ELSEWHERE 0x210000000000ULL /* where mappings are moved to */
#define RESTORE_FINISHED 0x52535446

/* What a page of the region holds at the source. */
static inline bool page_present(uint64_t page)
{
	return page % 1024 < 960;
}

static inline bool page_zero(uint64_t page)
{
	return !page_present(page) || page % 97 == 5 || (page % 256 >= 200 && page % 256 < 216);
}

static inline uint64_t page_word(uint64_t page, uint64_t i)
{
	uint64_t x = (page << 12 | i << 3) + 0x1234567;

	x *= 0x9e3779b97f4a7c15ULL;
	return page_zero(page) ? 0 : x ^ x >> 29;
}

/* Whether `at` holds that page of the source; -1: zeros. */
static inline bool page_holds(const void *at, int64_t page)
{
	const volatile uint64_t *words = at;

	for (uint64_t i = 0; i < PAGE_BYTES / 8; i++)
		if (words[i] != (page < 0 ? 0 : page_word((uint64_t)page, i)))
			return false;
	return true;
}

static inline uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Shared by the test and its tasks. */
struct task_shared {
	_Atomic uint32_t go, stop, handshaken;
	_Atomic uint64_t operations, latencies;
	uint8_t resident[1 << 16]; /* by page */
	uint32_t latency_ns[1 << 20];
};

struct task {
	uint64_t pages;	     /* of the region */
	uint64_t registered; /* so many of them; the rest stays an ordinary mapping */
	int (*body)(struct task *t);
	struct task_shared *shared;
	const char *socket_path;
	uint64_t seed;
	pid_t announced; /* the pid in the handshake */
	bool no_marker;
};

/* Exit statuses of a task. */
#define TASK_OK 0
#define TASK_WRONG_BYTES 10 /* everything else: the task could not do its part */
#define TASK_SETUP 11
#define TASK_OPERATION 12

/* Forks it; it dies with the caller. It announces itself, waits for `go` and runs its body. */
pid_t task_start(struct task *t);

/* Bodies: read everything; random pages with their times (latency_ns), then everything; change mappings, write, fork;
 * move pieces to and fro. */
int body_check(struct task *t);
int body_random_access(struct task *t);
int body_mutate(struct task *t);
int body_move(struct task *t);

/* Waits for `stop`, touching nothing; writes down which pages are there (resident), then reads everything. */
int body_resident(struct task *t);
