/*
 * The source while the workload runs: pre-copy rounds, and file passes beside them (source-sync.c).
 *
 * A round: the tracker says what was written, the sender sends it, the target acknowledges its barrier. What the tracker said
 * last is kept in s->runs until then; when the policy freezes, the pages of the last list are still to be sent, and
 * go together with what was written until the freeze.
 *
 * Threads: that of source.c; the senders have their own (sender.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "migration/convert.h"
#include "migration/source-internal.h"
#include "migration/subject.h"

#define PROGRESS_MS 200
#define DIAL_TIMEOUT_MS 10000
#define KEEP_ALIVE_MS 500 /* less than the shortest --timeout of a target, 1 s */
#define ABORT_ANSWER_MS 5000
#define ABORT_AGAIN_MS 10000
#define ABORT_ONCE_MS 2000 /* a target that does not hold it for ever */

int source_open_channel(struct source *s, enum frame_channel_kind kind, uint32_t index, struct channel **ret,
			struct error *err)
{
	struct dial_options dial = {
		.identity = s->identity,
		.timeout_ms = MIN(s->options->timeout_ms, (int64_t)DIAL_TIMEOUT_MS),
		.cancel_fd = s->options->cancel_fd,
		/* Memory goes to the host that the plan was made with, and to no other of the authority. */
		.expected_name = s->identity ? s->peer_identity : NULL
	};
	uint8_t frame[FRAME_HEADER_BYTES + FRAME_CHANNEL_BYTES];
	int r = endpoint_dial(&s->options->target, &dial, s->route, ret, err);

	if (r < 0)
		return r;
	channel_set_timeout(*ret, s->options->timeout_ms);
	channel_set_cancel_fd(*ret, s->options->cancel_fd);
	frame_encode_channel(frame, kind, index);
	return channel_write(*ret, frame, sizeof(frame), err);
}

int source_open_channels(struct source *s, struct error *err)
{
	struct channel *channels[MESSAGE_CHANNELS_MAX] = { 0 };
	uint32_t n = 0;
	int r = 0;

	while (n < s->options->channels && !r)
		r = source_open_channel(s, CHANNEL_KIND_DATA, n, &channels[n], err), n++;
	for (uint32_t i = 0; i < s->n_trees && !r; i++)
		r = source_open_channel(s, CHANNEL_KIND_FS, i, &s->trees[i].channel, err);
	if (!r)
		r = s->sender ? sender_rejoin(s->sender, channels, err)
			      : sender_new(channels, n, s->dedup, s->encodings, &s->sender, err);
	if (!r)
		source_converge_channels(s);
	/* What the sender did not take over. */
	while (n)
		channel_free(channels[--n]);
	return r;
}

int source_stage_begin(struct source *s, struct error *err)
{
	struct journal_subject subject = { SIDE_SOURCE, s->options->type, s->options->id,
					   channel_peer(s->session.control),
					   channel_peer_identity(s->session.control) };
	Phaul__Wire__Begin begin = PHAUL__WIRE__BEGIN__INIT;
	CONTROL_OF(request, begin, BEGIN, &begin);
	int r;

	snprintf(s->journals, sizeof(s->journals), "%s/migrations", s->options->state_directory);
	snprintf(s->peer_identity, sizeof(s->peer_identity), "%s", subject.peer_identity);
	journal_expire(s->journals);
	r = journal_create(s->journals, &s->result.id, &subject, &s->journal, err);
	if (!r)
		r = source_note_facts(s, err);
	if (!r && s->driver->moved)
		r = subject_save(s->journal, &s->workload, &s->driver_options, err);
	if (!r)
		r = dedup_new(&s->dedup, err);
	if (r < 0)
		return r;
	begin.data_channels = s->options->channels;
	begin.fs_channels = (uint32_t)s->n_trees;
	begin.no_start = s->options->no_start;
	begin.keep_images = s->options->keep_images;
	begin.reconnect_ms = (uint32_t)s->options->reconnect_ms;
	s->begun = true;
	source_engine_patience(s, true);
	r = source_call_begin(s, &request, err);
	source_engine_patience(s, false);
	if (!r)
		r = source_open_channels(s, err);
	return r < 0 ? r : journal_enter(s->journal, STATE_COPYING, NULL, err);
}

