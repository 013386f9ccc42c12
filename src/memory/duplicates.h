/*
 * Which pages have bytes that the target has already: what was sent, by content (source).
 *
 * A page that is to be sent is looked up, and noted when its bytes were not known. What is found is exact when the page that is referred to
 * still has those bytes at the target when the reference arrives. That is so because
 *   - a page goes at most once per round, and a round begins when the last one was acknowledged: a page of an earlier round that is not on
 *     this round's list stays as it is until this round is over, and those that are on it are forgotten as the round begins;
 *   - a page of this round went over some data channel as its n-th one, and stays as it is until the round is over: the target waits for
 *     the n-th page of that channel (never in a circle, because a page is noted before any other can refer to it);
 *   - after a broken link all is forgotten.
 *
 * The index is bounded; what it has no room for is sent again. XXH3-128 with a secret drawn at random, so that nobody can make two pages
 * that are taken for one another. Thread-safe, duplicates_begin() and duplicates_clear() excepted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "memory/space.h"

struct duplicates;

/* Where the target has a page. */
struct page_copy {
	uint64_t address;
	uint64_t position; /* as so manieth page of the channel, in this round; 0: since an earlier round */
	uint32_t space;
	uint32_t channel;
};

int duplicates_new(struct duplicates **ret); /* 0, -ENOMEM */
void duplicates_free(struct duplicates *d);

/* A round begins: what stands on its list is known no more, and what remains is of earlier rounds. last: nothing is, which is quick. 0,
 * -ENOMEM. */
int duplicates_begin(struct duplicates *d, const struct page_runs *runs, bool last);
void duplicates_clear(struct duplicates *d);

/* The page that is about to go as *self: whether its bytes are known, and where from; else they are, from now on. */
bool duplicates_look(struct duplicates *d, const uint8_t *page, const struct page_copy *self, struct page_copy *ret);

/* One page in 16 or so, chosen by its content, so that all pages that are the same are chosen or none of them is. */
bool duplicates_sampled(const uint8_t *page);

/* What looking lately brought: sums that fade by half when they grow old. */
struct duplicates_search {
	uint64_t looked, found;
};

void duplicates_search_add(struct duplicates_search *s, uint64_t looked, uint64_t found);

/* Whether to look at every page: looking costs little beside sending, or finds enough. Else only at the sampled ones. Pure. */
bool duplicates_search_pays(const struct duplicates_search *s, uint64_t link_rate);
