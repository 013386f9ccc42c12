/*
 * The source's stages of restart mode: files while the workload runs, then it is stopped by its engine, the last files, and it is started at the
 * target. No CRIU, no memory.
 *
 * Invariant: between stop and `committed` every failure starts it here again; afterwards only the target's durable "aborted" (or a fence, or
 * the operator) does. The journal knows that it was stopped before it is. Threads: that of source.c.
 */
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "migration/hook.h"
#include "migration/source-internal.h"

int source_restart_again(struct source *s, struct error *err)
{
	return source_sync_arm(s, err);
}

int source_restart_stop(struct source *s, struct error *err)
{
	int r = 0;

	if (s->driver->arm) {
		s->engine_armed = true;
		r = s->driver->arm(&s->workload, &s->driver_options, err);
	}
	if (!r)
		r = journal_mark(s->journal, SUBJECT_STOPPED, err);
	if (r < 0)
		return r;
	s->frozen_at_ns = clock_now_ns();
	s->stopped = true;
	r = s->driver->stop(&s->workload, &s->driver_options, err);
	return r < 0 ? r : journal_enter(s->journal, STATE_FROZEN, NULL, err);
}

void source_restart_undo_stop(struct source *s)
{
	struct error err = { 0 };

	if (s->stopped && s->driver->start(&s->workload, &s->driver_options, NULL, &err) < 0)
		log_error("it was stopped for the move and cannot be started again: %s", err.text);
	s->stopped = false;
	source_undo_arm(s);
}

int source_restart_finish(struct source *s, struct error *err)
{
	Phaul__Wire__Finish finish = PHAUL__WIRE__FINISH__INIT;
	CONTROL_OF(request, finish, FINISH, &finish);
	int r = source_sync_final_end(s, err);

	if (r < 0)
		return r;
	s->may_be_prepared = true;
	return session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_PREPARED, NULL, err);
}

int source_restart_commit(struct source *s, struct error *err)
{
	Phaul__Wire__Commit commit = PHAUL__WIRE__COMMIT__INIT;
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	CONTROL_OF(request, commit, COMMIT, &commit);
	int r;

	if (s->options->cancel_fd >= 0 && fd_wait(s->options->cancel_fd, POLLIN, 0) == 1)
		return error_set(err, ECANCELED, "canceled before the handover");
	r = journal_enter(s->journal, STATE_COMMITTED, NULL, err);
	if (!r)
		r = hook_reached("source", "committed", -1, err);
	if (r < 0)
		return r;
	channel_set_cancel_fd(s->session.control, -1);
	s->committed_at_ns = clock_now_ns();
	source_engine_patience(s, true);
	r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_RUNNING, &reply, err);
	source_engine_patience(s, false);
	if (r < 0) {
		log_warning("no answer to the commit: %s", err->text);
		return source_after_commit(s, err);
	}
	s->result.resume_ns = reply->running->resume_ns;
	s->result.frozen_ns = s->committed_at_ns - s->frozen_at_ns + s->round_trip_ns / 2 + reply->running->resume_ns;
	return STAGE_DONE;
}

int source_restart_settle(struct source *s, struct error *err)
{
	Phaul__Wire__Done done = PHAUL__WIRE__DONE__INIT;
	CONTROL_OF(request, done, DONE, &done);
	int r = journal_enter(s->journal, STATE_SETTLED, NULL, err);

	if (!r)
		r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_FILLED, NULL, err);
	source_tell_engine(s);
	return r;
}
