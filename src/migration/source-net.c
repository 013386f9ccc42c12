/*
 * The workload's addresses at the source: handed to the target when its tasks are stopped, taken back by a rollback.
 *
 * Between the stop and CRIU's lock of the connections the kernel still takes what clients send into the sockets' queues, which the
 * dump carries along; what comes after the lock is lost. So the target has the addresses, and has told everybody, before the first
 * connection is locked: nothing falls in between. Threads: that of source.c.
 */
#include "base/log.h"
#include "migration/source-internal.h"

int source_net_arm(struct source *s, struct error *err)
{
	/* Noted as given before one is, because a crash may come in between; taking back what was never given is fine. */
	return s->options->n_addresses ? journal_mark(s->journal, "addresses_given", err) : 0;
}

int source_give_addresses(struct source *s, struct error *err)
{
	Phaul__Wire__Take take = PHAUL__WIRE__TAKE__INIT;
	CONTROL_OF(request, take, TAKE, &take);
	int r;

	if (s->addresses_given || !s->options->n_addresses)
		return 0;
	s->addresses_given = true;
	r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_READY, NULL, err);
	/* Only then: what comes here until the neighbours know better is received. */
	for (size_t i = 0; i < s->options->n_addresses && !r; i++)
		r = net_address_remove(&s->options->addresses[i], err);
	log_debug("%zu addresses given up", s->options->n_addresses);
	return r;
}

void source_return_addresses(struct source *s)
{
	struct error err = { 0 };

	if (!s->addresses_given)
		return;
	for (size_t i = 0; i < s->options->n_addresses; i++)
		if (net_address_add(&s->options->addresses[i], &err) < 0 ||
		    net_address_announce(&s->options->addresses[i], &err) < 0)
			log_error("%s", err.text);
	s->addresses_given = false;
}