/* Over new connections, after the old one broke. */
static void abort_again(struct source *s)
{
	int64_t wait_ms = s->may_be_prepared ? ABORT_AGAIN_MS : s->link_given_up ? 0 : ABORT_ONCE_MS;
	struct error err = { 0 };
	struct handover_link link;

	source_link(s, &link);
	link.cancel_fd = -1;
	if (handover_abort(&link, deadline_in_ms(wait_ms), s->result.reason, &err) == 0)
		return;
	if (s->may_be_prepared)
		log_warning("%s; phaul resume %s tries it again", err.text, s->id_text);
	else
		log_info("%s; it gives up by itself after %lld s", err.text,
			 (long long)s->options->reconnect_ms / 1000);
}

/* Tells the target to forget, and waits until it says that it has. Bounded: a target that does not answer gives up by itself some time
 * after the link closes, unless it is prepared. Answers to what was asked before may still come first. */
void source_undo_begin(struct source *s)
{
	Phaul__Wire__Abort abort_part = PHAUL__WIRE__ABORT__INIT;
	CONTROL_OF(request, abort, ABORT, &abort_part);
	struct error err = { 0 };
	int r;

	if (!s->begun || s->take_back || s->target_gave_up)
		return;
	s->begun = false;
	if (!s->session.control) {
		abort_again(s);
		return;
	}
	abort_part.reason = s->result.reason;
	channel_set_cancel_fd(s->session.control, -1);
	channel_set_timeout(s->session.control, ABORT_ANSWER_MS);
	r = session_send(&s->session, &request, &err);
	while (!r || r == -EPROTO) {
		err = (struct error){ 0 };
		r = session_receive(&s->session, PHAUL__WIRE__CONTROL__KIND_READY, NULL, &err);
		if (!r)
			return;
	}
	log_debug("the target's answer to the abort: %s", err.text);
	abort_again(s);
}

static enum tracker_kind tracker_wanted(const char *name)
{
	if (!strcmp(name, "write-protect"))
		return TRACKER_WRITE_PROTECT;
	if (!strcmp(name, "soft-dirty"))
		return TRACKER_SOFT_DIRTY;
	return strcmp(name, "none") ? TRACKER_AUTO : TRACKER_NONE;
}

static const char *tracker_name(enum tracker_kind kind)
{
	switch (kind) {
	case TRACKER_WRITE_PROTECT:
		return "write-protect";
	case TRACKER_SOFT_DIRTY:
		return "soft-dirty";
	case TRACKER_NONE:
	case TRACKER_AUTO:
	case TRACKER_KIND_MAX:
		break;
	}
	return "none";
}

/* New processes and mappings, then what was written since the last time. */
static int collect(struct source *s, struct error *err)
{
	_cleanup_free_ pid_t *pids = NULL, *image_pids = NULL;
	_cleanup_(page_runs_free) struct page_runs written = { 0 };
	uint64_t before = clock_now_ns();
	size_t n;
	int r = s->driver->processes(&s->workload, &pids, &image_pids, &n, err);

	if (!r)
		r = tracker_update(s->tracker, TRACKER_ROUND, pids, image_pids, n, err);
	if (r < 0)
		return r;
	r = tracker_collect(s->tracker, TRACKER_ROUND, &written, err);
	s->scan_ns = clock_now_ns() - before;
	s->n_processes = (uint32_t)n;
	return r < 0 ? r : source_converge_look(s, &written, pids, n, err);
}

