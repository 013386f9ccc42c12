/*
 * What went out in a round and what of it arrived: after a broken link only the rest is sent again.
 *
 * A data channel keeps the order of what is put into it. So the source notes the pages of each channel in the order in which they
 * go, and the target, asked, only says how many came: they are the first ones of that list.
 */
#pragma once

#include "base/error.h"
#include "memory/space.h"

/* One data channel. */
struct sent {
	const struct page_runs
		*log; /* what was put into it in this round, in order; only space, address and pages are looked at */
	uint64_t arrived; /* the first pages of it came; UINT64_MAX: all */
};

/* The pages of `runs` that no channel has brought to the target, in the order of `runs`, into *ret (empty before). */
int sent_remaining(const struct page_runs *runs, const struct sent *channels, size_t n, struct page_runs *ret,
		   struct error *err);
