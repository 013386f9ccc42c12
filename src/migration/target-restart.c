/*
 * The target of restart mode: what the driver prepared is started at the commit. Threads: that of target.c.
 *
 * A start that fails is undone: the driver removes what it made, so nothing of it runs, and the source may start its own again.
 */
#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "migration/hook.h"
#include "migration/target-internal.h"

int target_restart_finish(struct target *t, struct error *err)
{
	Phaul__Wire__Prepared part = PHAUL__WIRE__PREPARED__INIT;
	CONTROL_OF(reply, prepared, PREPARED, &part);
	int r = target_await_passes(t, err);

	if (!r)
		r = target_net_take(t, err);
	if (!r)
		r = journal_enter(t->journal, STATE_PREPARED, NULL, err);
	return r < 0 ? r : session_send(&t->session, &reply, err);
}

int target_restart_release(struct target *t, struct error *err)
{
	int r = journal_enter(t->journal, STATE_RESUMING, NULL, err);

	if (!r)
		r = hook_reached("target", "resuming", -1, err);
	if (!r)
		r = journal_mark(t->journal, "released", err);
	if (!r && !t->no_start)
		r = t->driver->start(&t->workload, &t->driver_options, &t->place, err);
	if (r < 0)
		return r;
	t->started = true;
	t->resumed_at_ns = clock_now_ns();
	target_net_announce(t);
	return journal_enter(t->journal, STATE_RUNNING, NULL, err);
}

int target_restart_done(struct target *t, struct error *err)
{
	Phaul__Wire__Filled part = PHAUL__WIRE__FILLED__INIT;
	CONTROL_OF(reply, filled, FILLED, &part);

	target_net_settle(t);
	t->finished = true;
	return session_send(&t->session, &reply, err);
}
