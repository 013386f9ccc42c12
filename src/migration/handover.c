/*
 * The source's way back to its target: see handover.h. One thread.
 *
 * First by the session's route, to the worker that holds the restored tasks; if there is none any more, by a new session, which reads the
 * target's journal and settles what a crash left. Invariants: COMMIT is sent only to who said "prepared" on the same channel; only
 * a journal's word ("running", "aborted") is a verdict, never silence.
 */
#include "migration/handover.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/process.h"

#define KIND(name) PHAUL__WIRE__CONTROL__KIND_##name
#define STATE(name) PHAUL__WIRE__TARGET_STATE__TARGET_STATE_##name
#define DIAL_TIMEOUT_MS 5000
#define RETRY_MS 250
#define FENCE_MS 120000

static int dial(const struct handover_link *link, const uint8_t *route, struct session *s, struct error *err)
{
	struct dial_options o = { .identity = link->identity,
				  .timeout_ms = MIN(link->timeout_ms, (int64_t)DIAL_TIMEOUT_MS),
				  .cancel_fd = link->cancel_fd,
				  .expected_name = link->expected_name };
	int r = endpoint_dial(&link->endpoint, &o, route, &s->control, err);

	if (r < 0)
		return r;
	channel_set_timeout(s->control, link->timeout_ms);
	channel_set_cancel_fd(s->control, link->cancel_fd);
	return 0;
}

static int say_control(struct session *s, struct error *err)
{
	uint8_t frame[FRAME_HEADER_BYTES + FRAME_CHANNEL_BYTES];

	frame_encode_channel(frame, CHANNEL_KIND_CONTROL, 0);
	return channel_write(s->control, frame, sizeof(frame), err);
}

/* ret_route: of the new session; NULL: not wanted. */
static int say_hello(const struct handover_link *link, struct session *s, uint8_t *ret_route, struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	Phaul__Wire__Hello hello = PHAUL__WIRE__HELLO__INIT;
	CONTROL_OF(request, hello, HELLO, &hello);
	struct utsname name;
	int r;

	uname(&name);
	hello.version = hello.lowest_version = FRAME_VERSION;
	hello.software = (char *)PHAUL_VERSION;
	hello.migration_id.data = (uint8_t *)link->id.bytes;
	hello.migration_id.len = sizeof(link->id.bytes);
	hello.host = name.nodename;
	hello.purpose = PHAUL__WIRE__PURPOSE__PURPOSE_RESUME;
	r = session_call(s, &request, KIND(HELLO_REPLY), &reply, err);
	if (!r && ret_route)
		memcpy(ret_route, reply->hello_reply->route.data, ROUTE_BYTES);
	return r;
}

static int say_resume(const struct handover_link *link, struct session *s, bool go_on, Phaul__Wire__Control **ret,
		      struct error *err)
{
	Phaul__Wire__Resume resume = PHAUL__WIRE__RESUME__INIT;
	CONTROL_OF(request, resume, RESUME, &resume);

	resume.migration_id.data = (uint8_t *)link->id.bytes;
	resume.migration_id.len = sizeof(link->id.bytes);
	resume.go_on = go_on;
	return session_call(s, &request, KIND(STATE), ret, err);
}

/* A session that has said what state the target is in. ret_route: where further channels go if it is a new one; NULL: none will. */
static int ask(const struct handover_link *link, struct session *s, bool go_on, uint8_t *ret_route,
	       Phaul__Wire__Control **ret, struct error *err)
{
	struct error by_route = { 0 };
	int r;

	session_free(s);
	r = dial(link, link->route, s, &by_route);
	if (!r)
		r = say_control(s, &by_route);
	if (!r)
		r = say_resume(link, s, go_on, ret, &by_route);
	if (!r || r == -ECANCELED) {
		*err = by_route;
		return r;
	}
	log_debug("no answer by the session's route: %s", by_route.text);
	session_free(s);
	r = dial(link, NULL, s, err);
	if (!r)
		r = say_hello(link, s, ret_route, err);
	return r < 0 ? r : say_resume(link, s, false, ret, err);
}

static int commit_again(struct session *s, uint64_t *ret_resume_ns, struct error *err)
{
	Phaul__Wire__Commit part = PHAUL__WIRE__COMMIT__INIT;
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	CONTROL_OF(request, commit, COMMIT, &part);
	int r;

	channel_set_cancel_fd(s->control, -1);
	r = session_call(s, &request, KIND(RUNNING), &reply, err);
	if (!r)
		*ret_resume_ns = reply->running->resume_ns;
	return r;
}

static enum handover_verdict operators_word(const struct handover_link *link)
{
	switch (journal_word(link->journals, &link->id)) {
	case SIDE_SOURCE:
		return HANDOVER_KEEP_SOURCE;
	case SIDE_TARGET:
		return HANDOVER_RUNNING;
	case SIDE_INVALID:
	case SIDE_MAX:
		break;
	}
	return HANDOVER_UNKNOWN;
}

static const char *const state_words[] = {
	[STATE(NONE)] = "unknown here", [STATE(RECEIVING)] = "receiving", [STATE(PREPARED)] = "prepared",
	[STATE(RESUMING)] = "resuming", [STATE(RUNNING)] = "running",	  [STATE(ABORTED)] = "aborted",
};

