/*
 * How long faults took: counts in buckets, four to each doubling, from a microsecond on. Pure, but for the counters; any thread.
 */
#include "memory/pager-state.h"

#define LEAST_NS 1024ULL
#define PER_DOUBLING 4U

/* Where bucket i ends. */
static uint64_t bucket_end(uint32_t i)
{
	uint64_t base = LEAST_NS << (i / PER_DOUBLING);

	return base + base * (i % PER_DOUBLING + 1) / PER_DOUBLING;
}

static uint32_t bucket_of(uint64_t ns)
{
	uint32_t doubling;
	uint64_t base;

	if (ns < LEAST_NS)
		return 0;
	doubling = 63 - (uint32_t)__builtin_clzll(ns / LEAST_NS);
	base = LEAST_NS << doubling;
	return MIN(doubling * PER_DOUBLING + (uint32_t)((ns - base) / (base / PER_DOUBLING)),
		   (uint32_t)PAGER_LATENCY_BUCKETS - 1);
}

void pager_latency_count(_Atomic uint32_t *buckets, uint64_t ns)
{
	buckets[bucket_of(ns)]++;
}

uint64_t pager_latency_quantile(const _Atomic uint32_t *buckets, double share)
{
	uint64_t all = 0, sum = 0, wanted;

	for (uint32_t i = 0; i < PAGER_LATENCY_BUCKETS; i++)
		all += buckets[i];
	if (!all)
		return 0;
	wanted = MAX((uint64_t)(share * (double)all + 0.999999), 1ULL);
	for (uint32_t i = 0; i < PAGER_LATENCY_BUCKETS; i++) {
		sum += buckets[i];
		if (sum >= wanted)
			return bucket_end(i);
	}
	return bucket_end(PAGER_LATENCY_BUCKETS - 1);
}
