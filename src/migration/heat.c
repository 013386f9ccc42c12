/*
 * Which pages are written in every round: see heat.h. Pure; one thread at a time.
 */
#include "migration/heat.h"

#include <errno.h>

void heat_free(struct heat *h)
{
	page_bits_free(h->last);
	page_bits_free(h->twice);
	*h = (struct heat){ 0 };
}

static int split(const struct heat *h, const struct page_runs *written, struct page_runs *ret_hot,
		 struct page_runs *ret_others)
{
	int r = page_runs_select(written, h->twice, true, ret_hot);

	return r < 0 ? r : page_runs_select(written, h->twice, false, ret_others);
}

int heat_look(struct heat *h, const struct page_runs *written, struct page_runs *ret_hot, struct page_runs *ret_others)
{
	_cleanup_(page_runs_free) struct page_runs again = { 0 };
	_cleanup_page_bits_ struct page_bits *last = NULL, *twice = NULL;
	int r = page_bits_new(&last);

	if (!r)
		r = page_bits_new(&twice);
	if (r < 0)
		return r;
	if (h->looks) { /* everything is new to the first look */
		r = page_bits_set_runs(last, written);
		if (!r && h->last)
			r = page_runs_select(written, h->last, true, &again);
		if (!r)
			r = page_bits_set_runs(twice, &again);
	}
	if (!r && h->twice)
		r = split(h, written, ret_hot, ret_others);
	else
		for (size_t i = 0; i < written->n_runs && !r; i++)
			r = page_runs_add(ret_others, &written->runs[i]);
	if (r < 0)
		return r;
	heat_free(&(struct heat){ h->last, h->twice, 0 });
	h->last = TAKE_PTR(last);
	h->twice = TAKE_PTR(twice);
	h->looks++;
	return 0;
}