/* One round of asking. */
static enum handover_verdict learn_once(const struct handover_link *link, struct session *s, uint64_t *ret_resume_ns,
					struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;

	if (ask(link, s, false, NULL, &reply, err) < 0)
		return HANDOVER_UNKNOWN;
	log_info("the target says: %s%s%s", state_words[reply->state->state], reply->state->reason[0] ? ", " : "",
		 reply->state->reason);
	switch (reply->state->state) {
	case STATE(RUNNING):
		return HANDOVER_RUNNING;
	case STATE(ABORTED):
		error_set(err, ECONNRESET, "the target gave up: %s", reply->state->reason);
		return HANDOVER_ABORTED;
	case STATE(PREPARED):
		if (reply->state->here && commit_again(s, ret_resume_ns, err) == 0)
			return HANDOVER_RUNNING;
		if (!reply->state->here)
			error_set(err, EAGAIN, "the target holds it, but cannot be told to go on");
		break;
	case STATE(NONE):
		error_set(err, ENOENT, "the target knows no migration with this id");
		break;
	case STATE(INVALID):
	case STATE(RECEIVING):
	case STATE(RESUMING):
	case _PHAUL__WIRE__TARGET_STATE_IS_INT_SIZE:
		error_set(err, EAGAIN, "the target does not know yet whether it runs there");
		break;
	}
	return HANDOVER_UNKNOWN;
}

enum handover_verdict handover_learn(const struct handover_link *link, uint64_t deadline_ns, struct session *session,
				     uint64_t *ret_resume_ns, struct error *err)
{
	*ret_resume_ns = 0;
	for (;;) {
		enum handover_verdict verdict = learn_once(link, session, ret_resume_ns, err);

		if (verdict == HANDOVER_UNKNOWN)
			verdict = operators_word(link);
		if (verdict != HANDOVER_UNKNOWN)
			return verdict;
		log_debug("not known yet: %s", err->text);
		if (clock_now_ns() >= deadline_ns)
			return HANDOVER_UNKNOWN;
		/* The link needs its time to come back; whoever cancels ends the asking, and the tasks stay held. */
		if (fd_wait(link->cancel_fd, POLLIN, MIN(deadline_ns, deadline_in_ms(RETRY_MS))) == 1)
			return HANDOVER_UNKNOWN;
	}
}

int handover_rejoin_running(struct handover_link *link, struct session *session, struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	uint8_t route[ROUTE_BYTES];
	int r;

	memcpy(route, link->route, ROUTE_BYTES);
	r = ask(link, session, false, route, &reply, err);

	if (r < 0)
		return r;
	if (reply->state->state != STATE(RUNNING) || !reply->state->here)
		return error_set(err, EAGAIN, "the target says: %s, %s%s", state_words[reply->state->state],
				 reply->state->here ? "" : "but nobody there takes pages in; ", reply->state->reason);
	/* Perhaps another worker took the place of the first. */
	memcpy(link->route, route, ROUTE_BYTES);
	return 0;
}

static int abort_once(const struct handover_link *link, const char *reason, struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	Phaul__Wire__Abort part = PHAUL__WIRE__ABORT__INIT;
	CONTROL_OF(request, abort, ABORT, &part);
	struct session s = { 0 };
	int r = ask(link, &s, false, NULL, &reply, err);

	part.reason = (char *)reason;
	if (!r && reply->state->state != STATE(ABORTED) && reply->state->state != STATE(NONE))
		r = session_call(&s, &request, KIND(READY), NULL, err);
	session_free(&s);
	return r;
}

int handover_abort(const struct handover_link *link, uint64_t deadline_ns, const char *reason, struct error *err)
{
	for (;;) {
		int r = abort_once(link, reason, err);

		if (!r)
			return 0;
		if (clock_now_ns() >= deadline_ns)
			return error_wrap(err, "the target could not be told to give up");
		if (fd_wait(link->cancel_fd, POLLIN, MIN(deadline_ns, deadline_in_ms(RETRY_MS))) == 1)
			return error_set(err, ECANCELED, "canceled before the target was told to give up");
	}
}

int handover_rejoin(const struct handover_link *link, struct session *session, Phaul__Wire__Control **ret_state,
		    struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	int r = ask(link, session, true, NULL, &reply, err);

	if (r < 0)
		return r;
	switch (reply->state->state) {
	case STATE(RECEIVING):
		if (!reply->state->here)
			return error_set(err, EAGAIN, "the phaul that holds it does not answer");
		*ret_state = TAKE_PTR(reply);
		return 0;
	case STATE(ABORTED):
		return error_set(err, ECONNABORTED, "the target gave up: %s", reply->state->reason);
	case STATE(NONE):
		return error_set(err, ECONNABORTED, "the target knows nothing of the migration any more");
	case STATE(INVALID):
	case STATE(PREPARED):
	case STATE(RESUMING):
	case STATE(RUNNING):
	case _PHAUL__WIRE__TARGET_STATE_IS_INT_SIZE:
		break;
	}
	return error_set(err, ECONNABORTED, "the target is in a state that it cannot be in before the freeze");
}

bool handover_fence(const char *fence, const char *id, const char *peer)
{
	const char *argv[] = { fence, id, peer, NULL };
	struct error err = { 0 };
	int r;

	if (!fence)
		return false;
	r = process_run(argv, NULL, deadline_in_ms(FENCE_MS), &err);
	log_info("%s says that the copy at %s is %s%s%s", fence, peer, r ? "not certainly dead" : "dead", r ? ": " : "",
		 r ? err.text : "");
	return r == 0;
}
