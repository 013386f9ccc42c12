/*
 * A set of pages, by space and address: one bit a page, in windows of 128 MiB that are made when they are first needed.
 *
 * For one thread at a time. Pages may lie anywhere below SPACE_ADDRESS_MAX.
 */
#pragma once

#include <stdbool.h>

#include "memory/space.h"

struct page_bits;

int page_bits_new(struct page_bits **ret); /* 0, -ENOMEM */
void page_bits_free(struct page_bits *b);
static inline void page_bits_freep(struct page_bits **b)
{
	page_bits_free(*b);
}
#define _cleanup_page_bits_ _cleanup_(page_bits_freep)

/* Adds pages; 0, or -ENOMEM and then some of them are missing. */
int page_bits_set(struct page_bits *b, uint32_t space, uint64_t address, uint64_t pages);
int page_bits_set_runs(struct page_bits *b, const struct page_runs *runs);

/* How many of the pages from address on (at least 1, at most `pages`) are alike: all in the set, or none. pages >= 1. */
uint64_t page_bits_part(const struct page_bits *b, uint32_t space, uint64_t address, uint64_t pages, bool *ret_inside);

/* Appends those pages of `runs` that are in the set (inside), or those that are not. 0, -ENOMEM. */
int page_runs_select(const struct page_runs *runs, const struct page_bits *b, bool inside, struct page_runs *ret);
