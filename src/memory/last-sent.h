/*
 * The versions of pages that were sent last (source): what changed since is all that has to be sent.
 *
 * Exact, because a page goes at most once per round and a round begins when the last one was acknowledged: the version sent in an
 * earlier round is what the target has. Whoever loses the link frees it all, for what was under way may not have come. Bounded; a page
 * that finds no room goes whole. Thread-safe, last_sent_new() and last_sent_free() excepted.
 */
#pragma once

#include <stdbool.h>

#include "base/page.h"
#include "memory/delta.h"

#define LAST_SENT_PAGES_MAX 32768U /* 128 MiB */

struct last_sent;

int last_sent_new(uint64_t pages, struct last_sent **ret); /* room for about so many; 0, -ENOMEM */
void last_sent_free(struct last_sent *l);

/* The page goes in this round, and is remembered. The number of bytes of what changed since the version before (delta.h), or -1: that one is
 * not here, or too much did. */
int last_sent_exchange(struct last_sent *l, uint32_t space, uint64_t address, uint32_t round, const uint8_t *now,
		       uint8_t delta[DELTA_PAGE_MAX]);

/* It goes as something that is not remembered. */
void last_sent_forget(struct last_sent *l, uint32_t space, uint64_t address);

/* Since it was asked last: how often a version was looked for, and how often what changed was little. */
void last_sent_count(struct last_sent *l, uint64_t *ret_looked, uint64_t *ret_found);
