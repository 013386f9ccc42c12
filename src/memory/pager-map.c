/*
 * Which addresses of a process still come from the store: the initial runs, folded with what the process has done to its
 * mappings since (unmap, remove, remap). Pure over the shared state; see pager-state.h for why there are two buffers.
 *
 * Invariants: segments ascend by address and do not overlap; a page whose bit is not set is in a segment.
 */
#include <errno.h>
#include <string.h>

#include "memory/pager-state.h"

/* The next version of a table while it is written. */
struct draft {
	struct pager_state *state;
	struct pager_member *member;
	struct pager_table *table;
	struct pager_segment *out;
};

/* Room for all there is and the pieces that one event can cut. */
static int draft_begin(struct pager_state *s, struct pager_member *m, struct draft *ret)
{
	struct pager_table *next = &m->tables[!m->active];
	uint64_t need = member_table(m)->n + 4;

	if (next->capacity < need) {
		uint64_t capacity = need + need / 2 + 64, at;

		at = pager_state_alloc(s, capacity * sizeof(struct pager_segment));
		if (!at) {
			pager_state_fail(s, ENOMEM, "the pager has no room left for its tables");
			return -ENOMEM;
		}
		next->offset = at;
		next->capacity = capacity;
	}
	next->n = 0;
	*ret = (struct draft){ .state = s, .member = m, .table = next, .out = state_at(s, next->offset) };
	return 0;
}

static void draft_commit(struct draft *d, uint64_t done)
{
	d->table->done = done;
	d->member->active = !d->member->active;
}

static uint64_t segment_end(const struct pager_segment *seg)
{
	return seg->address + seg->pages * PAGE_BYTES;
}

