/*
 * The source when its link breaks before the freeze: the workload runs on, so there is time to look for the target.
 *
 * All channels of the session are given up together and opened anew, by the session's route and with the same certificates. The
 * target says how many pages came on each data channel; only the rest of the round is sent again (sent.h). A file pass is run again, and
 * rsync finds what is there. Invariants: nothing is sent before the old channels are closed on both sides, so an old version of
 * a page cannot come after a new one; a page that may not have arrived is referred to by nobody (dedup.h).
 *
 * Threads: that of source.c; the sender's have ended meanwhile.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "migration/sent.h"
#include "migration/source-internal.h"

#define RETRY_MS 250
#define STALLS_MAX 5
#define PASS_BYTES (1U << 20) /* a file pass that sent so much came forward */

bool source_lost_link(const struct source *s, const struct error *err)
{
	return s->begun && s->options->reconnect_ms > 0 &&
	       (err->number == ECONNRESET || err->number == ETIMEDOUT || err->number == EPIPE);
}

static void close_channels(struct source *s)
{
	struct channel *gone = TAKE_PTR(s->session.control);

	sender_stop(s->sender);
	if (gone)
		s->result.bytes_wire += channel_bytes_out(gone) + channel_bytes_in(gone);
	channel_free(gone);
	source_sync_unlink(s);
}

/* The rest of the round that was under way, into s->sending. */
static int keep_remaining(struct source *s, const Phaul__Wire__State *state, struct error *err)
{
	struct page_runs rest = { 0 };
	struct sent channels[MESSAGE_CHANNELS_MAX];
	uint64_t before = s->sending.pages;
	size_t n = s->options->channels;
	int r;

	for (size_t i = 0; i < n; i++)
		channels[i] = (struct sent){ sender_sent(s->sender, i), 0 };
	/* What came behind the barrier of the round before is of this one. */
	for (size_t i = 0; i < state->n_arrived; i++) {
		const Phaul__Wire__Arrived *a = state->arrived[i];

		if (a->channel < n)
			channels[a->channel].arrived = a->round >= s->round ? UINT64_MAX : a->pages;
	}
	r = sent_remaining(&s->sending, channels, n, &rest, err);
	if (r < 0) {
		page_runs_free(&rest);
		return r;
	}
	page_runs_free(&s->sending);
	s->sending = rest;
	for (size_t i = 0; i < rest.n_runs; i++)
		dedup_forget(s->dedup, rest.runs[i].space, rest.runs[i].address, rest.runs[i].pages);
	log_info("round %u goes on: %llu of its pages had come, %llu are to be sent", s->round,
		 (unsigned long long)(before - rest.pages), (unsigned long long)rest.pages);
	return 0;
}

/* -ETIMEDOUT and the like: not now; -ECONNABORTED and the rest: never. */
static int try_once(struct source *s, const struct handover_link *link, struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	int r = handover_rejoin(link, &s->session, &reply, err);

	/* First: the target remembers what came only until it has new channels. */
	if (!r && s->round_under_way)
		r = keep_remaining(s, reply->state, err);
	if (!r && s->round_under_way)
		r = source_converge_keep(s, &s->sending, err);
	if (!r)
		r = source_open_channels(s, err);
	if (!r && s->round_under_way)
		r = sender_start(s->sender, s->round, &s->sending, SENDER_AGAIN, err);
	s->spoke_ns = s->progress_ns = clock_now_ns();
	s->progress_bytes = sender_bytes_out(s->sender);
	return r;
}

/* What cannot become better by waiting. */
static bool hopeless(int r)
{
	return r == -ECONNABORTED || r == -ECANCELED || r == -ENOMEM || r == -EPROTO;
}

/* Whether the copy came forward since the last time. */
static bool stalls(struct source *s)
{
	struct source_progress now = { s->stage, s->sync_next, s->round, s->sending.pages }, *was = &s->stalled;
	bool same = now.stage == was->stage && now.path == was->path && now.round == was->round &&
		    now.pages_left == was->pages_left && source_sync_bytes(s) < PASS_BYTES;

	s->stalls = same ? s->stalls + 1 : 0;
	s->stalled = now;
	return s->stalls >= STALLS_MAX;
}

int source_reconnect(struct source *s, struct error *err)
{
	uint64_t began = clock_now_ns(), deadline = deadline_in_ms(s->options->reconnect_ms);
	struct handover_link link;
	struct error why = { 0 };
	int r;

	/* It may not be the link at all: the target that fails closes it, and says why. */
	source_prefer_reason(s, err);
	if (!source_lost_link(s, err) || stalls(s))
		return -err->number;
	log_warning("the link to the target is lost: %s; looking for it for %lld s, the workload runs on", err->text,
		    (long long)s->options->reconnect_ms / 1000);
	close_channels(s);
	source_converge_pause(s);
	source_link(s, &link);
	for (;;) {
		r = try_once(s, &link, &why);
		if (!r)
			break;
		close_channels(s);
		if (hopeless(r) || clock_now_ns() >= deadline)
			break;
		log_debug("not yet: %s", why.text);
		if (fd_wait(s->options->cancel_fd, POLLIN, MIN(deadline, deadline_in_ms(RETRY_MS))) == 1) {
			r = error_set(&why, ECANCELED, "canceled while the target was looked for");
			break;
		}
	}
	if (!r)
		r = source_converge_go_on(s, &why);
	if (!r) {
		s->result.reconnects++;
		log_info("the link is back after %llu ms", (unsigned long long)((clock_now_ns() - began) / NS_PER_MS));
		return 0;
	}
	s->target_gave_up = r == -ECONNABORTED;
	s->link_given_up = r < 0 && !s->session.control && !hopeless(r);
	if (s->link_given_up)
		return error_set(err, ETIMEDOUT, "the link to the target did not come back within %lld s: %s",
				 (long long)s->options->reconnect_ms / 1000, why.text);
	*err = why;
	return r;
}
