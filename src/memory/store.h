/*
 * The store: what the target has received, one memfd per space, file offset = address.
 *
 * store_put_* may be called by several threads at once for different pages (channels split pages by address and
 * rounds are separated by barriers, so one page is never written by two at a time).
 */
#pragma once

#include "base/error.h"
#include "memory/codec.h"
#include "memory/space.h"

struct store;

/* limit_bytes: refuse (-ENOSPC, with a sentence) to hold more than that; 0: no limit. */
int store_new(uint64_t limit_bytes, struct store **ret, struct error *err);
void store_free(struct store *s);

/* Where the next `pages` pages of that space can be received into directly (a shared mapping of the memfd); at most
 * up to the end of the store's window: *ret_pages <= pages. -EINVAL: space or address out of bounds. */
int store_window(struct store *s, uint32_t space, uint64_t address, uint32_t pages, uint8_t **ret, uint32_t *ret_pages,
		 struct error *err);

/* Marks pages as received, after their bytes were written through store_window(). */
int store_commit(struct store *s, uint32_t space, uint64_t address, uint32_t pages, struct error *err);

/* Received as zeros: a hole, if there was anything. */
int store_put_zero(struct store *s, uint32_t space, uint64_t address, uint32_t pages, struct error *err);

/* Decodes (codec.h) straight into place. */
int store_put(struct store *s, uint32_t space, uint64_t address, uint32_t pages, enum page_encoding encoding,
	      const uint8_t *payload, size_t payload_bytes, struct error *err);

/* Copies pages out; -ENOENT where a page was never received. */
int store_get(struct store *s, uint32_t space, uint64_t address, uint32_t pages, uint8_t *out, struct error *err);

/* Forgets everything of a SPACE_PROCESS outside its present map, and checks that everything inside was received:
 * -ENODATA with the first missing address otherwise (fatal before the commit, by design). */
int store_apply_present(struct store *s, uint32_t space, const struct range_set *present, struct error *err);

/* Drops a space altogether. */
void store_drop(struct store *s, uint32_t space);

/* Makes a space that has no page yet, for pages that come later. */
int store_open_space(struct store *s, uint32_t space, struct error *err);

/* The memfd of a space (owned by the store), or -1. */
int store_fd(struct store *s, uint32_t space);
uint64_t store_bytes(const struct store *s); /* held now */