static int start_tracking(struct source *s, struct error *err)
{
	enum tracker_kind kind = s->options->pre_copy ? tracker_wanted(s->options->tracker) : TRACKER_NONE;
	struct error why = { 0 };
	int r = tracker_new(kind, &s->tracker, err);

	if (r < 0)
		return r;
	s->copy_started_ns = clock_now_ns();
	kind = tracker_kind_of(s->tracker);
	snprintf(s->result.tracker, sizeof(s->result.tracker), "%s", tracker_name(kind));
	if (kind == TRACKER_NONE)
		return 0;
	r = collect(s, err);
	s->result.track_ns = s->scan_ns;
	if (!r && tracker_untracked(s->tracker, &why))
		log_warning("%s: its memory is copied in the freeze", why.text);
	return r;
}

static void tell_progress(struct source *s)
{
	struct migration_progress *p = &s->event->progress;
	uint64_t now = clock_now_ns(), bytes = sender_bytes_out(s->sender);
	struct sender_counters round, all;

	sender_progress(s->sender, &round, &all);
	s->event->kind = EVENT_PROGRESS;
	p->round = s->round;
	p->pages_done = round.pages;
	p->pages_round = s->round_pages;
	if (now > s->progress_ns)
		p->bytes_per_second = (uint64_t)((double)(bytes - s->progress_bytes) * (double)NS_PER_S /
						 (double)(now - s->progress_ns));
	if (s->result.n_iterations) {
		const struct migration_iteration *last = &s->result.iterations[s->result.n_iterations - 1];

		p->dirty_pages_per_second = last->ns ? last->written_pages * NS_PER_S / last->ns : 0;
		p->estimate_ns = s->result.predicted_frozen_ns;
	}
	s->progress_ns = now;
	s->progress_bytes = bytes;
}

enum round_kind {
	ROUND_USUAL,
	ROUND_LAST, /* the target is armed, nothing else is waited for */
};

/* Copying stands back for whoever else wants the processors, at both ends, as long as it gets ahead of the workload. */
static bool has_time(const struct source *s)
{
	const struct migration_iteration *last = &s->result.iterations[MAX(s->result.n_iterations, 1UL) - 1];

	return !s->result.n_iterations || last->dirty_pages < last->pages / 2;
}

/* The target hears of it with the next sign of life, which is due at once. */
static void set_hurry(struct source *s, bool hurry)
{
	if (s->hurry != hurry)
		s->spoke_ns = 0;
	s->hurry = hurry;
	sender_set_gentle(s->sender, !hurry);
}

static int start_round(struct source *s, enum round_kind kind, struct error *err)
{
	int r;

	s->round++;
	s->round_pages = s->sending.pages;
	s->round_started_ns = s->progress_ns = clock_now_ns();
	s->progress_bytes = sender_bytes_out(s->sender);
	s->round_under_way = true;
	if (s->round > 1)
		source_busy_note(s, &s->sending);
	set_hurry(s, kind != ROUND_USUAL || !has_time(s));
	r = sender_start(s->sender, s->round, &s->sending, SENDER_ROUND, err);
	if (r < 0)
		return r;
	tell_progress(s);
	return STAGE_AGAIN;
}

static int await_round_done(struct source *s, struct error *err)
{
	Phaul__Wire__Round part = PHAUL__WIRE__ROUND__INIT;
	CONTROL_OF(request, round, ROUND, &part);

	part.number = s->round;
	part.pages = s->round_pages;
	return session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_ROUND_DONE, NULL, err);
}

int source_ping(struct source *s, struct error *err)
{
	Phaul__Wire__Ping ping = PHAUL__WIRE__PING__INIT;
	CONTROL_OF(request, ping, PING, &ping);

	ping.hurry = s->hurry;
	s->spoke_ns = clock_now_ns();
	return session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_PING, NULL, err);
}

/* While a long round goes on nothing else is said on the control channel: show that we are there. */
int source_keep_alive(struct source *s, struct error *err)
{
	return clock_now_ns() - s->spoke_ns < KEEP_ALIVE_MS * NS_PER_MS ? 0 : source_ping(s, err);
}

