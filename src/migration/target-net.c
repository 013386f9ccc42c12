/*
 * The network of a workload at the target: what arrives for it waits here from the moment its tasks are stopped.
 *
 * Before the freeze the hold is made (ARM); when the tasks are stopped, the addresses appear here and are announced (TAKE), so that packets
 * come here and wait; after the resume they are let in. An abort takes the addresses away before the hold, so that the kernel never
 * answers for the workload. Idempotent all of it. Threads: that of target.c.
 */
#include <errno.h>

#include "base/log.h"
#include "migration/target-internal.h"

int target_net_arm(struct target *t, struct error *err)
{
	/* Noted as set before one is, because a crash may come in between; removing one that is not there is fine. */
	int r = t->n_addresses ? journal_mark(t->journal, "addresses_set", err) : 0;

	/* The engine has made the container's network by now. */
	if (!r && !t->net.known)
		r = container_net_open(t->driver, &t->workload, &t->place, &t->net, err);
	if (!r)
		r = container_net_arm(&t->net, t->id_text, err);
	if (!r)
		r = target_guard_arm(t, err);
	if (r < 0 || !t->n_addresses || t->hold)
		return r;
	t->caught = true;
	return net_hold_install(t->id_text, NULL, t->addresses, t->n_addresses, &t->hold, err);
}

int target_net_take(struct target *t, struct error *err)
{
	int r = t->n_addresses && !t->hold
			? error_set(err, EPROTO, "the peer hands addresses over before the target is ready for them")
			: 0;

	while (t->n_addresses_set < t->n_addresses && !r)
		r = net_address_add(&t->addresses[t->n_addresses_set++], err);
	if (!r && !t->net_taken)
		r = target_guard_take(t, err);
	if (!r && !t->net_taken)
		r = container_net_take(&t->net, t->id_text, err);
	t->net_taken |= !r;
	return r;
}

/* It comes with CRIU's restore, and what arrives for it waits at its bridge. */
static bool comes_guarded(const struct target *t)
{
	return !t->net.known && (t->driver->capabilities & DRIVER_OWN_NETWORK) && target_guard_holds(t);
}

/* CRIU would unlock the namespace after the commit, 11 to 28 ms with the tasks standing still. Nothing reaches it through the bridge before the
 * tasks run, and within it all sockets are there once the restore is held: so the lock can go then. */
int target_net_expect(struct target *t, struct error *err)
{
	return comes_guarded(t) ? criu_leave_network_locked(t->images_directory, t->locked, sizeof(t->locked), err) : 0;
}

/* LXC and Docker make the network only when CRIU has made the root task, and then it is here at once. */
int target_net_found(struct target *t, struct error *err)
{
	bool guarded = comes_guarded(t);
	int r;

	if (t->net.known || !(t->driver->capabilities & DRIVER_OWN_NETWORK))
		return 0;
	r = container_net_open_pid(t->root_pid, &t->net, err);
	if (!r && t->locked[0])
		r = net_criu_table_remove(t->locked, &t->net.place, err);
	/* From here on the bridge knows the port. */
	if (!r && guarded)
		return container_net_return(&t->net, t->id_text, err);
	if (!r)
		r = container_net_arm(&t->net, t->id_text, err);
	return r < 0 ? r : container_net_take(&t->net, t->id_text, err);
}

void target_net_announce(struct target *t)
{
	struct error err = { 0 };

	for (size_t i = 0; i < t->n_addresses_set; i++)
		if (net_address_announce(&t->addresses[i], &err) < 0)
			log_warning("%s", err.text);
}

int target_on_take(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	int r = target_net_take(t, err);

	(void)m;
	if (r < 0)
		return r;
	target_net_announce(t);
	return session_send_ready(&t->session, err);
}

void target_net_release(struct target *t)
{
	struct error err = { 0 };

	if (t->hold && net_hold_release(t->hold, &t->held, &err) < 0)
		log_error("%s", err.text);
	target_guard_release(t);
	if (container_net_release(&t->net, &t->held, &err) < 0)
		log_error("%s", err.text);
	if (t->held.packets)
		log_debug("%llu packets waited for the workload", (unsigned long long)t->held.packets);
	t->caught = false;
	target_net_announce(t);
}

void target_net_settle(struct target *t)
{
	struct error err = { 0 };

	target_net_announce(t); /* once more, for a switch that missed it */
	if (t->net.known && net_announce_all(&t->net.place, &err) < 0)
		log_warning("%s", err.text);
	net_hold_free(TAKE_PTR(t->hold));
	container_net_free(&t->net);
	target_guard_settle(t);
}

void target_net_undo(struct target *t)
{
	struct error err = { 0 };

	target_guard_silence(t);
	if (container_net_gone(&t->net, t->id_text, &err) < 0)
		log_error("%s", err.text);
	container_net_free(&t->net);
	while (t->n_addresses_set)
		if (net_address_remove(&t->addresses[--t->n_addresses_set], &err) < 0)
			log_error("%s", err.text);
	net_hold_free(TAKE_PTR(t->hold));
	if (t->caught && net_hold_remove(t->id_text, NULL, &err) < 0)
		log_error("%s", err.text);
	t->caught = false;
}
