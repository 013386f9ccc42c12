/* Threads of memtoucher that own private memory: touchers, one of which forks, and the churner of mappings.
 *
 * Invariants: a toucher alone touches its slice, so a child that it forks sees the slice at rest, whatever the
 * other threads are doing. Rates are kept against CLOCK_MONOTONIC with a small purse: after a standstill nothing
 * is made up for.
 * Threads: as named; all stop when state->stop is set.
 */
#include "memtoucher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* In turns of the loop, not in time: a freeze stops the loop as it stops the child. */
#define FORK_TURNS_MAX 2000
#define STACK_PAGES 4

static bool full_wanted(const struct owner *owner)
{
	return atomic_load(&owner->state->full_request) != atomic_load(&owner->counters->full_done);
}

/* ---- the forked child ---- */

/* Runs in the child of a threaded process: no malloc, no stdio. */
static _Noreturn void forked_child(struct toucher *toucher)
{
	struct region *region = &toucher->region;
	struct owner *owner = &toucher->owner;
	uint32_t errors_before = atomic_load(&owner->state->errors);
	size_t count = region->pages < 1024 ? region->pages : 1024;
	size_t first = random_next(&owner->random) % region->pages;
	if (corruption_take(owner->state, "fork"))
		region->base[first * PAGE_BYTES + 99] ^= 1;
	for (size_t i = 0; i < count; i++)
		region_check(owner, region, (first + i) % region->pages);
	/* Its own copies now, which the parent must never see. */
	for (size_t i = 0; i < count; i += 16)
		region_write(owner, region, (first + i) % region->pages);
	for (size_t i = 0; i < count; i += 16)
		region_check(owner, region, (first + i) % region->pages);
	_exit(atomic_load(&owner->state->errors) == errors_before ? 0 : 3);
}

static void fork_step(struct toucher *toucher)
{
	struct state *state = toucher->owner.state;
	uint64_t now = now_ns();
	int status;
	if (toucher->forked > 0) {
		pid_t ended = waitpid(toucher->forked, &status, WNOHANG);
		if (ended == 0 && ++toucher->fork_turns < FORK_TURNS_MAX)
			return;
		if (ended == 0)
			state_report_words(state, "fork", "forked child does not end", NULL);
		else if (ended < 0)
			state_report_words(state, "fork", "forked child is lost", NULL);
		else if (status != 0)
			state_report_words(state, "fork", "forked child failed", NULL);
		toucher->forked = 0;
	} else if (now >= toucher->fork_due_ns) {
		pid_t pid = fork();
		if (pid == 0)
			forked_child(toucher);
		if (pid < 0)
			state_report_words(state, "fork", "fork failed", NULL);
		toucher->forked = pid;
		toucher->fork_turns = 0;
		toucher->fork_due_ns = now + toucher->settings->fork_every_ms * NS_PER_MS;
	}
}

/* ---- touchers ---- */

/* Bytes per second turned into pages that are due now. */
struct purse {
	uint64_t rate;
	uint64_t filled_ns;
	uint64_t byte_ns; /* bytes times NS_PER_S, what is left of earlier fillings */
};

static size_t purse_take_pages(struct purse *purse, uint64_t now)
{
	const uint64_t page_cost = (uint64_t)PAGE_BYTES * NS_PER_S;
	uint64_t passed = now - purse->filled_ns;
	if (passed > 20 * NS_PER_MS)
		passed = 20 * NS_PER_MS;
	purse->filled_ns = now;
	purse->byte_ns += passed * purse->rate;
	size_t pages = purse->byte_ns / page_cost;
	purse->byte_ns %= page_cost;
	return pages;
}

static void touch_round(struct toucher *toucher, size_t writes, size_t checks)
{
	struct region *region = &toucher->region;
	struct owner *owner = &toucher->owner;
	size_t at = 0;
	for (size_t i = 0; i < writes; i++) {
		/* Runs of up to 8 pages at random places: both scattered pages and short sequences. */
		if (i % 8 == 0 || (at & 3) == 3)
			at = random_next(&owner->random);
		else
			at++;
		region_write(owner, region, at % region->pages);
	}
	for (size_t i = 0; i < checks; i++) {
		region_check(owner, region, region->cursor);
		region->cursor = (region->cursor + 1) % region->pages;
	}
}