/* A round is over: what did it bring, and what was written meanwhile? */
static int end_round(struct source *s, struct error *err)
{
	struct migration_iteration *it = &s->result.iterations[s->result.n_iterations];
	struct sender_counters round, all;
	int r = await_round_done(s, err);

	if (r < 0)
		return r;
	sender_progress(s->sender, &round, &all);
	*it = (struct migration_iteration){ .pages = round.pages - round.pages_gone,
					    .pages_zero = round.by[ENCODING_ZERO].pages,
					    .bytes = round.bytes,
					    .ns = clock_now_ns() - s->round_started_ns,
					    .pages_left_out = s->left.pages,
					    .throttle = s->throttle_percent };
	r = collect(s, err);
	if (r < 0)
		return r;
	it->dirty_pages = s->runs.pages;
	it->written_pages = s->written.pages;
	s->round_under_way = false;
	s->rounds[s->result.n_iterations++] = (struct policy_round){ it->pages, it->bytes, it->ns, it->dirty_pages };
	s->event->kind = EVENT_ITERATION;
	s->event->round = s->round;
	s->event->iteration = *it;
	return STAGE_AGAIN;
}

/* STAGE_AGAIN */
static int follow_round(struct source *s, enum round_kind kind, struct error *err)
{
	int r = sender_wait(s->sender, deadline_in_ms(PROGRESS_MS), err);

	if (r < 0)
		return r;
	if (r == 1)
		return end_round(s, err);
	if (s->options->cancel_fd >= 0 && fd_wait(s->options->cancel_fd, POLLIN, 0) == 1)
		return error_set(err, ECANCELED, "canceled while memory was copied");
	tell_progress(s);
	r = source_converge_check(s, err);
	if (!r)
		r = source_keep_alive(s, err);
	if (!r && kind == ROUND_USUAL)
		r = source_sync_turn(s, err);
	return r < 0 ? r : STAGE_AGAIN;
}

int source_stage_copy(struct source *s, struct error *err)
{
	int r;

	if (!s->tracker) {
		r = start_tracking(s, err);
		if (r < 0)
			return r;
		if (tracker_kind_of(s->tracker) == TRACKER_NONE)
			return STAGE_DONE;
		return start_round(s, ROUND_USUAL, err);
	}
	if (s->round_under_way)
		return follow_round(s, ROUND_USUAL, err);
	/* Told first, done when we are called again. */
	if (!s->decided) {
		s->decided = true;
		s->decision = source_converge_decide(s);
		s->event->kind = EVENT_DECISION;
		s->event->round = s->round;
		s->event->decision = s->decision;
		s->event->estimate_ns = s->result.predicted_frozen_ns;
		return STAGE_AGAIN;
	}
	s->decided = false;
	r = source_converge_act(s, err);
	if (r < 0)
		return r;
	return policy_course(s->decision) == POLICY_COURSE_ROUND ? start_round(s, ROUND_USUAL, err) : STAGE_DONE;
}

/* Not where the user said how many rounds, or that what is left stays behind. */
static bool wants_last_round(const struct source *s)
{
	return tracker_kind_of(s->tracker) != TRACKER_NONE && policy_course(s->decision) == POLICY_COURSE_FREEZE &&
	       !s->timed_out && s->result.n_iterations < MIGRATION_ITERATIONS_MAX &&
	       !(s->options->rounds_asked && s->result.n_iterations >= s->options->max_rounds);
}

int source_last_round(struct source *s, struct error *err)
{
	int r;

	if (s->round_under_way)
		return follow_round(s, ROUND_LAST, err);
	if (s->last_round_begun || !wants_last_round(s))
		return STAGE_DONE;
	s->last_round_begun = true;
	r = source_converge_put_off(s, err);
	if (!r)
		r = collect(s, err);
	if (r < 0 || s->sending.pages <= POLICY_SMALL_PAGES)
		return r;
	return start_round(s, ROUND_LAST, err);
}

void source_undo_copy(struct source *s)
{
	source_converge_end(s);
	if (s->sender)
		s->result.bytes_wire += sender_bytes_out(s->sender);
	sender_free(TAKE_PTR(s->sender));
	tracker_free(TAKE_PTR(s->tracker));
}
