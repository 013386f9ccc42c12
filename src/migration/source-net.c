/*
 * The workload's addresses at the source: handed to the target when its tasks are stopped, taken back by a rollback.
 *
 * Between the stop and CRIU's lock of the connections the kernel still takes what clients send into the sockets' queues, which the
 * dump carries along; what comes after the lock is lost. So the target has the addresses, and has told everybody, before the first
 * connection is locked: nothing falls in between. Threads: that of source.c.
 */
#include "base/log.h"
#include "migration/source-internal.h"

int source_net_describe(struct source *s, struct error *err)
{
	struct container_net net = CONTAINER_NET_NONE;
	int r = container_net_open(s->driver, &s->workload, NULL, &net, err);

	if (!r && net.known)
		r = net_place_neighbours(&net.place, s->neighbours, &s->n_neighbours, err);
	container_net_free(&net);
	return r;
}

int source_net_arm(struct source *s, struct error *err)
{
	/* Noted as given before one is, because a crash may come in between; taking back what was never given is fine. */
	int r = s->options->n_addresses ? journal_mark(s->journal, "addresses_given", err) : 0;

	if (!r && !s->net.known)
		r = container_net_open(s->driver, &s->workload, NULL, &s->net, err);
	if (!r && s->net.known)
		r = journal_mark(s->journal, "muted", err);
	return r;
}

int source_give_addresses(struct source *s, struct error *err)
{
	Phaul__Wire__Take take = PHAUL__WIRE__TAKE__INIT;
	CONTROL_OF(request, take, TAKE, &take);
	int r;

	if (s->addresses_given || (!s->options->n_addresses && !s->net.known))
		return 0;
	s->addresses_given = true;
	/* A container's two copies have one MAC: not a frame may leave here once the target has spoken, or a switch looks for it here again. What comes
	 * is still received; what it would have been answered, the restored sockets say. */
	r = container_net_leave(&s->net, s->id_text, err);
	if (!r)
		r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_READY, NULL, err);
	/* Only then: what comes here until the neighbours know better is received. */
	for (size_t i = 0; i < s->options->n_addresses && !r; i++)
		r = net_address_remove(&s->options->addresses[i], err);
	log_debug("%zu addresses given up%s", s->options->n_addresses, s->net.known ? ", its network is silent" : "");
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

void source_return_network(struct source *s)
{
	struct error err = { 0 };

	if (container_net_return(&s->net, s->id_text, &err) < 0)
		log_error("%s", err.text);
}

void source_net_gone(struct source *s)
{
	struct error err = { 0 };

	if (container_net_gone(&s->net, s->id_text, &err) < 0)
		log_warning("%s", err.text);
	container_net_free(&s->net);
}
