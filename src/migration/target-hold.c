/*
 * The target without its source: the link broke while the workload's memory came (`receiving`: what came is kept for as long as the
 * source looks for us, and then forgotten), when it was complete here (`prepared`) or running already.
 *
 * Invariants: nothing that is prepared is let go without COMMIT or the operator's word; nothing of it is forgotten without ABORT or the operator (a
 * signal to this process is one). A control channel is taken only from the host that began the session.
 * Threads: the worker's.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "migration/recover.h"
#include "migration/target-internal.h"

#define STATE(name) PHAUL__WIRE__TARGET_STATE__TARGET_STATE_##name
#define WORD_OBEYED_MS 10000
#define LOOK_MS 50
#define WORD_MS 500	/* how often the operator's word is looked for */
#define REJOIN_MS 10000 /* for handshake and first frame */
#define ROUND_TIMEOUT_MS 60000
#define RUNNING_HOLD_MS 60000 /* afterwards the journal answers for us */

static const Phaul__Wire__TargetState wire_states[STATE_MAX] = {
	[STATE_PLANNED] = STATE(RECEIVING), [STATE_RECEIVING] = STATE(RECEIVING), [STATE_PREPARED] = STATE(PREPARED),
	[STATE_RESUMING] = STATE(RESUMING), [STATE_RUNNING] = STATE(RUNNING),	  [STATE_ABORTED] = STATE(ABORTED),
};

bool target_holds(const struct target *t, int failure)
{
	enum migration_state state = t->journal ? journal_state(t->journal) : STATE_INVALID;

	return (state == STATE_PREPARED || state == STATE_RUNNING ||
		(state == STATE_RECEIVING && t->reconnect_ms && t->receiver)) &&
	       (failure == -ECONNRESET || failure == -ETIMEDOUT || failure == -EPIPE);
}

void target_lose_link(struct target *t, const struct error *failure)
{
	log_warning("the link to the source is lost in state %s: %s", state_name(journal_state(t->journal)),
		    failure->text);
	channel_free(TAKE_PTR(t->session.control));
	t->hold_until_ns = deadline_in_ms(RUNNING_HOLD_MS);
	/* Nothing waits any more for what runs: its tables need not stay until the source is back. */
	if (journal_state(t->journal) == STATE_RUNNING)
		target_net_settle(t);
	if (journal_state(t->journal) != STATE_RECEIVING)
		return;
	t->hold_until_ns = deadline_in_ms(t->reconnect_ms);
	receiver_stop(t->receiver);
	target_end_passes(t);
}

/* In the place of the old one. */
static void take_control(struct target *t, struct channel *channel)
{
	log_info("%s is back", channel_peer(channel));
	/* The old ones are of no use without it, and must not be taken for a break of the new one. */
	if (journal_state(t->journal) == STATE_RECEIVING && t->receiver)
		receiver_stop(t->receiver);
	channel_free(t->session.control);
	t->session.control = channel;
	channel_set_timeout(channel, t->options->timeout_ms);
	channel_set_cancel_fd(channel, t->options->cancel_fd);
}

/* One of them. */
static int take_channel(struct target *t, uint64_t deadline_ns, struct error *err)
{
	_cleanup_channel_ struct channel *channel = NULL;
	enum frame_channel_kind kind;
	uint32_t index;
	int r = target_accept_channel(t, deadline_ns, &channel, &kind, &index, err);

	if (r < 0)
		return r;
	if (kind == CHANNEL_KIND_CONTROL) {
		take_control(t, TAKE_PTR(channel));
		return 1;
	}
	if (kind == CHANNEL_KIND_DATA
		    ? index >= t->data_channels
		    : kind != CHANNEL_KIND_FS || index >= MIGRATION_PASSES_MAX || t->fs_channels[index])
		return error_set(err, EPROTO, "%s opened a channel that is not due", channel_peer(channel));
	/* Silence on these is normal: a data channel has nothing to say between rounds. The control channel finds a dead peer. */
	channel_set_timeout(channel, -1);
	if (kind == CHANNEL_KIND_FS) {
		t->fs_channels[index] = TAKE_PTR(channel);
		return 0;
	}
	/* Who opens one knows what came on the old ones. */
	if (t->resumed_copy)
		receiver_reset(t->receiver);
	t->resumed_copy = false;
	return receiver_add(t->receiver, index, TAKE_PTR(channel), err);
}

/* While channels are due: whether the source says something instead (that it gives up), or is gone. */
static bool source_speaks(struct target *t, uint64_t deadline_ns)
{
	struct pollfd p[3] = { { .fd = channel_poll_fd(t->session.control), .events = POLLIN },
			       { .fd = route_poll_fd(t->route), .events = POLLIN },
			       { .fd = t->options->cancel_fd, .events = POLLIN } };

	if (channel_has_pending(t->session.control))
		return true;
	return poll(p, 3, deadline_poll_ms(deadline_ns)) > 0 && p[0].revents && !p[1].revents && !p[2].revents;
}

