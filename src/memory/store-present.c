/*
 * The present map meets the store: what is outside is forgotten, what is inside must be complete.
 *
 * Checked first and forgotten after, so that a failed check leaves everything as it was and the missing pages
 * can still be sent. Called by one thread, while nothing is put into that space.
 */
#include <errno.h>
#include <string.h>

#include "memory/store-internal.h"

/* The pages of [start, end) that lie in the window at `window`, as bit numbers. */
static void range_in_window(const struct range *range, uint64_t window, uint32_t *ret_first, uint32_t *ret_n)
{
	uint64_t start = MAX(range->start, window), end = MIN(range->end, window + WINDOW_BYTES);

	*ret_first = (uint32_t)((start - window) >> PAGE_SHIFT);
	*ret_n = (uint32_t)((end - start) >> PAGE_SHIFT);
}

static int check_complete(struct store_space *sp, uint32_t space, const struct range_set *present, struct error *err)
{
	for (size_t i = 0; i < present->n_ranges; i++) {
		const struct range *range = &present->ranges[i];

		for (uint64_t at = range->start & ~(WINDOW_BYTES - 1); at < range->end; at += WINDOW_BYTES) {
			struct store_window *w = sp ? store_find_window(sp, at) : NULL;
			uint32_t first, n, missing;

			range_in_window(range, at, &first, &n);
			missing = w ? bitmap_find(w->have, first, first + n, false) : first;
			if (missing < first + n)
				return error_set(err, ENODATA,
						 "the page at %#llx of space %u exists at the source but never arrived",
						 (unsigned long long)(at + missing * PAGE_BYTES), space);
		}
	}
	return 0;
}

/* Forgets the pages [first, end) of a window. */
static int forget(struct store *s, struct store_space *sp, struct store_window *w, uint32_t first, uint32_t end)
{
	int r = first < end ? store_punch(s, sp, w, first, end - first) : 0;

	if (!r && first < end)
		bitmap_clear(w->have, first, end - first);
	return r;
}

static int keep_present(struct store *s, struct store_space *sp, struct store_window *w,
			const struct range_set *present)
{
	uint64_t end = w->start + WINDOW_BYTES;
	uint32_t kept = 0; /* everything before is settled */
	int r = 0;

	for (size_t i = range_set_find(present, w->start); !r && i < present->n_ranges; i++) {
		uint32_t first, n;

		if (present->ranges[i].start >= end)
			break;
		range_in_window(&present->ranges[i], w->start, &first, &n);
		r = forget(s, sp, w, kept, first);
		kept = first + n;
	}
	return r ? r : forget(s, sp, w, kept, WINDOW_PAGES);
}

int store_apply_present(struct store *s, uint32_t space, const struct range_set *present, struct error *err)
{
	struct store_space *sp = store_find_space(s, space);
	int r;

	if (!space || space > SPACES_MAX || !range_array_valid(present->ranges, present->n_ranges, PAGE_BYTES) ||
	    (present->n_ranges && present->ranges[present->n_ranges - 1].end > SPACE_ADDRESS_MAX))
		return error_set(err, EINVAL, "the present map of space %u is malformed", space);
	r = check_complete(sp, space, present, err);
	if (r < 0 || !sp)
		return r;
	for (size_t i = 0; i < WINDOW_BUCKETS; i++)
		for (struct store_window *w = sp->buckets[i]; w; w = w->next) {
			r = keep_present(s, sp, w, present);
			if (r < 0)
				return error_errno(err, -r, "cannot free pages of space %u", space);
		}
	return 0;
}