static void toucher_loop(struct toucher *toucher, struct region *stack)
{
	const struct settings *settings = toucher->settings;
	struct owner *owner = &toucher->owner;
	struct purse writes = { .rate = settings->rate / settings->threads, .filled_ns = now_ns() };
	struct purse checks = { .rate = settings->verify_rate / settings->threads, .filled_ns = writes.filled_ns };
	struct ticker ticker;
	ticker_start(&ticker, (writes.rate || checks.rate ? 5 : 20) * NS_PER_MS);
	while (!atomic_load(&owner->state->stop)) {
		ticker_wait(&ticker);
		uint64_t now = now_ns();
		region_corrupt_if_asked(owner, &toucher->region);
		touch_round(toucher, purse_take_pages(&writes, now), purse_take_pages(&checks, now));
		if (stack->pages) {
			region_corrupt_if_asked(owner, stack);
			region_write(owner, stack, random_next(&owner->random) % stack->pages);
			region_check(owner, stack, random_next(&owner->random) % stack->pages);
		}
		if (settings->fork_every_ms && toucher->number == 0)
			fork_step(toucher);
		if (full_wanted(owner)) {
			uint32_t request = atomic_load(&owner->state->full_request);
			region_check_all(owner, &toucher->region, true);
			region_check_all(owner, stack, true);
			atomic_store(&owner->counters->full_done, request);
		}
	}
	if (toucher->forked > 0)
		waitpid(toucher->forked, NULL, 0);
}

void *toucher_main(void *argument)
{
	struct toucher *toucher = argument;
	struct region stack = { 0 };
	_Alignas(4096) uint8_t frame[STACK_PAGES * PAGE_BYTES];
	if (toucher->settings->feature[FEATURE_STACK] &&
	    region_init(&stack, "thread-stack", frame, STACK_PAGES, STACK_PAGES, toucher->owner.random,
			toucher->settings->content) == 0)
		region_write_all(&toucher->owner, &stack);
	region_write_all(&toucher->owner, &toucher->region);
	toucher->fork_due_ns = now_ns() + toucher->settings->fork_every_ms * NS_PER_MS;
	pthread_barrier_wait(toucher->filled);
	toucher_loop(toucher, &stack);
	region_free(&stack);
	return NULL;
}

/* ---- mappings that come and go ---- */

#define CHURN_KEPT 8
#define CHURN_PAGES_MAX 64

static void churn_end(struct owner *owner, struct region *region)
{
	if (!region->table)
		return;
	region_corrupt_if_asked(owner, region);
	region_check_all(owner, region, true);
	munmap(region->base, region->pages * PAGE_BYTES);
	region_free(region);
}

static void churn_begin(struct owner *owner, struct region *region, enum page_content content)
{
	size_t pages = 1 + random_next(&owner->random) % CHURN_PAGES_MAX;
	void *base = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED ||
	    region_init(region, "churn", base, pages, pages, random_next(&owner->random), content) < 0) {
		state_report_words(owner->state, "churn", "cannot map memory", NULL);
		return;
	}
	/* Fresh memory must be zero; then about half of it is written, as real programs do. */
	for (size_t i = 0; i < pages; i++)
		if (random_next(&owner->random) & 1 || i == 0)
			region_write(owner, region, i);
}

void *churner_main(void *argument)
{
	struct churner *churner = argument;
	struct owner *owner = &churner->owner;
	struct region kept[CHURN_KEPT] = { 0 };
	struct ticker ticker;
	ticker_start(&ticker, churner->settings->map_every_ms * NS_PER_MS);
	for (size_t turn = 0; !atomic_load(&owner->state->stop); turn = (turn + 1) % CHURN_KEPT) {
		ticker_wait(&ticker);
		churn_end(owner, &kept[turn]);
		churn_begin(owner, &kept[turn], churner->settings->content);
		if (full_wanted(owner)) {
			uint32_t request = atomic_load(&owner->state->full_request);
			for (size_t i = 0; i < CHURN_KEPT; i++)
				if (kept[i].table)
					region_check_all(owner, &kept[i], true);
			atomic_store(&owner->counters->full_done, request);
		}
	}
	for (size_t i = 0; i < CHURN_KEPT; i++)
		churn_end(owner, &kept[i]);
	return NULL;
}
