/*
 * What the stores hold: runs of bytes within the present maps, found by SEEK_DATA and SEEK_HOLE once, before CRIU connects
 * (measured: about 50 ns a page), and of pages that are still at the source. Everything else in a restored process reads as zeros.
 *
 * A pager killed half way leaves `ready` unset and its successor goes on behind the last run that counts; nothing is freed
 * in a store before.
 */
#include <errno.h>

#include "memory/pager-server.h"

/* The next run of bytes in [start, end) of a store; 0 none, 1 found. */
static int next_run(int fd, uint64_t start, uint64_t end, struct range *ret)
{
	off_t data, hole;

	if (start >= end)
		return 0;
	data = lseek(fd, (off_t)start, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? 0 : -errno;
	if ((uint64_t)data >= end)
		return 0;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	/* Offsets come back in pages; the file is one of them. */
	*ret = (struct range){ (uint64_t)data, MIN((uint64_t)hole, end) };
	return 1;
}

/* The next run of pages that come from the store, now or later: of bytes, or of pages that are still at the source. */
static int next_source(struct pager_state *s, const struct pager_space_state *sp, uint64_t at, struct range *ret)
{
	int r = sp->store_fd >= 0 ? next_run(sp->store_fd, at, UINT64_MAX >> 1, ret) : 0;
	struct range missing;

	if (r < 0 || !pager_missing_next(s, sp, at, &missing))
		return r;
	if (!r || missing.start <= ret->start)
		*ret = missing;
	else
		ret->end = MIN(ret->end, missing.start);
	return 1;
}

static int build_space(struct pager_state *s, struct pager_space_state *sp)
{
	const struct range *present = state_at(s, sp->present_offset);
	uint64_t begin = sp->runs_offset ? sp->runs_offset : (s->next + PAGE_BYTES - 1) & PAGE_MASK, found = 0;
	struct pager_segment *runs = state_at(s, begin);
	struct range data = { 0 };

	/* Nothing else takes room while this goes on, so it begins where a predecessor began. */
	sp->runs_offset = begin;
	if (sp->n_runs) {
		const struct pager_segment *last = &runs[sp->n_runs - 1];

		sp->pages = last->index + last->pages;
		found = last->source + last->pages * PAGE_BYTES;
	}
	for (uint64_t i = 0; i < sp->n_present; i++) {
		uint64_t at = MAX(present[i].start, found);

		for (;;) {
			uint64_t end;
			int r = 1;

			if (at >= present[i].end)
				break;
			/* A run may span several ranges of the present map. */
			if (data.end <= at)
				r = next_source(s, sp, at, &data);
			if (r < 0)
				return pager_state_fail(s, -r, "the pager cannot read the store of space %u",
							sp->space);
			at = MAX(at, data.start);
			end = MIN(present[i].end, data.end);
			if (!r || at >= end)
				break;
			if (begin + (sp->n_runs + 1) * sizeof(*runs) > PAGER_STATE_BYTES)
				return pager_state_fail(s, ENOMEM, "the pager has no room left for its tables");
			runs[sp->n_runs] = (struct pager_segment){
				.address = at,
				.source = at,
				.pages = (end - at) / PAGE_BYTES,
				.index = sp->pages,
			};
			atomic_thread_fence(memory_order_seq_cst);
			sp->n_runs++;
			sp->pages += (end - at) / PAGE_BYTES;
			at = end;
		}
	}
	if (!pager_state_alloc(s, sp->n_runs * sizeof(*runs)))
		return pager_state_fail(s, ENOMEM, "the pager has no room left for its tables");
	s->spaces_built++;
	return 0;
}

int pager_runs_build(struct pager_state *s)
{
	while (s->spaces_built < s->n_spaces) {
		int r = build_space(s, state_space(s, s->spaces_built));

		if (r < 0)
			return r;
	}
	s->ready = 1;
	return 0;
}
