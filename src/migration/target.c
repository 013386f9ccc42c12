/*
 * The target of a migration: one session, message by message.
 *
 * One thread (the receiver has its own). What may come when is the table below, which is the target's half of the handover (the
 * source's half is the table in source.c). Invariants: nothing is done for a message that is not due in the journal's state;
 * anything that fails before the resume ends with target_undo(); after COMMIT nothing is undone.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/logs.h"
#include "migration/hook.h"
#include "migration/target-internal.h"

#define KIND(name) PHAUL__WIRE__CONTROL__KIND_##name
#define IN(state) (1U << (state))
#define LAST_WORD_MS 5000
#define AGAIN 1
#define NO_JOURNAL IN(STATE_INVALID)

static const struct {
	Phaul__Wire__Control__KindCase kind;
	unsigned int states; /* in which it may come */
	int (*handle)(struct target *t, const Phaul__Wire__Control *m, struct error *err);
} table[] = {
	{ KIND(HELLO), NO_JOURNAL, target_on_hello },
	{ KIND(PING), NO_JOURNAL | IN(STATE_RECEIVING) | IN(STATE_PREPARED), target_on_ping },
	{ KIND(PLAN), NO_JOURNAL, target_on_plan },
	{ KIND(BEGIN), NO_JOURNAL, target_on_begin },
	{ KIND(ROUND), IN(STATE_RECEIVING), target_on_round },
	{ KIND(SYNC), IN(STATE_RECEIVING), target_on_sync },
	{ KIND(SYNC_END), IN(STATE_RECEIVING), target_on_sync_end },
	{ KIND(BLOCKS), IN(STATE_RECEIVING), target_on_blocks },
	{ KIND(PROBE), NO_JOURNAL | IN(STATE_RECEIVING), target_on_probe },
	{ KIND(ARM), IN(STATE_RECEIVING), target_on_arm },
	{ KIND(TAKE), IN(STATE_RECEIVING), target_on_take },
	{ KIND(FINISH), IN(STATE_RECEIVING), target_on_finish },
	{ KIND(COMMIT), IN(STATE_PREPARED), target_on_commit },
	{ KIND(MISSING), IN(STATE_RUNNING), target_on_missing },
	{ KIND(DONE), IN(STATE_RUNNING), target_on_done },
	{ KIND(RESUME), NO_JOURNAL | IN(STATE_RECEIVING) | IN(STATE_PREPARED) | IN(STATE_RUNNING), target_on_resume },
	{ KIND(ABORT), NO_JOURNAL | IN(STATE_RECEIVING) | IN(STATE_PREPARED), target_on_abort },
};

static enum migration_state target_state(const struct target *t)
{
	return t->journal ? journal_state(t->journal) : STATE_INVALID;
}

static int handle_message(struct target *t, struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *m = NULL;
	int r = message_decode(t->session.body.data, t->session.body.length, &m, err);

	if (r < 0)
		return r;
	if (!t->greeted && m->kind_case != KIND(HELLO))
		return error_set(err, EPROTO, "the peer began with %s and not with a greeting",
				 message_name(m->kind_case));
	if (t->by_word)
		return target_by_word(t, m, err);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (table[i].kind != m->kind_case)
			continue;
		if (!(table[i].states & IN(target_state(t))))
			break;
		log_debug("%s", message_name(m->kind_case));
		r = hook_reached("target", message_name(m->kind_case), t->options->cancel_fd, err);
		return r < 0 ? r : table[i].handle(t, m, err);
	}
	return error_set(err, EPROTO, "the peer sent %s, which is not due in state %s", message_name(m->kind_case),
			 state_name(target_state(t)));
}

/* Waits for the control channel, but not longer than the data channels are well. */
static int wait_frame(struct target *t, struct error *err)
{
	enum migration_state state = target_state(t);
	bool prepared = state == STATE_PREPARED || state == STATE_RUNNING;
	bool holds = prepared || (state == STATE_RECEIVING && t->reconnect_ms);
	struct pollfd p[4] = { { .fd = channel_poll_fd(t->session.control), .events = POLLIN },
			       { .fd = t->receiver && !prepared ? receiver_failure_fd(t->receiver) : -1,
				 .events = POLLIN },
			       { .fd = t->options->cancel_fd, .events = POLLIN },
			       { .fd = holds && !t->route_gone ? route_poll_fd(t->route) : -1, .events = POLLIN } };
	int n;

	if (channel_has_pending(t->session.control))
		return 0;
	n = poll(p, 4, (int)t->options->timeout_ms);
	if (n < 0 && errno != EINTR)
		return error_errno(err, errno, "cannot wait for the source");
	if (holds && !n)
		return error_set(err, ETIMEDOUT, "the source has been silent for %lld s",
				 (long long)t->options->timeout_ms / 1000);
	/* The source found the link broken before we did. */
	if (p[3].revents && !p[0].revents) {
		target_rejoin(t);
		return AGAIN;
	}
	/* A source that gives up closes everything at once: what it says on the control channel is the better reason. */
	if (p[1].revents && !p[0].revents && target_state(t) == STATE_RECEIVING)
		return receiver_failure(t->receiver, err);
	return 0;
}

