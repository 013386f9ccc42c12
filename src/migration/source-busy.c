/*
 * What the workload wrote while it was copied: the target's pager pours it in first, for it will be wanted at once.
 *
 * A hint: without it every such page is a fault of its own after the resume, while other pages are poured in. Gathered between the rounds, not in
 * the freeze. One thread.
 */
#include <stdlib.h>

#include "migration/source-internal.h"

#define BUSY_RANGES_MAX 65536 /* of a process; more are not noted: a mebibyte of hints is enough */

static struct busy_space *busy_of(struct source *s, uint32_t space)
{
	struct busy_space *more;

	for (size_t i = 0; i < s->n_busy; i++)
		if (s->busy[i].space == space)
			return &s->busy[i];
	more = reallocarray(s->busy, s->n_busy + 1, sizeof(*more));
	if (!more)
		return NULL;
	s->busy = more;
	more[s->n_busy] = (struct busy_space){ .space = space };
	return &more[s->n_busy++];
}

/* The runs of one process from the i-th on; where the next one's begin. */
static size_t note_space(struct source *s, const struct page_runs *runs, size_t i)
{
	_cleanup_range_set_ struct range_set set = { 0 };
	uint32_t space = runs->runs[i].space;
	struct busy_space *b = busy_of(s, space);

	for (; i < runs->n_runs && runs->runs[i].space == space; i++) {
		const struct page_run *run = &runs->runs[i];

		(void)range_set_add(&set, run->address, run->address + (run->pages << PAGE_SHIFT));
	}
	if (b && b->set.n_ranges < BUSY_RANGES_MAX)
		(void)range_set_unite(&b->set, &set);
	return i;
}

void source_busy_note(struct source *s, const struct page_runs *runs)
{
	for (size_t i = 0; i < runs->n_runs;)
		i = note_space(s, runs, i);
}

void source_busy_tell(struct source *s)
{
	for (size_t k = 0; k < s->present.n; k++) {
		struct busy_space *b = busy_of(s, s->present.parts[k].space);

		if (!b)
			return;
		s->present.parts[k].busy = (uint64_t *)b->set.ranges;
		s->present.parts[k].n_busy = b->set.n_ranges * 2;
	}
}

void source_busy_free(struct source *s)
{
	for (size_t i = 0; i < s->n_busy; i++)
		range_set_free(&s->busy[i].set);
	free(TAKE_PTR(s->busy));
	s->n_busy = 0;
}
