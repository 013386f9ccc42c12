/*
 * Sets of pages: see page-bits.h. A hash table of windows, each a bitmap. Pure; one thread at a time.
 */
#include "memory/page-bits.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

#define WINDOW_PAGES 32768ULL
#define WINDOW_WORDS (WINDOW_PAGES / 64)
#define BUCKETS 1024

struct window {
	struct window *next; /* in its bucket */
	uint64_t number;     /* of its first page, in windows */
	uint32_t space;
	uint64_t words[WINDOW_WORDS];
};

struct page_bits {
	struct window *buckets[BUCKETS];
};

int page_bits_new(struct page_bits **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

void page_bits_free(struct page_bits *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct window *w = b->buckets[i], *next; w; w = next) {
			next = w->next;
			free(w);
		}
	free(b);
}

static size_t bucket_of(uint32_t space, uint64_t number)
{
	return (size_t)((number * 31 + space) % BUCKETS);
}

static struct window *find_window(const struct page_bits *b, uint32_t space, uint64_t number)
{
	struct window *w = b->buckets[bucket_of(space, number)];

	while (w && (w->number != number || w->space != space))
		w = w->next;
	return w;
}

static struct window *make_window(struct page_bits *b, uint32_t space, uint64_t number)
{
	struct window **bucket = &b->buckets[bucket_of(space, number)], *w = find_window(b, space, number);

	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->space = space;
	w->number = number;
	w->next = *bucket;
	return *bucket = w;
}

int page_bits_set(struct page_bits *b, uint32_t space, uint64_t address, uint64_t pages)
{
	uint64_t page = address >> PAGE_SHIFT, end = page + pages;

	while (page < end) {
		struct window *w = make_window(b, space, page / WINDOW_PAGES);
		uint64_t stop = MIN(end, (page / WINDOW_PAGES + 1) * WINDOW_PAGES);

		if (!w)
			return -ENOMEM;
		for (; page < stop; page++) {
			uint64_t at = page % WINDOW_PAGES;

			if (at % 64 == 0 && stop - page >= 64) {
				w->words[at / 64] = UINT64_MAX;
				page += 63;
				continue;
			}
			w->words[at / 64] |= 1ULL << (at % 64);
		}
	}
	return 0;
}

int page_bits_set_runs(struct page_bits *b, const struct page_runs *runs)
{
	int r = 0;

	for (size_t i = 0; i < runs->n_runs && !r; i++)
		r = page_bits_set(b, runs->runs[i].space, runs->runs[i].address, runs->runs[i].pages);
	return r;
}

/* Pages from `page` on, before `stop` (of the same window), that are alike. */
static uint64_t same_in_window(const struct window *w, uint64_t page, uint64_t stop, bool inside)
{
	uint64_t at = page;

	while (at < stop) {
		uint64_t bit = at % WINDOW_PAGES, word = w ? w->words[bit / 64] : 0, odd;

		odd = (inside ? ~word : word) >> (bit % 64);
		if (odd)
			return MIN(stop, at + (uint64_t)__builtin_ctzll(odd)) - page;
		at += 64 - bit % 64;
	}
	return stop - page;
}

static bool is_set(const struct window *w, uint64_t page)
{
	uint64_t bit = page % WINDOW_PAGES;

	return w && w->words[bit / 64] >> (bit % 64) & 1;
}

uint64_t page_bits_part(const struct page_bits *b, uint32_t space, uint64_t address, uint64_t pages, bool *ret_inside)
{
	uint64_t first = address >> PAGE_SHIFT, page = first, end = first + pages;

	while (page < end) {
		const struct window *w = find_window(b, space, page / WINDOW_PAGES);
		uint64_t stop = MIN(end, (page / WINDOW_PAGES + 1) * WINDOW_PAGES), n;

		if (page == first)
			*ret_inside = is_set(w, page);
		n = same_in_window(w, page, stop, *ret_inside);
		page += n;
		if (page < stop)
			break;
	}
	return page - first;
}

int page_runs_select(const struct page_runs *runs, const struct page_bits *b, bool inside, struct page_runs *ret)
{
	for (size_t i = 0; i < runs->n_runs; i++) {
		struct page_run part = runs->runs[i];
		uint64_t left = part.pages;

		while (left) {
			bool is = false;

			part.pages = page_bits_part(b, part.space, part.address, left, &is);
			if (is == inside && page_runs_add(ret, &part) < 0)
				return -ENOMEM;
			left -= part.pages;
			part.address += part.pages << PAGE_SHIFT;
			part.pid_address += part.pages << PAGE_SHIFT;
		}
	}
	return 0;
}