static int handle_frame(struct target *t, struct error *err)
{
	struct frame_header header;
	int r = wait_frame(t, err);

	if (!r)
		r = session_read_frame(&t->session, &header, err);
	if (r)
		return r == AGAIN ? 0 : r;
	switch (header.type) {
	case FRAME_CONTROL:
		return handle_message(t, err);
	case FRAME_IMAGE_BEGIN:
	case FRAME_IMAGE_DATA:
	case FRAME_IMAGE_REFERENCES:
		if (t->sink_open)
			return image_sink_take(&t->sink, &header, t->session.body.data, err);
		break;
	case FRAME_CHANNEL:
	case FRAME_PAGES:
	case FRAME_BARRIER:
	case FRAME_STREAM:
	case FRAME_WANT:
	case FRAME_INVALID:
	case FRAME_TYPE_MAX:
		break;
	}
	return error_set(err, EPROTO, "the peer sent a frame of type %d that is not due", (int)header.type);
}

static bool is_abort(struct target *t, const struct frame_header *header)
{
	_cleanup_message_ Phaul__Wire__Control *m = NULL;

	return header->type == FRAME_CONTROL &&
	       message_decode(t->session.body.data, t->session.body.length, &m, NULL) == 0 &&
	       m->kind_case == KIND(ABORT);
}

/* Tells the source why; it may be gone, and then nobody is told. */
static void tell_failure(struct target *t, const struct error *failure)
{
	struct error ignored = { 0 };
	struct frame_header header;

	channel_set_cancel_fd(t->session.control, -1);
	channel_set_timeout(t->session.control, LAST_WORD_MS);
	if (session_send_failure(&t->session, state_name(target_state(t)), failure, &ignored) < 0) {
		log_debug("the source was not told: %s", ignored.text);
		return;
	}
	/* Closing with unread bytes would reset the connection and take our last word back: read until the source, which is in the
	 * middle of sending perhaps, has closed. */
	while (session_read_frame(&t->session, &header, &ignored) == 0 && !is_abort(t, &header))
		;
}

/* The source's reason to give up may be in the channel while a data channel already broke: read it, to log the cause. */
static void fail(struct target *t, const struct error *failure)
{
	struct error why = { 0 }, told = *failure;

	if ((target_state(t) == STATE_RESUMING &&
	     (t->driver_options.restart ? t->started : !t->restorer || restorer_released(t->restorer))) ||
	    target_state(t) == STATE_RUNNING) {
		/* Too late to undo: what was resumed stays, and the journal says how far it came. */
		log_error("after the commit: %s", failure->text);
		if (t->session.control)
			tell_failure(t, failure);
		return;
	}
	log_warning("%s", failure->text);
	/* Undone first: when the source hears of it, nothing is left here. */
	target_undo(t);
	if (t->journal)
		logs_keep(t->work_directory, journal_place(t->journal), told.text, sizeof(told.text));
	if (t->journal && journal_enter(t->journal, STATE_ABORTED, told.text, &why) < 0)
		log_error("%s", why.text);
	if (t->session.control)
		tell_failure(t, &told);
}

static void target_free(struct target *t)
{
	bool lacks_pages = target_lacks_pages(t);

	target_end_fetch(t);
	if (lacks_pages) { /* another worker finds it, and what it needs beside */
		pager_leave(TAKE_PTR(t->pager));
		t->keep_images = true;
	}
	restorer_free(t->restorer);
	net_hold_free(t->hold);
	container_net_free(&t->net);
	target_guard_settle(t);
	pager_free(t->pager);
	receiver_free(t->receiver);
	target_end_passes(t);
	if (t->sink_open)
		image_sink_close(&t->sink);
	store_free(t->store);
	journal_free(t->journal);
	workload_free(&t->workload);
	for (size_t i = 0; i < t->n_sync_paths; i++)
		free(t->sync_paths[i]);
	for (size_t i = 0; i < ARRAY_SIZE(t->engine_texts); i++)
		free(t->engine_texts[i]);
	if (t->work_directory[0] && !t->keep_images)
		dir_remove(t->work_directory);
	session_free(&t->session);
}

int target_run(struct channel *control, struct route *route, const uint8_t route_id[ROUTE_BYTES],
	       const struct target_options *options, struct error *err)
{
	struct target t = {
		.options = options, .session = { .control = control }, .route = route, .net = CONTAINER_NET_NONE
	};
	int r = 0;

	memcpy(t.route_id, route_id, ROUTE_BYTES);
	channel_set_timeout(control, options->timeout_ms);
	channel_set_cancel_fd(control, options->cancel_fd);
	snprintf(t.identity, sizeof(t.identity), "%s", channel_peer_identity(control));
	snprintf(t.journals, sizeof(t.journals), "%s/migrations", options->state_directory);
	while (!t.finished && r >= 0) {
		r = t.session.control ? handle_frame(&t, err) : target_hold(&t, err);
		if (r < 0 && t.session.control && target_holds(&t, r)) {
			target_lose_link(&t, err);
			r = 0;
		}
	}
	if (r == -ECONNRESET && !t.journal) {
		/* A check, or a source that left before it began: nothing to undo. */
		r = 0;
	} else if (r < 0) {
		fail(&t, err);
	}
	target_free(&t);
	return r;
}
