/*
 * The source when something breaks: what it notes for a later phaul, and how it ends when the answer to COMMIT does not come.
 *
 * Invariant: nothing here lets the tasks run or ends them; it only finds out which of both is due (source.c does it).
 */
#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/clock.h"
#include "base/log.h"
#include "migration/recover.h"
#include "migration/source-internal.h"
#include "migration/tasks.h"

void source_link(const struct source *s, struct handover_link *ret)
{
	*ret = (struct handover_link){
		.endpoint = s->options->target,
		.identity = s->identity,
		.expected_name = s->peer_identity[0] ? s->peer_identity : NULL,
		.id = s->result.id,
		.timeout_ms = s->options->timeout_ms,
		.cancel_fd = s->options->cancel_fd,
		.journals = s->journals,
	};
	memcpy(ret->route, s->route, ROUTE_BYTES);
}

int source_note_facts(struct source *s, struct error *err)
{
	char route[2 * ROUTE_BYTES + 1];
	struct utsname name;
	int r;

	for (size_t i = 0; i < ROUTE_BYTES; i++)
		snprintf(route + 2 * i, 3, "%02x", s->route[i]);
	uname(&name);
	r = journal_note_text(s->journal, "source_host", name.nodename, err);
	if (!r)
		r = journal_note_text(s->journal, "target", s->options->target_text, err);
	if (!r)
		r = journal_note_text(s->journal, "route", route, err);
	if (!r)
		r = journal_note_text(s->journal, "pki_directory", s->options->pki_directory, err);
	if (!r)
		r = journal_note_text(s->journal, "work_directory", s->work_directory, err);
	if (!r && s->options->keep_images)
		r = journal_mark(s->journal, "keep_images", err);
	if (!r)
		r = recover_note_addresses(s->journal, s->options->addresses, s->options->n_addresses, err);
	return r < 0 ? r : noted_process_write(s->journal, "root", s->workload.root_pid, err);
}

int source_note_freeze(struct source *s, struct error *err)
{
	_cleanup_free_ pid_t *stopped = calloc(s->workload.n_processes + 1, sizeof(*stopped));
	char table[64];
	size_t n = 0;
	int r;

	if (!stopped)
		return error_set(err, ENOMEM, "no memory to note the tasks");
	for (size_t i = 0; i < s->workload.n_processes; i++)
		if (s->workload.processes[i].stopped)
			stopped[n++] = s->workload.processes[i].pid;
	r = noted_tasks_write(s->journal, s->workload.root_pid, stopped, n, err);
	if (!r && criu_network_table(s->work_directory, table, sizeof(table)) == 0)
		r = journal_note_text(s->journal, "criu_table", table, err);
	return r;
}

int source_after_commit(struct source *s, struct error *err)
{
	uint64_t began = clock_now_ns();
	enum handover_verdict verdict;
	struct handover_link link;

	source_link(s, &link);
	log_info("the tasks stay stopped; asking the target for %lld s what became of it",
		 (long long)s->options->reconnect_ms / 1000);
	verdict =
		handover_learn(&link, deadline_in_ms(s->options->reconnect_ms), &s->session, &s->result.resume_ns, err);
	if (verdict == HANDOVER_UNKNOWN && handover_fence(s->options->fence, s->id_text, s->options->target_text))
		verdict = HANDOVER_KEEP_SOURCE;
	switch (verdict) {
	case HANDOVER_RUNNING:
		s->result.frozen_ns = clock_now_ns() - s->frozen_at_ns;
		log_info("it runs at the target; found out after %llu ms",
			 (unsigned long long)((clock_now_ns() - began) / NS_PER_MS));
		return STAGE_DONE;
	case HANDOVER_ABORTED:
		s->take_back = true;
		return -ECONNRESET;
	case HANDOVER_KEEP_SOURCE:
		s->take_back = true;
		return error_set(err, ECONNABORTED, "it was taken back: the copy at the target is said to be dead");
	case HANDOVER_UNKNOWN:
		break;
	}
	return error_wrap(err, "whether it runs at the target is not known, so it stays stopped here (phaul status %s)",
			  s->id_text);
}
