/*
 * A pacer: what several channels may send together per second (--bandwidth). Any thread.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct pacer {
	pthread_mutex_t lock;
	uint64_t bytes_per_second; /* 0: no limit */
	uint64_t free_ns;	   /* when all that was taken so far has gone, at that rate */
};

void pacer_init(struct pacer *p, uint64_t bytes_per_second);
void pacer_destroy(struct pacer *p);

/* From now on; what waits already goes on waiting. 0: no limit. */
void pacer_set_rate(struct pacer *p, uint64_t bytes_per_second);

bool pacer_limits(struct pacer *p);

/* Takes so many bytes; they may be sent at the time returned (clock_now_ns()), which may have passed. */
uint64_t pacer_take(struct pacer *p, uint64_t bytes);