/* The index of the first segment that ends after address. */
static uint64_t find_index(struct pager_state *s, struct pager_member *m, uint64_t address)
{
	const struct pager_segment *segs = member_segments(s, m);
	uint64_t low = 0, high = member_table(m)->n;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (segment_end(&segs[middle]) > address)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* The part of a segment in [start, end). */
static bool segment_clip(const struct pager_segment *seg, uint64_t start, uint64_t end, struct pager_segment *ret)
{
	uint64_t from = MAX(seg->address, start), to = MIN(segment_end(seg), end), skip;

	if (from >= to)
		return false;
	skip = from - seg->address;
	*ret = (struct pager_segment){ .address = from,
				       .source = seg->source + skip,
				       .pages = (to - from) / PAGE_BYTES,
				       .index = seg->index + skip / PAGE_BYTES };
	return true;
}

/* Takes [start, end) of the active table over, moved by `shift`. */
static void draft_copy(struct draft *d, uint64_t start, uint64_t end, uint64_t shift)
{
	const struct pager_segment *segs = member_segments(d->state, d->member);
	uint64_t n = member_table(d->member)->n;

	for (uint64_t i = start < end ? find_index(d->state, d->member, start) : n; i < n; i++) {
		struct pager_segment part;

		if (segs[i].address >= end)
			break;
		if (!segment_clip(&segs[i], start, end, &part))
			continue;
		part.address += shift;
		d->out[d->table->n++] = part;
	}
}

/* The pages of [start, end) are not needed any more. */
static void mark_range(struct draft *d, uint64_t start, uint64_t end)
{
	const struct pager_segment *segs = member_segments(d->state, d->member);
	uint64_t n = member_table(d->member)->n;

	for (uint64_t i = find_index(d->state, d->member, start); i < n; i++) {
		struct pager_segment part;

		if (segs[i].address >= end)
			break;
		if (segment_clip(&segs[i], start, end, &part))
			pager_member_mark(d->state, d->member, part.index, part.pages);
	}
}

int pager_map_forget(struct pager_state *s, struct pager_member *m, uint64_t start, uint64_t end, uint64_t done)
{
	struct draft d;
	int r = draft_begin(s, m, &d);

	if (r < 0)
		return r;
	mark_range(&d, start, end);
	draft_copy(&d, 0, start, 0);
	draft_copy(&d, end, UINT64_MAX, 0);
	draft_commit(&d, done);
	return 0;
}

int pager_map_move(struct pager_state *s, struct pager_member *m, uint64_t from, uint64_t to, uint64_t length,
		   uint64_t done)
{
	uint64_t from_end = from + length, to_end = to + length;
	struct draft d;
	int r = draft_begin(s, m, &d);

	if (r < 0)
		return r;
	/* What was at the new place is gone; mremap(2) lets the two never overlap. */
	mark_range(&d, to, to_end);
	draft_copy(&d, 0, MIN(from, to), 0);
	draft_copy(&d, MIN(from_end, to), to, 0);
	draft_copy(&d, from, from_end, to - from);
	draft_copy(&d, to_end, MAX(to_end, from), 0);
	draft_copy(&d, MAX(to_end, from_end), UINT64_MAX, 0);
	draft_commit(&d, done);
	return 0;
}

const struct pager_segment *pager_map_find(struct pager_state *s, struct pager_member *m, uint64_t address)
{
	const struct pager_segment *segs = member_segments(s, m);
	uint64_t i = find_index(s, m, address);

	return i < member_table(m)->n && segs[i].address <= address ? &segs[i] : NULL;
}

/* The first bit of [index, end) that is not set; end when there is none. */
static uint64_t next_unmarked(const uint64_t *bits, uint64_t index, uint64_t end)
{
	while (index < end) {
		uint64_t word = ~bits[index / 64] & (UINT64_MAX << (index % 64));

		if (word)
			return MIN(end, index / 64 * 64 + (uint64_t)__builtin_ctzll(word));
		index = (index / 64 + 1) * 64;
	}
	return end;
}

static uint64_t next_marked(const uint64_t *bits, uint64_t index, uint64_t end)
{
	while (index < end && !(bits[index / 64] >> (index % 64) & 1))
		index++;
	return index;
}

/* The first pages of a segment that are needed, and here. */
static bool next_in_segment(struct pager_state *s, struct pager_member *m, const struct pager_segment *seg,
			    uint64_t max_pages, struct pager_segment *ret)
{
	const struct pager_space_state *sp = state_space(s, m->space);
	uint64_t end = seg->index + seg->pages, at = seg->index;
	const uint64_t *bits = member_bits(s, m);

	while ((at = next_unmarked(bits, at, end)) < end) {
		uint64_t skip = at - seg->index, stop = next_marked(bits, at, MIN(end, at + max_pages)), n;
		bool missing;

		n = pager_missing_part(s, sp, seg->source + skip * PAGE_BYTES, stop - at, &missing);
		if (missing) {
			at += n;
			continue;
		}
		*ret = (struct pager_segment){ .address = seg->address + skip * PAGE_BYTES,
					       .source = seg->source + skip * PAGE_BYTES,
					       .pages = n,
					       .index = at };
		return true;
	}
	return false;
}

static bool next_from(struct pager_state *s, struct pager_member *m, uint64_t cursor, uint64_t max_pages,
		      struct pager_segment *ret)
{
	const struct pager_segment *segs = member_segments(s, m);
	uint64_t n = member_table(m)->n;

	for (uint64_t i = find_index(s, m, cursor); i < n; i++) {
		struct pager_segment part;

		if (!segment_clip(&segs[i], cursor, UINT64_MAX, &part))
			continue;
		if (!next_in_segment(s, m, &part, max_pages, ret))
			continue;
		return true;
	}
	return false;
}

bool pager_map_next(struct pager_state *s, struct pager_member *m, uint64_t *cursor, uint64_t max_pages,
		    struct pager_segment *ret)
{
	if (!m->left)
		return false;
	if (!next_from(s, m, *cursor, max_pages, ret) && !next_from(s, m, 0, max_pages, ret))
		return false;
	*cursor = segment_end(ret);
	return true;
}
