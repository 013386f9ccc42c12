/*
 * Post-copy: which pages are still at the source, and which of them somebody waits for. See pager-state.h.
 *
 * The client writes a page into the store and clears its bit then; the pager looks at the bit first and reads the store then. So a
 * pager that is killed, and its successor, find nothing half done: a request that was lost with it is made again because its
 * fault is still unanswered in its slot.
 *
 * Threads: any; bits, counters and the ring are atomic. The ring has one writer (the pager) and one reader (the client).
 */
#include <errno.h>

#include "memory/pager-state.h"

static struct pager_segment *missing_ranges(struct pager_state *s, const struct pager_space_state *sp)
{
	return state_at(s, sp->missing_offset);
}

static _Atomic uint64_t *missing_bits(struct pager_state *s, const struct pager_space_state *sp)
{
	return state_at(s, sp->missing_bits_offset);
}

int pager_missing_describe(struct pager_state *s, struct pager_space_state *sp, const struct range_set *missing)
{
	uint64_t at = pager_state_alloc(s, missing->n_ranges * sizeof(struct pager_segment)), pages = 0, bits;

	if (!at)
		return -ENOMEM;
	for (size_t i = 0; i < missing->n_ranges; i++) {
		const struct range *range = &missing->ranges[i];
		uint64_t n = (range->end - range->start) / PAGE_BYTES;

		((struct pager_segment *)state_at(s, at))[i] = (struct pager_segment){
			.address = range->start, .source = range->start, .pages = n, .index = pages
		};
		pages += n;
	}
	bits = pager_state_alloc(s, (pages + 63) / 64 * 8);
	if (!bits)
		return -ENOMEM;
	sp->missing_offset = at;
	sp->n_missing = missing->n_ranges;
	sp->missing_bits_offset = bits;
	for (uint64_t i = 0; i < pages; i += 64)
		missing_bits(s, sp)[i / 64] = pages - i >= 64 ? UINT64_MAX : (1ULL << (pages - i)) - 1;
	sp->n_away = pages;
	return 0;
}

/* The index of the first range that ends after `source`. */
static uint64_t find_range(struct pager_state *s, const struct pager_space_state *sp, uint64_t source)
{
	const struct pager_segment *ranges = missing_ranges(s, sp);
	uint64_t low = 0, high = sp->n_missing;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (ranges[middle].source + ranges[middle].pages * PAGE_BYTES > source)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

bool pager_missing_next(struct pager_state *s, const struct pager_space_state *sp, uint64_t at, struct range *ret)
{
	uint64_t i = find_range(s, sp, at);
	const struct pager_segment *one = &missing_ranges(s, sp)[i];

	if (i == sp->n_missing)
		return false;
	*ret = (struct range){ MAX(one->source, at), one->source + one->pages * PAGE_BYTES };
	return true;
}

static bool is_away(const _Atomic uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

uint64_t pager_missing_part(struct pager_state *s, const struct pager_space_state *sp, uint64_t source, uint64_t pages,
			    bool *ret_missing)
{
	const struct pager_segment *range;
	const _Atomic uint64_t *bits;
	uint64_t i = sp->n_away ? find_range(s, sp, source) : sp->n_missing, first, n = 1;

	*ret_missing = false;
	if (i == sp->n_missing)
		return pages;
	range = &missing_ranges(s, sp)[i];
	if (range->source > source)
		return MIN(pages, (range->source - source) / PAGE_BYTES);
	bits = missing_bits(s, sp);
	first = range->index + (source - range->source) / PAGE_BYTES;
	pages = MIN(pages, range->index + range->pages - first);
	*ret_missing = is_away(bits, first);
	while (n < pages && is_away(bits, first + n) == *ret_missing)
		n++;
	return n;
}

void pager_missing_arrived(struct pager_state *s, struct pager_space_state *sp, uint64_t source, uint64_t pages)
{
	uint64_t end = source + pages * PAGE_BYTES;

	for (uint64_t i = find_range(s, sp, source); i < sp->n_missing; i++) {
		const struct pager_segment *range = &missing_ranges(s, sp)[i];
		uint64_t from = MAX(source, range->source), to = MIN(end, range->source + range->pages * PAGE_BYTES);

		if (range->source >= end)
			break;
		for (; from < to; from += PAGE_BYTES) {
			uint64_t bit = range->index + (from - range->source) / PAGE_BYTES, mask = 1ULL << (bit % 64);

			if (atomic_fetch_and(&missing_bits(s, sp)[bit / 64], ~mask) & mask)
				atomic_fetch_sub(&sp->n_away, 1);
		}
	}
}

bool pager_request_add(struct pager_state *s, const struct pager_request *request)
{
	uint32_t tail = s->request_tail;

	if (tail - s->request_head == PAGER_REQUESTS)
		return false;
	s->requests[tail % PAGER_REQUESTS] = *request;
	s->request_tail = tail + 1;
	return true;
}

bool pager_request_take(struct pager_state *s, struct pager_request *ret)
{
	uint32_t head = s->request_head;

	if (head == s->request_tail)
		return false;
	*ret = s->requests[head % PAGER_REQUESTS];
	s->request_head = head + 1;
	return true;
}
