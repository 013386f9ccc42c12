/*
 * A container's place on the bridges of the target, from before the engine makes anything until the migration has settled: see net/guard.h.
 *
 * Until the source's tasks are stopped the copy here is not to be heard; then, where the engine makes the container's network only with
 * the restore, what arrives for it waits at the bridge. Where the kernel has no nftables for bridges, things go on without. Idempotent all of it. Threads: that of target.c.
 */
#include "base/log.h"
#include "migration/target-internal.h"

void target_guard_begin(struct target *t)
{
	struct error err = { 0 };

	if (t->guard || !t->n_neighbours || t->driver_options.restart ||
	    !(t->driver->capabilities & DRIVER_OWN_NETWORK))
		return;
	if (net_guard_install(t->id_text, t->neighbours, t->n_neighbours, &t->guard, &err) < 0)
		log_warning("the container may be heard here before it is moved: %s", err.text);
}

int target_guard_arm(struct target *t, struct error *err)
{
	int r = 0;

	if (!t->guard || t->net.known || !t->driver->bridges)
		return 0;
	if (!t->n_bridges)
		r = t->driver->bridges(&t->workload, &t->place, t->bridges, &t->n_bridges, err);
	return r < 0 || !t->n_bridges ? r : net_guard_get_ready(t->guard, err);
}

int target_guard_take(struct target *t, struct error *err)
{
	int r;

	if (!t->guard)
		return 0;
	if (!t->n_bridges)
		return net_guard_lift(t->guard, NULL, &t->held, err);
	r = net_guard_hold(t->guard, err);
	for (size_t i = 0; i < t->n_bridges && !r; i++)
		r = net_neighbours_announce(t->bridges[i], t->neighbours, t->n_neighbours, err);
	return r;
}

bool target_guard_holds(const struct target *t)
{
	return t->n_bridges && net_guard_holds(t->guard);
}

void target_guard_release(struct target *t)
{
	struct error err = { 0 };

	if (t->guard && net_guard_lift(t->guard, &t->net.place, &t->held, &err) < 0)
		log_error("%s", err.text);
}

void target_guard_settle(struct target *t)
{
	net_guard_free(TAKE_PTR(t->guard));
}

void target_guard_silence(struct target *t)
{
	struct error err = { 0 };

	if (t->guard && net_guard_silence(t->guard, &err) < 0)
		log_error("%s", err.text);
}

void target_guard_end(struct target *t)
{
	struct error err = { 0 };

	if (!t->guard)
		return;
	net_guard_free(TAKE_PTR(t->guard));
	if (net_hold_remove(t->id_text, NULL, &err) < 0)
		log_error("%s", err.text);
}
