/*
 * The source of a migration: its stages, in order, and their undo.
 *
 * One thread (the sender has its own). Invariants: stages run once each, in order; the undo of a stage runs at most once, and
 * never after the journal says `committed`, unless the target's journal durably says `aborted` (or a fence or the operator answer for it); source_free() leaves nothing behind but the journal and what the user asked to keep.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/logs.h"
#include "migration/hook.h"
#include "migration/source-internal.h"

#define REASON_MS 1000

/* The source's half of the handover; the target's half is the table in target.c. */
struct stage {
	const char *name;
	int (*run)(struct source *s, struct error *err);
	void (*undo)(struct source *s);
	bool mends; /* a lost link is looked for, and the stage goes on where it was */
};

static const struct stage live_stages[] = {
	{ "describe", source_stage_describe, NULL, false },
	{ "connect", source_stage_connect, source_undo_connect, false },
	{ "plan", source_stage_plan, NULL, false },
	{ "begin", source_stage_begin, source_undo_begin, false },
	{ "files", source_stage_sync, source_undo_sync, true },
	{ "copy", source_stage_copy, source_undo_copy, true },
	{ "arm", source_stage_arm, source_undo_arm, true },
	{ "freeze", source_stage_freeze, source_undo_freeze, false },
	{ "finish", source_stage_finish, source_return_addresses, false },
	{ "commit", source_stage_commit, NULL,
	  false }, /* its first act is the point of no return; it mends by itself */
	{ "postcopy", source_stage_postcopy, NULL, false }, /* mends by itself, too */
	{ "settle", source_stage_settle, NULL, false },
	{ "fill", source_stage_fill, NULL, false },
};

/* Restart mode: the workload is stopped here and started there. */
static const struct stage restart_stages[] = {
	{ "describe", source_stage_describe, NULL, false },
	{ "connect", source_stage_connect, source_undo_connect, false },
	{ "plan", source_stage_plan, NULL, false },
	{ "begin", source_stage_begin, source_undo_begin, false },
	{ "files", source_stage_sync, source_undo_sync, true },
	{ "again", source_restart_again, NULL, true },
	{ "stop", source_restart_stop, source_restart_undo_stop, false },
	{ "finish", source_restart_finish, source_return_addresses, false },
	{ "commit", source_restart_commit, NULL, false },
	{ "settle", source_restart_settle, NULL, false },
};

int source_new(const struct migration_options *options, struct source **ret, struct error *err)
{
	struct source *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(err, ENOMEM, "no memory for a migration");
	s->options = options;
	pacer_init(&s->pacer, options->bandwidth);
	s->started_ns = clock_now_ns();
	r = uuid_new(&s->result.id);
	if (r < 0) {
		pacer_destroy(&s->pacer);
		free(s);
		return error_errno(err, -r, "cannot make an id for the migration");
	}
	s->net = CONTAINER_NET_NONE;
	s->work_lock = -1;
	uuid_format(&s->result.id, s->id_text);
	snprintf(s->result.target, sizeof(s->result.target), "%s", options->target_text);
	s->driver_options = (struct driver_options){ .synced_paths = options->sync_paths,
						     .shell_job = options->shell_job,
						     .runtime = options->runtime,
						     .engine = options->engine,
						     .target_engine = options->target_engine,
						     .target_id = options->target_id,
						     .target_bundle = options->target_bundle,
						     .bridges = options->bridges,
						     .bind_rule = options->bind_rule,
						     .restart = options->restart,
						     .remove_source = options->remove_source };
	while (options->sync_paths[s->driver_options.n_synced_paths])
		s->driver_options.n_synced_paths++;
	s->stages = options->restart ? restart_stages : live_stages;
	s->n_stages = options->restart ? ARRAY_SIZE(restart_stages) : ARRAY_SIZE(live_stages);
	*ret = s;
	return 0;
}

static void record_phase(struct source *s)
{
	uint64_t now = clock_now_ns();

	if (s->result.n_phases < MIGRATION_PHASES_MAX)
		s->result.phases[s->result.n_phases++] =
			(struct migration_phase){ s->stages[s->stage].name, now - s->stage_started_ns };
	s->stage_started_ns = 0;
}

static void collect_bytes(struct source *s)
{
	uint64_t sum = s->result.bytes_wire;

	if (s->session.control)
		sum += channel_bytes_out(s->session.control) + channel_bytes_in(s->session.control);
	for (size_t i = 0; i < s->n_trees; i++)
		if (s->trees[i].channel)
			sum += channel_bytes_out(s->trees[i].channel) + channel_bytes_in(s->trees[i].channel);
	if (s->blocks.control)
		sum += channel_bytes_out(s->blocks.control) + channel_bytes_in(s->blocks.control);
	if (s->sender)
		sum += sender_bytes_out(s->sender);
	s->result.bytes_wire = sum;
}

