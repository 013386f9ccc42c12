/*
 * The source's half after a crash: see recover.h. One thread.
 *
 * Before `committed` CRIU, which lost its client, has let the tasks go or does so; what it cannot undo is undone here. At `committed`
 * the tasks are stopped (SIGSTOP outlives CRIU), and only the target's journal, a fence or the operator says how it ends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "criu/criu.h"
#include "migration/container-net.h"
#include "migration/recover.h"
#include "migration/subject.h"
#include "migration/tasks.h"
#include "net/leftovers.h"
#include "migration/throttle.h"

#define CRIU_MS 60000 /* to roll a dump back */
#define ABORT_MS 10000

static void remove_criu_table(const struct journal *j)
{
	char table[64];
	struct error err = { 0 };

	snprintf(table, sizeof(table), "%.63s", journal_fact(j, "criu_table"));
	if (!table[0] && criu_network_table(journal_fact(j, "work_directory"), table, sizeof(table)) < 0)
		return;
	if (net_criu_table_remove_everywhere(table, &err) < 0)
		log_warning("%s", err.text);
}

/* A container's network, of the task that is there. */
static void return_network(const struct journal *j, pid_t root)
{
	struct container_net net = CONTAINER_NET_NONE;
	struct error err = { 0 };

	if (!journal_fact_number(j, "muted") || !root)
		return;
	if (container_net_open_pid(root, &net, &err) < 0 || container_net_return(&net, journal_id(j), &err) < 0)
		log_warning("%s", err.text);
	container_net_free(&net);
}

static void return_addresses(const struct journal *j)
{
	struct net_address addresses[MIGRATION_ADDRESSES_MAX];
	size_t n = journal_fact_number(j, "addresses_given") ? recover_addresses(j, addresses) : 0;
	struct error err = { 0 };

	for (size_t i = 0; i < n; i++)
		if (net_address_add(&addresses[i], &err) < 0 || net_address_announce(&addresses[i], &err) < 0)
			log_warning("%s", err.text);
}

/* The tasks run here again, as before. */
static int take_back(struct journal *j, const struct noted_tasks *tasks, const char *reason, struct error *err)
{
	if (journal_same_boot(j)) {
		pid_t root = noted_process_alive(j, "root");

		throttle_undo(j);
		if (root) /* a CRIU that was killed leaves connections under repair */
			criu_end_tcp_repair(root);
		return_addresses(j);
		remove_criu_table(j);
		return_network(j, root);
		if (net_leftovers_remove(journal_id(j), true, err) < 0)
			log_warning("%s", err->text);
		noted_tasks_continue(tasks);
	}
	subject_restart(j);
	subject_disarm(j);
	recover_remove_files(j);
	return journal_enter(j, STATE_ABORTED, reason, err);
}

static int settle(struct journal *j, const struct noted_tasks *tasks, const char *reason, struct error *err)
{
	int r = journal_same_boot(j) ? noted_tasks_kill(tasks, err) : 0;

	if (r < 0)
		return r;
	if (journal_same_boot(j))
		remove_criu_table(j);
	recover_remove_files(j);
	r = journal_enter(j, STATE_SETTLED, reason, err);
	if (!r)
		subject_moved(j);
	return r;
}

static int make_link(const struct journal *j, const struct recover_options *o, struct handover_link *ret,
		     struct error *err)
{
	const char *route = journal_fact(j, "route"), *identity = journal_fact(j, "peer_identity");
	const char *pki = o->pki_directory ? o->pki_directory : journal_fact(j, "pki_directory");
	int r = endpoint_parse(journal_fact(j, "target"), &ret->endpoint, err);

	if (r < 0)
		return error_wrap(err, "the journal of migration %s does not tell its target", journal_id(j));
	for (size_t i = 0; i < ROUTE_BYTES && strlen(route) == 2 * ROUTE_BYTES; i++)
		(void)sscanf(route + 2 * i, "%2hhx", &ret->route[i]);
	uuid_parse(journal_id(j), &ret->id);
	ret->expected_name = identity[0] ? identity : NULL;
	ret->timeout_ms = o->timeout_ms;
	ret->cancel_fd = o->cancel_fd;
	ret->journals = o->journals;
	return ret->endpoint.kind == ENDPOINT_TLS ? tls_identity_load(pki, &ret->identity, err) : 0;
}

