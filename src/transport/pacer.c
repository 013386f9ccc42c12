/*
 * A pacer: see pacer.h. Whoever comes waits until what was taken before has gone; so a large piece goes at once, and the next
 * one waits for it. Unused time is not saved up beyond BURST_NS.
 *
 * Threads: any, under the lock.
 */
#include "transport/pacer.h"

#include "base/cleanup.h"
#include "base/clock.h"

#define BURST_NS (5 * NS_PER_MS)

void pacer_init(struct pacer *p, uint64_t bytes_per_second)
{
	*p = (struct pacer){ .bytes_per_second = bytes_per_second };
	pthread_mutex_init(&p->lock, NULL);
}

void pacer_destroy(struct pacer *p)
{
	pthread_mutex_destroy(&p->lock);
}

void pacer_set_rate(struct pacer *p, uint64_t bytes_per_second)
{
	pthread_mutex_lock(&p->lock);
	p->bytes_per_second = bytes_per_second;
	p->free_ns = 0;
	pthread_mutex_unlock(&p->lock);
}

bool pacer_limits(struct pacer *p)
{
	bool limits;

	pthread_mutex_lock(&p->lock);
	limits = p->bytes_per_second != 0;
	pthread_mutex_unlock(&p->lock);
	return limits;
}

uint64_t pacer_take(struct pacer *p, uint64_t bytes)
{
	uint64_t now = clock_now_ns(), at = 0;

	pthread_mutex_lock(&p->lock);
	if (p->bytes_per_second) {
		at = MAX(p->free_ns, now - BURST_NS);
		p->free_ns = at + (uint64_t)((double)bytes * (double)NS_PER_S / (double)p->bytes_per_second);
	}
	pthread_mutex_unlock(&p->lock);
	return at;
}
