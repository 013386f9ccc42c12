/*
 * What is poured in first: what the workload wrote while it was copied, page by page, for it will be wanted at once; then the blocks
 * around that, those with the most of it first. A program reads about as many pages as it writes, and what it reads is near.
 *
 * *Seen* (a Python service, 60 ms after the resume): 345 busy pages and 435 others were wanted; of 178 of those that were not one object
 * read from end to end, 2000 pages of such blocks held 127, and in the order of addresses 51.
 *
 * A hint: nothing is lost where it is wrong, or where there is no room for it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "memory/pager-state.h"

#define BLOCK_BYTES (1ULL << 20)

struct block {
	uint64_t start, busy_bytes;
};

static int by_most(const void *a, const void *b)
{
	const struct block *one = a, *other = b;

	if (one->busy_bytes != other->busy_bytes)
		return one->busy_bytes < other->busy_bytes ? 1 : -1;
	return (one->start > other->start) - (one->start < other->start);
}

/* The blocks that the ranges, which ascend, touch; blocks: room for *all of them. Returns how many. */
static size_t count_blocks(const struct range_set *busy, struct block *blocks)
{
	size_t n = 0;

	for (size_t i = 0; i < busy->n_ranges; i++) {
		const struct range *range = &busy->ranges[i];

		for (uint64_t at = range->start; at < range->end;) {
			uint64_t start = at & ~(BLOCK_BYTES - 1), end = MIN(range->end, start + BLOCK_BYTES);

			if (!n || blocks[n - 1].start != start)
				blocks[n++] = (struct block){ .start = start };
			blocks[n - 1].busy_bytes += end - at;
			at = end;
		}
	}
	return n;
}

static size_t most_blocks(const struct range_set *busy)
{
	size_t n = 0;

	for (size_t i = 0; i < busy->n_ranges; i++)
		n += (busy->ranges[i].end - 1) / BLOCK_BYTES - busy->ranges[i].start / BLOCK_BYTES + 1;
	return n;
}

void pager_urgent_describe(struct pager_state *s, struct pager_space_state *sp, const struct range_set *busy)
{
	_cleanup_free_ struct block *blocks = calloc(most_blocks(busy) + 1, sizeof(*blocks));
	size_t n = blocks ? count_blocks(busy, blocks) : 0;
	uint64_t at = pager_state_alloc(s, (busy->n_ranges + n) * sizeof(struct range));
	struct range *urgent = state_at(s, at);

	if (!at || !busy->n_ranges)
		return;
	memcpy(urgent, busy->ranges, busy->n_ranges * sizeof(*urgent));
	if (n)
		qsort(blocks, n, sizeof(*blocks), by_most);
	for (size_t i = 0; i < n; i++)
		urgent[busy->n_ranges + i] = (struct range){ blocks[i].start, blocks[i].start + BLOCK_BYTES };
	sp->urgent_offset = at;
	sp->n_urgent = busy->n_ranges + n;
}

bool pager_urgent_next(struct pager_state *s, struct pager_member *m, uint64_t max_pages, struct pager_segment *ret)
{
	struct pager_space_state *sp = state_space(s, m->space);
	const struct range *urgent = state_at(s, sp->urgent_offset);

	for (; sp->urgent_done < sp->n_urgent; sp->urgent_done++) {
		const struct range *range = &urgent[sp->urgent_done];
		uint64_t cursor = range->start;

		/* What comes after the range is the fill's own affair. */
		if (!pager_map_next(s, m, &cursor, max_pages, ret))
			return false;
		if (ret->address >= range->start && ret->address < range->end) {
			ret->pages = MIN(ret->pages, (range->end - ret->address) / PAGE_BYTES);
			return true;
		}
	}
	return false;
}
