/*
 * Content deduplication for CRIU's pages-*.img (memory.md, "What may not be forgotten").
 *
 * The source remembers a hash (XXH3-128) of every page it sent of spaces that come back in pages-*.img (shared
 * memory, private file pages, locked memory); at the freeze a page of such an image that the target already holds goes as a
 * reference {space, address, hash}. The target checks the hash before it believes.
 */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/page.h"

struct dedup_index;

struct page_hash {
	uint64_t low, high;
};

struct page_reference {
	uint32_t space;
	uint64_t address;
	struct page_hash hash;
};

struct page_hash page_hash_of(const void *page); /* PAGE_BYTES bytes */

int dedup_new(struct dedup_index **ret, struct error *err);
void dedup_free(struct dedup_index *d);

/* The page (space, address) was sent with these bytes; what was remembered of it before is forgotten.
 * Thread-safe. 0 or -ENOMEM. */
int dedup_note(struct dedup_index *d, uint32_t space, uint64_t address, const struct page_hash *hash);

/* The pages from (space, address) on were sent as something that is not remembered (private memory took the place of a file,
 * say): no reference may lead there any more. Thread-safe. */
void dedup_forget(struct dedup_index *d, uint32_t space, uint64_t address, uint64_t pages);

/* A place at the target with these bytes, if any. */
bool dedup_find(struct dedup_index *d, const struct page_hash *hash, struct page_reference *ret);

/* Whether the target's version of (space, address) has this hash: a page need not be sent again. */
bool dedup_is_current(struct dedup_index *d, uint32_t space, uint64_t address, const struct page_hash *hash);
