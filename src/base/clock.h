/* Monotonic time and deadlines, in nanoseconds. Source: clock_gettime(2), CLOCK_MONOTONIC. */
#pragma once

#include <stdint.h>
#include <time.h>

#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL
#define DEADLINE_NEVER UINT64_MAX

static inline uint64_t clock_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* What the calling thread has used of a processor: unlike the time that passed, it says nothing about how busy the machine is. */
static inline uint64_t clock_thread_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* A point in time ms from now; a negative ms means never. */
static inline uint64_t deadline_in_ms(int64_t ms)
{
	return ms < 0 ? DEADLINE_NEVER : clock_now_ns() + (uint64_t)ms * NS_PER_MS;
}

/* What poll(2) wants for that deadline: -1 for never, 0 when it has passed, rounded up otherwise. */
static inline int deadline_poll_ms(uint64_t deadline_ns)
{
	uint64_t now = clock_now_ns(), ms;

	if (deadline_ns == DEADLINE_NEVER)
		return -1;
	if (deadline_ns <= now)
		return 0;
	ms = (deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
	return ms > 3600000 ? 3600000 : (int)ms;
}
