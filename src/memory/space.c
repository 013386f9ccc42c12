/*
 * Runs of pages: see space.h. Pure; not for use by two threads at once.
 */
#include "memory/space.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/array.h"

static bool run_continues(const struct page_run *last, const struct page_run *next)
{
	uint64_t bytes = last->pages << PAGE_SHIFT;

	return last->space == next->space && last->pid == next->pid && last->in_images == next->in_images &&
	       last->address + bytes == next->address && last->pid_address + bytes == next->pid_address;
}

int page_runs_add(struct page_runs *runs, const struct page_run *run)
{
	if (!run->pages)
		return 0;
	if (runs->n_runs && run_continues(&runs->runs[runs->n_runs - 1], run)) {
		runs->runs[runs->n_runs - 1].pages += run->pages;
		runs->pages += run->pages;
		return 0;
	}
	if (array_grow(&runs->runs, runs->n_runs, &runs->n_allocated, 64, sizeof(*runs->runs)) < 0)
		return -ENOMEM;
	runs->runs[runs->n_runs++] = *run;
	runs->pages += run->pages;
	return 0;
}

void page_runs_free(struct page_runs *runs)
{
	free(runs->runs);
	*runs = (struct page_runs){ 0 };
}
