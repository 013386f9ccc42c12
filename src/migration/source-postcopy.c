/*
 * The source's stages of post-copy (docs/postcopy.md): what is left at the freeze stays here, the target resumes without it, and the
 * stopped tasks' memory is given out until the target has all of it. Only then are they ended.
 *
 * Invariants: nothing of it is begun unless the user allowed it. The journal stays at `committed` until every page is over there: to this side that is
 * what it was before, a copy that never resumes by itself; and it has the spaces, so that a later phaul can go on serving.
 *
 * Threads: that of source.c; leaving pages behind, that of the final pass.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "migration/recover.h"
#include "migration/source-internal.h"

/* All of it, when nothing was copied before; else as the policy says. */
bool source_postcopy_wanted(const struct source *s)
{
	return s->result.n_iterations ? policy_course(s->decision) == POLICY_COURSE_POSTCOPY : s->options->postcopy;
}

static uint64_t best_rate(const struct source *s)
{
	double best = 0;

	for (size_t i = 0; i < s->result.n_iterations; i++)
		if (s->rounds[i].ns)
			best = MAX(best, (double)s->rounds[i].bytes * (double)NS_PER_S / (double)s->rounds[i].ns);
	return (uint64_t)best;
}

int source_postcopy_arm(struct source *s, struct error *err)
{
	/* Called again after a break. */
	int r = s->postcopy.server ? 0 : page_server_new(s->encodings, &s->postcopy.server, err);

	if (r < 0)
		return r;
	source_link(s, &s->postcopy.link);
	s->postcopy.session = &s->session;
	s->postcopy.pacer = &s->pacer;
	s->postcopy.reconnect_ms = s->options->reconnect_ms;
	s->postcopy.window_bytes = s->result.n_iterations ? postcopy_window(best_rate(s), s->round_trip_ns) : 0;
	return postcopy_open(&s->postcopy, err);
}

static pid_t pid_of_space(const struct source *s, uint32_t id)
{
	const struct space *spaces;
	size_t n = tracker_spaces(s->tracker, &spaces);

	for (size_t i = 0; i < n; i++)
		if (spaces[i].id == id)
			return spaces[i].pid;
	return 0;
}

/* The last list does not go now. */
int source_postcopy_leave(struct source *s, struct error *err)
{
	struct range_set *sets = calloc(s->present.n + 1, sizeof(*sets));
	int r = sets ? 0 : -ENOMEM;

	s->missing_sets = sets;
	for (size_t i = 0; i < s->runs.n_runs && !r; i++) {
		const struct page_run *run = &s->runs.runs[i];

		for (size_t k = 0; k < s->present.n && !r; k++)
			if (s->present.parts[k].space == run->space)
				r = range_set_add(&sets[k], run->address, run->address + (run->pages << PAGE_SHIFT));
	}
	if (r < 0)
		return error_set(err, ENOMEM, "no memory for the list of pages that stay");
	for (size_t k = 0; k < s->present.n; k++) {
		s->present.parts[k].missing = (uint64_t *)sets[k].ranges;
		s->present.parts[k].n_missing = sets[k].n_ranges * 2;
		s->result.postcopy_pages += range_set_total(&sets[k]) >> PAGE_SHIFT;
	}
	page_runs_free(&s->runs);
	return 0;
}

/* Whose memory is given out, for us and for a later phaul. On disk with the next record, before anything is asked for. */
int source_postcopy_prepare(struct source *s, struct error *err)
{
	_cleanup_free_ struct page_server_space *spaces = calloc(s->present.n + 1, sizeof(*spaces));
	_cleanup_buffer_ struct buffer text = { 0 };
	int r = spaces ? 0 : -ENOMEM;

	for (size_t i = 0; i < s->present.n && !r; i++) {
		spaces[i] = (struct page_server_space){ s->present.parts[i].space,
							pid_of_space(s, s->present.parts[i].space) };
		r = buffer_printf(&text, "%s%u:%d", i ? " " : "", spaces[i].space, spaces[i].pid);
	}
	if (!r)
		r = buffer_append(&text, "", 1);
	if (!r)
		r = page_server_set_spaces(s->postcopy.server, spaces, s->present.n);
	if (r < 0)
		return error_set(err, ENOMEM, "no memory for post-copy");
	return journal_note_text(s->journal, RECOVER_SPACES, (const char *)text.data, err);
}

int source_stage_postcopy(struct source *s, struct error *err)
{
	struct migration_progress *progress = &s->event->progress;
	struct page_server_counters counters;
	int r;

	if (!s->postcopy.server)
		return STAGE_DONE;
	if (!s->running_at_ns) {
		s->running_at_ns = clock_now_ns();
		s->postcopy.link.cancel_fd = s->options->cancel_fd;
		pacer_set_rate(&s->pacer, s->options->bandwidth);
		log_info("it runs at the target; %" PRIu64 " pages follow", s->result.postcopy_pages);
	}
	r = postcopy_step(&s->postcopy, err);
	page_server_progress(s->postcopy.server, &counters);
	s->result.postcopy_pages_urgent = counters.pages_urgent;
	s->result.postcopy_reconnects = s->postcopy.reconnects;
	if (r < 0)
		return error_wrap(
			err,
			"the workload runs at the target and waits there for what is left here (phaul resume %s "
			"goes on)",
			s->id_text);
	if (!r) {
		s->event->kind = EVENT_PROGRESS;
		progress->round = s->round;
		progress->pages_done = counters.pages;
		progress->pages_round = s->result.postcopy_pages;
		return STAGE_AGAIN;
	}
	s->result.postcopy_ns = clock_now_ns() - s->running_at_ns;
	s->result.bytes_wire += counters.bytes_out;
	s->result.pages_sent += counters.pages;
	log_info("the target has all pages after %" PRIu64 " ms", (uint64_t)(s->result.postcopy_ns / NS_PER_MS));
	page_server_free(TAKE_PTR(s->postcopy.server));
	return STAGE_DONE;
}

void source_postcopy_end(struct source *s)
{
	page_server_free(TAKE_PTR(s->postcopy.server));
	for (size_t i = 0; s->missing_sets && i < s->present.n; i++)
		range_set_free(&s->missing_sets[i]);
	free(TAKE_PTR(s->missing_sets));
}