/* Never handed over: it runs here, and the target is told. */
static int undo(struct journal *j, const struct recover_options *o, const struct noted_tasks *tasks, struct error *err)
{
	static const char reason[] = "phaul ended at the source before the handover";
	struct handover_link link = { 0 };
	struct error why = { 0 };
	int r;

	noted_process_await(j, "criu", deadline_in_ms(CRIU_MS));
	if (journal_state(j) != STATE_ABORTED) {
		r = take_back(j, tasks, reason, err);
		if (r < 0)
			return r;
	}
	r = make_link(j, o, &link, &why);
	if (!r)
		r = handover_abort(&link, deadline_in_ms(MIN(o->reconnect_ms, (int64_t)ABORT_MS)), reason, &why);
	tls_identity_free(link.identity);
	if (r < 0)
		log_warning("%s", why.text);
	return 0;
}

static enum handover_verdict ask(struct journal *j, const struct recover_options *o, struct error *err)
{
	enum handover_verdict verdict = HANDOVER_UNKNOWN;
	struct handover_link link = { 0 };
	struct session session = { 0 };
	uint64_t ignored;

	if (make_link(j, o, &link, err) == 0)
		verdict = handover_learn(&link, deadline_in_ms(o->reconnect_ms), &session, &ignored, err);
	session_free(&session);
	tls_identity_free(link.identity);
	if (verdict == HANDOVER_UNKNOWN && handover_fence(o->fence, journal_id(j), journal_fact(j, "target")))
		verdict = HANDOVER_KEEP_SOURCE;
	return verdict;
}

/* It runs there, and may still need what is here. */
static int serve_rest(struct journal *j, const struct recover_options *o, struct session *session, struct error *err)
{
	struct handover_link link = { 0 };
	int r;

	if (!journal_fact(j, RECOVER_SPACES)[0])
		return 0;
	r = make_link(j, o, &link, err);
	if (!r)
		r = recover_serve_pages(j, &link, o->reconnect_ms, session, err);
	tls_identity_free(link.identity);
	return r;
}

/* The target drops what it kept for us. If it does not hear of it, it does so after a while. */
static void say_done(struct session *session)
{
	Phaul__Wire__Done done = PHAUL__WIRE__DONE__INIT;
	CONTROL_OF(request, done, DONE, &done);

	if (session->control)
		(void)session_send(session, &request, NULL);
	session_free(session);
}

static int end_committed(struct journal *j, const struct recover_options *o, const struct noted_tasks *tasks,
			 enum migration_outcome *ret, struct error *err)
{
	enum handover_verdict verdict;
	struct session session = { 0 };
	int r;

	noted_process_await(j, "criu", deadline_in_ms(CRIU_MS));
	if (journal_same_boot(j) && !noted_tasks_held(tasks)) {
		*ret = OUTCOME_UNKNOWN;
		return error_set(
			err, EBUSY,
			"processes of migration %s run here although it was handed over: somebody continued them; find "
			"out which copy is right and use phaul resolve",
			journal_id(j));
	}
	verdict = o->keep == SIDE_SOURCE   ? HANDOVER_KEEP_SOURCE
		  : o->keep == SIDE_TARGET ? HANDOVER_RUNNING
					   : ask(j, o, err);
	switch (verdict) {
	case HANDOVER_RUNNING:
		*ret = OUTCOME_UNKNOWN;
		r = o->keep == SIDE_TARGET ? 0 : serve_rest(j, o, &session, err);
		if (!r) {
			*ret = OUTCOME_MIGRATED;
			r = settle(j, tasks, o->keep ? "the operator keeps the target's copy" : NULL, err);
		}
		if (!r)
			say_done(&session);
		session_free(&session);
		return r;
	case HANDOVER_ABORTED:
	case HANDOVER_KEEP_SOURCE:
		*ret = OUTCOME_ABORTED;
		return take_back(j, tasks,
				 verdict == HANDOVER_ABORTED ? "the target gave up"
							     : "taken back: the target's copy is said to be dead",
				 err);
	case HANDOVER_UNKNOWN:
		break;
	}
	*ret = OUTCOME_UNKNOWN;
	return error_wrap(err, "whether it runs at the target is not known, so it stays stopped here");
}

int recover_source(struct journal *j, const struct recover_options *options, enum migration_outcome *ret,
		   struct error *err)
{
	_cleanup_tasks_ struct noted_tasks tasks = { 0 };
	enum migration_state state = journal_state(j);
	int r = noted_tasks_read(j, &tasks, err);

	if (r < 0)
		return r;
	*ret = OUTCOME_ABORTED;
	if (state == STATE_SETTLED) {
		*ret = OUTCOME_MIGRATED;
		return 0;
	}
	if (state == STATE_COMMITTED)
		return end_committed(j, options, &tasks, ret, err);
	if (options->keep == SIDE_TARGET)
		return error_set(err, EINVAL, "migration %s was never handed over: only the source's copy can be kept",
				 journal_id(j));
	return undo(j, options, &tasks, err);
}
