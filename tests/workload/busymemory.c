/* What a child of busytree has besides: memory whose every page is known, and threads that only wait.
 *
 * Each waiting thread looks at one page a second; so does the child itself at every tick of its timer. Nothing is written after the start.
 * Threads: as asked for; busy_memory_check() from any.
 */
#include "busytree.h"
#include "page.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#define STACK_BYTES (64 << 10) /* many threads, little memory */

static struct {
	struct tree_state *state;
	unsigned child;
	uint8_t *base;
	uint64_t pages;
	_Atomic uint64_t next;
} memory;

void busy_memory_check(void)
{
	uint64_t index = atomic_fetch_add(&memory.next, 1);
	if (!memory.pages)
		return;
	index %= memory.pages;
	if (!page_matches(memory.base + index * PAGE_BYTES, PAGE_CONTENT_RANDOM, memory.child, index, 1))
		tree_report(memory.state, "child %u: page %llu is not what it was", memory.child,
			    (unsigned long long)index);
}

static void *waiter_main(void *argument)
{
	struct ticker ticker;
	ticker_start(&ticker, NS_PER_S);
	for (;;) {
		ticker_wait(&ticker);
		busy_memory_check();
	}
	return argument;
}

int busy_memory_start(struct tree_state *state, unsigned child, uint64_t bytes, uint64_t threads)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r = 0;
	memory.state = state;
	memory.child = child;
	memory.pages = bytes / PAGE_BYTES;
	if (memory.pages) {
		memory.base = mmap(NULL, memory.pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				   -1, 0);
		if (memory.base == MAP_FAILED)
			return -errno;
		for (uint64_t i = 0; i < memory.pages; i++)
			page_fill(memory.base + i * PAGE_BYTES, PAGE_CONTENT_RANDOM, child, i, 1);
	}
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	for (uint64_t i = 0; i < threads && r == 0; i++)
		r = -pthread_create(&thread, &attr, waiter_main, NULL);
	pthread_attr_destroy(&attr);
	return r;
}