static void finish(struct source *s, enum migration_outcome outcome)
{
	s->result.outcome = outcome;
	s->result.total_ns = clock_now_ns() - s->started_ns;
	collect_bytes(s);
	s->finished = true;
}

/* The target knows better why it broke a connection: its sentence is on the control channel, or comes soon. */
void source_prefer_reason(struct source *s, struct error *err)
{
	struct error theirs = { 0 };

	if ((err->number != ECONNRESET && err->number != EPIPE) || !s->session.control)
		return;
	channel_set_timeout(s->session.control, REASON_MS);
	channel_set_cancel_fd(s->session.control, -1);
	(void)session_receive(&s->session, PHAUL__WIRE__CONTROL__KIND_FAILURE, NULL, &theirs);
	if (theirs.number && theirs.number != ECONNRESET && theirs.number != ETIMEDOUT && theirs.number != EPROTO)
		*err = theirs;
}

/* A stage failed with err: undo what was done, in reverse order, or hold if it is too late for that. */
static void fail(struct source *s, struct error *err)
{
	source_prefer_reason(s, err);
	snprintf(s->result.reason, sizeof(s->result.reason), "%s", err->text);
	s->result.number = err->number;
	record_phase(s);
	if (s->journal && journal_state(s->journal) == STATE_SETTLED) {
		/* The move is done and told; only statistics were lost. */
		log_warning("%s", err->text);
		finish(s, OUTCOME_MIGRATED);
		return;
	}
	if (s->journal && journal_state(s->journal) == STATE_COMMITTED && !s->take_back) {
		s->outcome_unknown = true;
		finish(s, OUTCOME_UNKNOWN);
		return;
	}
	for (size_t i = s->stage + 1; i > 0; i--)
		if (s->stages[i - 1].undo)
			s->stages[i - 1].undo(s);
	s->undone = true;
	if (s->journal) {
		struct error why = { 0 };

		logs_keep(s->work_directory, journal_place(s->journal), s->result.reason, sizeof(s->result.reason));
		if (journal_enter(s->journal, STATE_ABORTED, s->result.reason, &why) < 0)
			log_error("%s", why.text);
	}
	finish(s, s->result.outcome == OUTCOME_REFUSED ? OUTCOME_REFUSED : OUTCOME_ABORTED);
}

int source_step(struct source *s, struct migration_event *ret)
{
	memset(ret, 0, sizeof(*ret));
	s->event = ret;
	while (!s->finished) {
		struct error err = { 0 };
		int r;

		if (!s->stage_started_ns) {
			s->stage_started_ns = clock_now_ns();
			ret->kind = EVENT_PHASE;
			ret->phase = s->stages[s->stage].name;
			return 1;
		}
		r = s->stage_again ? 0 : hook_reached("source", s->stages[s->stage].name, s->options->cancel_fd, &err);
		if (!r)
			r = s->stages[s->stage].run(s, &err);
		if (r < 0 && s->stages[s->stage].mends && source_lost_link(s, &err) && source_reconnect(s, &err) == 0) {
			s->stage_again = true;
			continue;
		}
		s->stage_again = r == STAGE_AGAIN;
		if (r < 0) {
			fail(s, &err);
			break;
		}
		if (r == STAGE_AGAIN)
			return 1;
		record_phase(s);
		if (s->options->check_only && s->stages[s->stage].run == source_stage_plan) {
			finish(s, OUTCOME_CHECKED);
			break;
		}
		if (++s->stage == s->n_stages)
			finish(s, OUTCOME_MIGRATED);
	}
	return 0;
}

const struct migration_result *source_result(const struct source *s)
{
	return &s->result;
}

void source_free(struct source *s)
{
	if (!s)
		return;
	if (s->outcome_unknown && s->criu) {
		/* Nobody may let the tasks run: they were stopped by a second means, and without CRIU they stay so. */
		pid_t pid = criu_program_pid(s->criu);

		if (pid > 0)
			kill(pid, SIGKILL);
	} else {
		criu_free(s->criu);
	}
	source_converge_end(s);
	sender_free(s->sender);
	tracker_free(s->tracker);
	dedup_free(s->dedup);
	page_runs_free(&s->runs);
	source_postcopy_end(s);
	source_busy_free(s);
	page_runs_free(&s->late_runs);
	vma_flags_free(s->flags);
	present_list_free(&s->present);
	source_sync_free(s);
	session_free(&s->session);
	tls_identity_free(s->identity);
	journal_free(s->journal);
	container_net_free(&s->net);
	close_fd(&s->work_lock);
	checkpoint_way_free(&s->way);
	workload_free(&s->workload);
	obstacles_free(&s->obstacles);
	pacer_destroy(&s->pacer);
	if (s->work_directory[0] && !s->outcome_unknown && !s->options->keep_images)
		dir_remove(s->work_directory);
	free(s);
}