int target_take_channels(struct target *t, struct error *err)
{
	uint64_t deadline = deadline_in_ms(CHANNEL_TIMEOUT_MS);
	int r = 0;

	for (uint32_t i = 0; i < t->further_channels && !r; i++)
		r = source_speaks(t, deadline) ? 1 : take_channel(t, deadline, err);
	return r;
}

int target_await_round(struct target *t, uint32_t round, const char *what, struct error *err)
{
	uint64_t deadline = deadline_in_ms(ROUND_TIMEOUT_MS);
	int r = 0;

	while (!r) {
		r = receiver_wait(t->receiver, round, MIN(deadline, deadline_in_ms(LOOK_MS)), err);
		if (r)
			break;
		if (clock_now_ns() >= deadline)
			r = error_set(err, ETIMEDOUT, "%s %u did not arrive within %d s", what, round,
				      ROUND_TIMEOUT_MS / 1000);
		/* The source found the link broken before we did. */
		else if (t->reconnect_ms && !t->route_gone && fd_wait(route_poll_fd(t->route), POLLIN, 0) == 1)
			r = error_set(err, ECONNRESET, "%s %u did not arrive, and the source dials again", what, round);
	}
	return MIN(r, 0);
}

void target_rejoin(struct target *t)
{
	_cleanup_channel_ struct channel *channel = NULL;
	enum frame_channel_kind kind;
	struct error err = { 0 };
	uint32_t index;
	int r = target_accept_channel(t, deadline_in_ms(REJOIN_MS), &channel, &kind, &index, &err);

	if (!r && kind == CHANNEL_KIND_PAGES && t->fetch) {
		channel_set_timeout(channel, -1);
		r = fetch_attach(t->fetch, index, TAKE_PTR(channel), &err);
		if (!r)
			return;
	} else if (!r && kind != CHANNEL_KIND_CONTROL)
		r = error_set(&err, EPROTO, "%s opened a channel that is not due", channel_peer(channel));
	if (r < 0) {
		log_warning("%s", err.text);
		/* The listener's end: only an answer by the journal, or the operator, is left. */
		t->route_gone = fd_wait(route_poll_fd(t->route), POLLHUP, 0) == 1 && r == -ECONNRESET;
		return;
	}
	take_control(t, TAKE_PTR(channel));
}

/* The operator's word ends the waiting. */
static int obey_word(struct target *t, struct error *err)
{
	switch (journal_word(t->journals, &t->id)) {
	case SIDE_SOURCE:
		return error_set(err, ECANCELED, "the source, or the operator, keeps the source's copy");
	case SIDE_TARGET:
		if (journal_state(t->journal) == STATE_RECEIVING)
			return error_set(err, ECANCELED, "the operator keeps the target's copy, and there is none yet");
		log_warning("it is let go by the word beside the journal");
		return target_release(t, err);
	case SIDE_INVALID:
	case SIDE_MAX:
		break;
	}
	return 0;
}

int target_hold(struct target *t, struct error *err)
{
	struct pollfd p[2] = { { .fd = t->route_gone ? -1 : route_poll_fd(t->route), .events = POLLIN },
			       { .fd = t->options->cancel_fd, .events = POLLIN } };
	enum migration_state state = journal_state(t->journal);
	bool running = state == STATE_RUNNING;

	if (poll(p, 2, WORD_MS) < 0 && errno != EINTR)
		return error_errno(err, errno, "cannot wait for the source");
	if (p[0].revents) {
		target_rejoin(t);
		return 0;
	}
	/* Without the route nobody could bring pages to us any more: another worker will adopt the pager. */
	if (running && (p[1].revents || (t->route_gone && target_lacks_pages(t)) ||
			(clock_now_ns() >= t->hold_until_ns && !target_lacks_pages(t)))) {
		log_warning("the source did not come back; the workload runs here");
		t->finished = true;
		return 0;
	}
	if (p[1].revents)
		return error_set(err, ECANCELED, "the operator ended phaul at the target before the handover");
	if (state == STATE_RECEIVING && t->route_gone)
		return error_set(err, ECONNABORTED,
				 "the link to the source is lost, and the service that could bring it back");
	if (state == STATE_RECEIVING && clock_now_ns() >= t->hold_until_ns)
		return error_set(err, ECONNABORTED, "the source did not come back within %lld s",
				 (long long)t->reconnect_ms / 1000);
	return running ? 0 : obey_word(t, err);
}

/* What came before the link broke, and then the channels anew. */
static int go_on(struct target *t, struct error *err)
{
	Phaul__Wire__Arrived parts[MESSAGE_CHANNELS_MAX], *pointers[MESSAGE_CHANNELS_MAX];
	struct receiver_arrived arrived[MESSAGE_CHANNELS_MAX];
	Phaul__Wire__State part = PHAUL__WIRE__STATE__INIT;
	CONTROL_OF(reply, state, STATE, &part);
	int r;

	receiver_stop(t->receiver);
	target_end_passes(t);
	part.state = STATE(RECEIVING);
	part.here = true;
	part.reason = (char *)"";
	part.n_arrived = receiver_arrived(t->receiver, arrived, MESSAGE_CHANNELS_MAX);
	part.arrived = pointers;
	for (size_t i = 0; i < part.n_arrived; i++) {
		phaul__wire__arrived__init(&parts[i]);
		parts[i].channel = arrived[i].index;
		parts[i].round = arrived[i].round;
		parts[i].pages = arrived[i].pages;
		pointers[i] = &parts[i];
	}
	r = session_send(&t->session, &reply, err);
	if (r < 0)
		return r;
	t->resumed_copy = true;
	return target_take_channels(t, err);
}

