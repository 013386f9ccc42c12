/*
 * Sets of ranges: see range.h. Not for use by two threads at once.
 *
 * Invariant: ranges[i].start < ranges[i].end < ranges[i + 1].start.
 */
#include "base/range.h"

#include <errno.h>
#include <string.h>

void range_set_free(struct range_set *set)
{
	free(set->ranges);
	*set = (struct range_set){ 0 };
}

size_t range_set_find(const struct range_set *set, uint64_t at)
{
	size_t low = 0, high = set->n_ranges;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (set->ranges[middle].end > at)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

bool range_set_contains(const struct range_set *set, uint64_t at)
{
	size_t i = range_set_find(set, at);

	return i < set->n_ranges && set->ranges[i].start <= at;
}

uint64_t range_set_part(const struct range_set *set, uint64_t start, uint64_t end, bool *ret_inside)
{
	size_t i = range_set_find(set, start);

	*ret_inside = i < set->n_ranges && set->ranges[i].start <= start;
	if (i == set->n_ranges)
		return end;
	return MIN(end, *ret_inside ? set->ranges[i].end : set->ranges[i].start);
}

uint64_t range_set_total(const struct range_set *set)
{
	uint64_t total = 0;

	for (size_t i = 0; i < set->n_ranges; i++)
		total += set->ranges[i].end - set->ranges[i].start;
	return total;
}

static int range_set_grow(struct range_set *set)
{
	size_t n = set->n_allocated ? set->n_allocated * 2 : 16;
	struct range *ranges;

	if (set->n_ranges < set->n_allocated)
		return 0;
	ranges = reallocarray(set->ranges, n, sizeof(*ranges));
	if (!ranges)
		return -ENOMEM;
	set->ranges = ranges;
	set->n_allocated = n;
	return 0;
}

/* Puts `with` (n_with <= 2 ranges) in the place of the ranges [from, to). Room for one more was made. */
static void range_set_splice(struct range_set *set, size_t from, size_t to, const struct range *with, size_t n_with)
{
	memmove(set->ranges + from + n_with, set->ranges + to, (set->n_ranges - to) * sizeof(*set->ranges));
	memcpy(set->ranges + from, with, n_with * sizeof(*with));
	set->n_ranges = set->n_ranges - (to - from) + n_with;
}

int range_set_add(struct range_set *set, uint64_t start, uint64_t end)
{
	struct range merged = { start, end };
	size_t from, to;
	int r;

	if (start >= end)
		return 0;
	r = range_set_grow(set);
	if (r < 0)
		return r;
	/* The first that touches or follows: one that ends exactly at start is merged too. */
	from = start ? range_set_find(set, start - 1) : 0;
	for (to = from; to < set->n_ranges && set->ranges[to].start <= end; to++) {
		merged.start = MIN(merged.start, set->ranges[to].start);
		merged.end = MAX(merged.end, set->ranges[to].end);
	}
	range_set_splice(set, from, to, &merged, 1);
	return 0;
}

int range_set_subtract(struct range_set *set, uint64_t start, uint64_t end)
{
	struct range rest[2];
	size_t from, to, n = 0;
	int r;

	if (start >= end)
		return 0;
	r = range_set_grow(set);
	if (r < 0)
		return r;
	from = range_set_find(set, start);
	for (to = from; to < set->n_ranges && set->ranges[to].start < end; to++) {
		if (set->ranges[to].start < start)
			rest[n++] = (struct range){ set->ranges[to].start, start };
		if (set->ranges[to].end > end)
			rest[n++] = (struct range){ end, set->ranges[to].end };
	}
	range_set_splice(set, from, to, rest, n);
	return 0;
}

bool range_array_valid(const struct range *ranges, size_t n, uint64_t align)
{
	for (size_t i = 0; i < n; i++) {
		if (ranges[i].start >= ranges[i].end || ((ranges[i].start | ranges[i].end) & (align - 1)))
			return false;
		if (i && ranges[i].start <= ranges[i - 1].end)
			return false;
	}
	return true;
}

int range_set_unite(struct range_set *dst, const struct range_set *src)
{
	struct range_set all = { 0 };
	size_t i = 0, k = 0;
	int r = 0;

	while ((i < dst->n_ranges || k < src->n_ranges) && !r) {
		bool first = k == src->n_ranges || (i < dst->n_ranges && dst->ranges[i].start <= src->ranges[k].start);
		const struct range *next = first ? &dst->ranges[i++] : &src->ranges[k++];

		r = range_set_add(&all, next->start, next->end);
	}
	if (r < 0) {
		range_set_free(&all);
		return r;
	}
	range_set_free(dst);
	*dst = all;
	return 0;
}
