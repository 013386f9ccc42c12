/*
 * The target's side of post-copy (docs/postcopy.md): the workload runs, pages are still at the source.
 *
 * Invariants: what may be old in the store is forgotten before the pager sees it, so a page is right or missing. While pages are missing
 * this process does not end by itself: nobody else has the channels that bring them.
 * Threads: that of target.c; the fetch has its own (fetch.c).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "migration/recover.h"
#include "migration/target-internal.h"

int target_take_page_channels(struct target *t, uint32_t n, struct error *err)
{
	uint64_t deadline = deadline_in_ms(CHANNEL_TIMEOUT_MS);
	int r = 0;

	for (uint32_t i = 0; i < n && !r; i++) {
		_cleanup_channel_ struct channel *channel = NULL;
		enum frame_channel_kind kind;
		uint32_t index;

		r = target_accept_channel(t, deadline, &channel, &kind, &index, err);
		if (r < 0)
			return r;
		if (kind != CHANNEL_KIND_PAGES || index >= PAGE_CHANNELS)
			return error_set(err, EPROTO, "%s opened a channel that is not due", channel_peer(channel));
		channel_set_timeout(channel, -1);
		channel_free(t->page_channels[index]); /* asked again after a break */
		t->page_channels[index] = TAKE_PTR(channel);
	}
	return r;
}

/* What the store keeps: what is present and not missing. */
static int subtract(struct range_set *ret, const struct range_set *present, const struct range_set *missing)
{
	size_t at = 0;
	int r = 0;

	/* Both ascend; pieces are added in order, so this takes one walk over both. */
	for (size_t i = 0; i < present->n_ranges && !r; i++) {
		uint64_t from = present->ranges[i].start;

		for (; at < missing->n_ranges && missing->ranges[at].end <= present->ranges[i].end && !r; at++) {
			if (missing->ranges[at].start < from)
				return -EPROTO;
			r = range_set_add(ret, from, missing->ranges[at].start);
			from = missing->ranges[at].end;
		}
		if (at < missing->n_ranges && missing->ranges[at].start < present->ranges[i].end)
			return -EPROTO;
		if (!r)
			r = range_set_add(ret, from, present->ranges[i].end);
	}
	return r < 0 ? r : at < missing->n_ranges ? -EPROTO : 0;
}

int target_apply_missing(struct target *t, uint32_t space, const struct range_set *present,
			 const struct range_set *missing, struct error *err)
{
	_cleanup_range_set_ struct range_set here = { 0 };
	int r = missing->n_ranges && !t->page_channels[0]
			? error_set(err, EPROTO, "the peer keeps pages back without a channel for them")
			: subtract(&here, present, missing);

	if (r == -EPROTO && !err->number)
		return error_set(err, EPROTO, "the peer keeps pages of space %u back that do not exist", space);
	if (r == -ENOMEM)
		return error_set(err, ENOMEM, "no memory for the present maps");
	if (!r && missing->n_ranges)
		r = store_open_space(t->store, space, err);
	return r < 0 ? r : store_apply_present(t->store, space, &here, err);
}

int target_start_fetch(struct target *t, struct error *err)
{
	int r;

	if (!t->page_channels[0])
		return 0;
	/* Whoever finds this journal in `running` knows that the pager may still wait for pages. */
	r = journal_mark(t->journal, POSTCOPY_MARK, err);
	if (!r)
		r = fetch_new(t->pager, &t->fetch, err);
	for (uint32_t i = 0; i < PAGE_CHANNELS && !r; i++)
		r = fetch_attach(t->fetch, i, TAKE_PTR(t->page_channels[i]), err);
	return r;
}

bool target_lacks_pages(const struct target *t)
{
	return t->fetch && pager_missing(t->pager);
}

int target_adopt_pager(struct target *t, struct journal **j, struct error *err)
{
	char path[4200];
	int r;

	snprintf(path, sizeof(path), "%s/lazy-pages.socket", journal_fact(*j, "work_directory"));
	r = pager_adopt(path, &t->pager, err);
	if (!r)
		r = fetch_new(t->pager, &t->fetch, err);
	if (r < 0)
		return r;
	log_info("takes the place of the phaul that brought pages in; %llu are missing",
		 (unsigned long long)pager_missing(t->pager));
	snprintf(t->work_directory, sizeof(t->work_directory), "%.511s", journal_fact(*j, "work_directory"));
	t->keep_images = journal_fact_number(*j, "keep_images");
	t->resumed_at_ns = clock_now_ns();
	t->journal = TAKE_PTR(*j);
	return 0;
}

int target_on_missing(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	Phaul__Wire__MissingReply part = PHAUL__WIRE__MISSING_REPLY__INIT;
	CONTROL_OF(reply, missing_reply, MISSING_REPLY, &part);
	struct pager_status status = { 0 };
	int r = pager_status(t->pager, &status, err);

	(void)m;
	if (r < 0)
		return r;
	part.pages = t->fetch ? pager_missing(t->pager) : 0;
	part.faults_remote = status.faults_remote;
	return session_send(&t->session, &reply, err);
}

void target_end_fetch(struct target *t)
{
	fetch_free(TAKE_PTR(t->fetch));
	for (uint32_t i = 0; i < PAGE_CHANNELS; i++)
		channel_free(TAKE_PTR(t->page_channels[i]));
}
