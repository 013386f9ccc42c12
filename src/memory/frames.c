/*
 * Page tables that were moved whole: see frames.h.
 *
 * The argument. Between two rounds every page that is written, or moved one by one, gets its soft-dirty bit. A page without
 * the bit whose frame lay at the same address in the last round was therefore there all the time (or went away and came
 * back with its page table), and so was its page table with all other pages in it: one such witness clears a table.
 * A table without one is taken for moved, and all its pages are reported once more; what else changes frames (migration, swap,
 * merging) costs traffic and nothing else. Witnesses are spread, eight in a table, and pages without the bit are preferred,
 * as they are the ones that tend to stay.
 * One thread.
 */
#include "memory/frames.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/page.h"
#include "memory/kernel-api.h"
#include "memory/scan.h"

#define TABLE_PAGES 512
#define WITNESS_PAGES (TABLE_PAGES / FRAME_WITNESSES)

static void list_free(struct frame_list *l)
{
	free(l->tables);
	*l = (struct frame_list){ 0 };
}

void frames_free(struct frames *f)
{
	list_free(&f->before);
	list_free(&f->now);
}

void frames_begin(struct frames *f)
{
	f->now.n_tables = 0;
}

void frames_end(struct frames *f)
{
	struct frame_list spare = f->before;

	f->before = f->now;
	f->now = spare;
}

static const struct frame_table *find_table(const struct frame_list *l, uint64_t number)
{
	size_t from = 0, to = l->n_tables;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (l->tables[middle].number < number)
			from = middle + 1;
		else
			to = middle;
	}
	return from < l->n_tables && l->tables[from].number == number ? &l->tables[from] : NULL;
}

/* The last table of the list, made when it is another: addresses ascend. */
static struct frame_table *table_to_note(struct frame_list *l, uint64_t number)
{
	if (l->n_tables && l->tables[l->n_tables - 1].number == number)
		return &l->tables[l->n_tables - 1];
	if (l->n_tables == l->n_allocated) {
		size_t n = l->n_allocated ? l->n_allocated * 2 : 64;
		struct frame_table *grown = reallocarray(l->tables, n, sizeof(*grown));

		if (!grown)
			return NULL;
		l->tables = grown;
		l->n_allocated = n;
	}
	l->tables[l->n_tables] = (struct frame_table){ .number = number };
	return &l->tables[l->n_tables++];
}

/* What tells a page: its frame, or its place in the swap. */
static uint64_t frame_of(uint64_t word)
{
	return word & (PAGEMAP_FRAME_MASK | PAGEMAP_SWAPPED);
}

/* Pages [first, first + n) of the table `number`, all there is of it in these words. */
static int note_table(struct frame_list *l, uint64_t number, size_t first, const uint64_t *words, size_t n,
		      uint64_t zero_frame)
{
	struct frame_table *table = NULL;
	uint8_t clean = 0;

	for (size_t i = 0; i < n; i++) {
		size_t page = first + i, k = page / WITNESS_PAGES;
		bool dirty = words[i] & PAGEMAP_SOFT_DIRTY;

		if ((clean & 1U << k) || !scan_word_populated(words[i], true, zero_frame))
			continue;
		if (!table)
			table = table_to_note(l, number);
		if (!table)
			return -ENOMEM;
		if (dirty && (table->known & 1U << k))
			continue;
		table->known |= (uint8_t)(1U << k);
		table->page[k] = (uint16_t)page;
		table->frame[k] = frame_of(words[i]);
		clean |= (uint8_t)(dirty ? 0 : 1U << k);
	}
	return 0;
}

/* The word of any page of the process: from those at hand, or, beyond the mapping that is being scanned, from the kernel. */
static uint64_t word_at(const struct scan_request *q, const uint64_t *words, size_t n, uint64_t page)
{
	uint64_t i = page - (q->at >> PAGE_SHIFT), word = 0; /* wraps for pages before */

	if (i < n)
		return words[i];
	if (pread(q->pagemap_fd, &word, sizeof(word), (off_t)(page << 3)) != (ssize_t)sizeof(word))
		return 0;
	return word;
}

static bool has_witness(const struct frame_table *table, const struct scan_request *q, const uint64_t *words, size_t n)
{
	for (size_t k = 0; table && k < FRAME_WITNESSES; k++) {
		uint64_t word;

		if (!(table->known & 1U << k))
			continue;
		word = word_at(q, words, n, table->number * TABLE_PAGES + table->page[k]);
		if (!(word & PAGEMAP_SOFT_DIRTY) && (word & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) &&
		    frame_of(word) == table->frame[k])
			return true;
	}
	return false;
}

int frames_mark_moved(const struct scan_request *q, uint64_t *words, size_t n, uint64_t zero_frame)
{
	struct frames *f = q->frames;

	for (size_t i = 0, part; i < n; i += part) {
		uint64_t at = (q->at >> PAGE_SHIFT) + i, number = at / TABLE_PAGES;
		size_t first = at % TABLE_PAGES;
		int r;

		part = MIN(n - i, (size_t)TABLE_PAGES - first);
		r = q->note_frames ? note_table(&f->now, number, first, words + i, part, zero_frame) : 0;
		if (r < 0)
			return r;
		if (has_witness(find_table(&f->before, number), q, words, n))
			continue;
		for (size_t k = i; k < i + part; k++)
			if (scan_word_populated(words[k], true, zero_frame))
				words[k] |= PAGEMAP_SOFT_DIRTY;
	}
	return 0;
}