static int send_state(struct target *t, Phaul__Wire__TargetState state, bool here, const char *reason,
		      struct error *err)
{
	Phaul__Wire__State part = PHAUL__WIRE__STATE__INIT;
	CONTROL_OF(reply, state, STATE, &part);

	part.state = state;
	part.here = here;
	part.reason = (char *)reason;
	return session_send(&t->session, &reply, err);
}

/* The worker that holds it cannot be reached by its route any more (the service was started again): it looks for a word beside its
 * journal. The source's is as good as the operator's. */
static int await_word(struct target *t, enum migration_side keep, enum migration_state wanted, struct error *err)
{
	uint64_t deadline = deadline_in_ms(WORD_OBEYED_MS);
	struct journal_summary s = { 0 };
	int r = journal_say(t->journals, &t->id, keep, err);

	while (!r) {
		r = journal_read(t->journals, &t->id, &s, err);
		if (r < 0 || state_finished(s.state))
			break;
		if (clock_now_ns() >= deadline || fd_wait(t->options->cancel_fd, POLLIN, deadline_in_ms(LOOK_MS)) == 1)
			return error_set(err, EBUSY, "the phaul that holds it does not answer");
	}
	if (!r && s.state != wanted)
		return error_set(err, ECANCELED, "it is %s: %s", state_name(s.state), s.reason);
	return r;
}

int target_by_word(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	Phaul__Wire__Running part = PHAUL__WIRE__RUNNING__INIT;
	CONTROL_OF(running, running, RUNNING, &part);
	int r;

	t->finished = true;
	if (m->kind_case == PHAUL__WIRE__CONTROL__KIND_COMMIT) {
		r = await_word(t, SIDE_TARGET, STATE_RUNNING, err);
		return r < 0 ? r : session_send(&t->session, &running, err);
	}
	if (m->kind_case == PHAUL__WIRE__CONTROL__KIND_ABORT) {
		r = await_word(t, SIDE_SOURCE, STATE_ABORTED, err);
		return r < 0 ? r : session_send_ready(&t->session, err);
	}
	return error_set(err, EPROTO, "the peer sent %s, which is not due in a session that only settles",
			 message_name(m->kind_case));
}

/* For a session that came anew: what the journal says, after what a crash left was settled. */
static int answer_by_journal(struct target *t, struct error *err)
{
	enum migration_outcome outcome;
	struct journal_summary s;
	struct journal *j = NULL;
	struct error why = { 0 };

	t->finished = true;
	if (journal_read(t->journals, &t->id, &s, &why) < 0)
		return send_state(t, STATE(NONE), false, "", err);
	if (s.side != SIDE_TARGET || strcmp(s.peer_identity, t->identity) != 0)
		return error_set(err, EACCES, "the migration does not belong to %s", t->identity);
	if (s.driven && s.state == STATE_PREPARED) {
		t->finished = false;
		t->by_word = true;
		return send_state(t, STATE(PREPARED), true, "", err);
	}
	if (s.state == STATE_RUNNING && !s.driven && journal_open(t->journals, &t->id, &j, &why) == 0) {
		bool lacks = journal_fact_number(j, POSTCOPY_MARK) && !journal_fact_number(j, RESIDENT_MARK) &&
			     journal_same_boot(j) && target_adopt_pager(t, &j, &why) == 0;

		journal_free(j);
		t->finished = !lacks;
		return send_state(t, STATE(RUNNING), lacks, why.text, err);
	}
	if (!state_finished(s.state) && journal_open(t->journals, &t->id, &j, &why) == 0) {
		if (recover_target(j, SIDE_INVALID, &outcome, &why) < 0)
			log_warning("%s", why.text);
		journal_free(j);
		(void)journal_read(t->journals, &t->id, &s, &why);
	}
	return send_state(t, wire_states[s.state], false, why.text[0] ? why.text : s.reason, err);
}

int target_on_resume(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	if (memcmp(m->resume->migration_id.data, t->id.bytes, sizeof(t->id.bytes)) != 0)
		return error_set(err, EPROTO, "the peer asks for another migration than this session's");
	if (m->resume->go_on && t->journal && journal_state(t->journal) == STATE_RECEIVING && t->receiver)
		return go_on(t, err);
	if (t->journal)
		return send_state(t, wire_states[journal_state(t->journal)], true, "", err);
	if (!t->resume_only)
		return error_set(err, EPROTO, "the peer asks for a migration that this session began");
	return answer_by_journal(t, err);
}
