/*
 * Pages that are written in every round: to send them in each is to send them in vain, so they are left for last.
 *
 * A page is hot when the last three looks found it written. The first look finds everything written and does not count.
 */
#pragma once

#include "memory/page-bits.h"

struct heat {
	struct page_bits *last;	 /* written at the last look */
	struct page_bits *twice; /* at the last two */
	uint32_t looks;
};

/* Takes a look's list in; appends its hot pages to ret_hot and the others to ret_others. 0, -ENOMEM. */
int heat_look(struct heat *h, const struct page_runs *written, struct page_runs *ret_hot, struct page_runs *ret_others);
void heat_free(struct heat *h);
