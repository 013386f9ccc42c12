/*
 * What of a round arrived: see sent.h. Pure; any thread.
 *
 * The logs are as scattered as the pages were written, so they are sorted once, and each run looks its part up.
 */
#include "migration/sent.h"

#include <errno.h>
#include <stdlib.h>

#include "base/array.h"
#include "base/cleanup.h"

/* Pages that came, in one space. */
struct stretch {
	uint32_t space;
	uint64_t start, end;
};

struct stretches {
	struct stretch *list;
	size_t n, n_allocated;
};

static int compare_stretches(const void *a, const void *b)
{
	const struct stretch *x = a, *y = b;

	if (x->space != y->space)
		return x->space < y->space ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start;
}

/* The first pages of a channel's log. */
static int add_arrived(struct stretches *s, const struct sent *channel)
{
	uint64_t left = channel->arrived;

	for (size_t i = 0; i < channel->log->n_runs && left; i++) {
		const struct page_run *run = &channel->log->runs[i];
		uint64_t pages = MIN(run->pages, left);

		if (array_grow(&s->list, s->n, &s->n_allocated, 64, sizeof(*s->list)) < 0)
			return -ENOMEM;
		s->list[s->n++] = (struct stretch){ run->space, run->address, run->address + (pages << PAGE_SHIFT) };
		left -= pages;
	}
	return 0;
}

/* The first stretch that ends behind that place, or is of a later space. They do not overlap: a page goes once per round. */
static size_t find_stretch(const struct stretches *s, uint32_t space, uint64_t address)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct stretch *at = &s->list[middle];

		if (at->space < space || (at->space == space && at->end <= address))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int add_rest(struct page_runs *ret, const struct page_run *run, const struct stretches *s)
{
	uint64_t at = run->address, end = at + (run->pages << PAGE_SHIFT);
	size_t next = find_stretch(s, run->space, at);
	int r = 0;

	while (at < end && !r) {
		bool more = next < s->n && s->list[next].space == run->space && s->list[next].start < end;
		uint64_t to = more ? MAX(s->list[next].start, at) : end;
		struct page_run part = *run;

		part.address = at;
		part.pid_address += at - run->address;
		part.pages = (to - at) >> PAGE_SHIFT;
		r = page_runs_add(ret, &part);
		at = more ? s->list[next++].end : end;
	}
	return r;
}

int sent_remaining(const struct page_runs *runs, const struct sent *channels, size_t n, struct page_runs *ret,
		   struct error *err)
{
	struct stretches came = { 0 };
	int r = 0;

	for (size_t i = 0; i < n && !r; i++)
		r = add_arrived(&came, &channels[i]);
	if (came.n)
		qsort(came.list, came.n, sizeof(*came.list), compare_stretches);
	for (size_t i = 0; i < runs->n_runs && !r; i++)
		r = add_rest(ret, &runs->runs[i], &came);
	free(came.list);
	return r < 0 ? error_set(err, ENOMEM, "no memory to find out which pages are to be sent again") : 0;
}
