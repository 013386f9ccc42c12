/*
 * The source from the freeze to the end: CRIU holds the tasks, the rest is sent, the target prepares, the handover happens.
 *
 * Invariants: between the freeze and `committed` every failure leads back to running tasks here (source.c, fail). The
 * journal says `committed` before COMMIT is sent; from then on nothing here lets the tasks run. They are stopped by a second
 * means before that, because CRIU's hold ends when CRIU dies.
 *
 * Threads: that of source.c; what is sent while CRIU dumps has one of its own (source-final.c).
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/process.h"
#include "migration/convert.h"
#include "migration/hook.h"
#include "migration/source-internal.h"
#include "migration/tasks.h"

#define FILL_BYTES_PER_MS 20000 /* what even a busy target pours in; seen: fifty times that */

void source_undo_arm(struct source *s)
{
	struct error err = { 0 };

	if (s->engine_armed && s->driver->disarm(&s->workload, &s->driver_options, &err) < 0)
		log_error("%s", err.text);
	s->engine_armed = false;
}

static int arm_once(struct source *s, struct error *err)
{
	struct criu_options options = {
		.images_directory = s->images_directory,
		.work_directory = s->work_directory,
		.shell_job = s->way.shell_job,
		.tcp_established = s->way.tcp_established,
		.file_locks = s->way.file_locks,
		.ghost_limit_bytes = s->way.ghost_limit_bytes,
		.external = (const char *const *)s->way.external,
		.manage_cgroups = s->way.manage_cgroups,
		.ext_unix_sk = s->way.ext_unix_sk,
		.link_remap = s->way.link_remap,
		.empty_network = s->way.empty_network,
	};
	_cleanup_buffer_ struct buffer settings = { 0 };
	Phaul__Wire__Arm arm = PHAUL__WIRE__ARM__INIT;
	Phaul__Wire__Way way;
	CONTROL_OF(request, arm, ARM, &arm);
	int r;

	arm.page_channels = source_postcopy_wanted(s) ? 2 : 0;
	convert_way_to_wire(&s->way, &way);
	arm.way = &way;
	r = container_net_settings(s->driver, &s->workload, &settings, err);
	if (r < 0)
		return r;
	arm.net_settings.data = settings.data;
	arm.net_settings.len = settings.length;
	source_engine_patience(s, true);
	r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_READY, NULL, err);
	source_engine_patience(s, false);
	if (!r && arm.page_channels)
		r = source_postcopy_arm(s, err);
	if (!r)
		r = source_net_arm(s, err);
	if (!r && s->driver->arm) {
		s->engine_armed = true;
		r = s->driver->arm(&s->workload, &s->driver_options, err);
	}
	snprintf(s->hidden_path, sizeof(s->hidden_path), "%s/hidden", s->work_directory);
	options.hidden_ranges = s->hidden_path;
	if (!r && mkfifo(s->hidden_path, 0600) < 0)
		r = error_errno(err, errno, "cannot make the pipe %s", s->hidden_path);
	if (!r)
		source_flags_prepare(s);
	if (!r)
		r = criu_start(&options, &s->criu, err);
	if (r < 0)
		return r;
	/* With its code in the tasks it must not be ended by force. */
	process_spare(criu_program_pid(s->criu));
	return noted_process_write(s->journal, "criu", criu_program_pid(s->criu), err);
}

/* Everything that can be done before the freeze: the target catches the addresses and has its CRIU warm, ours is started. That takes a while, in
 * which the workload writes: one more round. Last of all, whether the link is still there: a break that is found now is mended, one that is
 * found in the freeze ends the migration. */
int source_stage_arm(struct source *s, struct error *err)
{
	int r;

	if (s->sender)
		sender_set_gentle(s->sender, false);
	/* Again after a break in the last round: what waits for the freeze went with the link. */
	r = source_sync_arm(s, err);
	if (!r && !s->criu) {
		r = arm_once(s, err);
		if (!r)
			r = hook_reached("source", "armed", s->options->cancel_fd, err);
	}
	if (!r)
		r = source_last_round(s, err);
	return r ? r : source_ping(s, err);
}

int source_stage_freeze(struct source *s, struct error *err)
{
	int r, mended;

	r = source_converge_let_go(s, err);
	if (!r)
		r = source_final_begin(s, err);
	if (r < 0)
		return r;
	log_debug("CRIU is asked to dump");
	s->frozen_at_ns = clock_now_ns();
	r = criu_dump_stop(s->criu, s->workload.root_pid, s->options->cancel_fd, err);
	if (!r)
		r = source_give_addresses(s, err);
	if (!r)
		r = criu_dump(s->criu, s->workload.root_pid, s->options->cancel_fd, err);
	r = source_final_end(s, r, err);
	if (r < 0)
		return r;
	s->result.dump_ns = clock_now_ns() - s->frozen_at_ns;
	r = source_note_freeze(s, err);
	if (!r)
		r = journal_enter(s->journal, STATE_FROZEN, NULL, err);
	if (r < 0)
		return r;
	mended = criu_mend_images(s->images_directory, err);
	if (mended > 0)
		log_info("mended %d timers in CRIU's images", mended);
	return MIN(mended, 0);
}

/* CRIU's lock on the connections that moved would stay at the source for ever. */
static void remove_criu_table(struct source *s)
{
	struct error err = { 0 };
	char table[64];

	/* In the namespace of its own that a container has, if it has one. */
	if (criu_network_table(s->work_directory, table, sizeof(table)) == 0 &&
	    net_criu_table_remove(table, &s->net.place, &err) < 0)
		log_warning("%s", err.text);
}

void source_undo_freeze(struct source *s)
{
	struct error err = { 0 };

	source_postcopy_end(s);
	source_return_addresses(s);
	if (!s->criu)
		return;
	if (criu_dump_rollback(s->criu, &err) < 0)
		log_error("%s", err.text);
	if (s->firmly_stopped && s->driver->unstop(&s->workload, &err) < 0)
		log_error("%s", err.text);
	s->firmly_stopped = false;
	remove_criu_table(s);
	source_return_network(s);
	criu_free(TAKE_PTR(s->criu));
}

static int send_rest(struct source *s, struct error *err)
{
	/* CRIU's images go on the control channel while the data channels carry pages. */
	int r = images_send(&s->session, s->images_directory, false, s->dedup, &s->images, err);

	log_debug("images sent, %u files", s->images.files);
	if (!r)
		r = source_sync_final_end(s, err);
	if (!r)
		r = source_early_finish(s, err);
	if (r < 0)
		return r;
	log_debug("last %llu pages sent", (unsigned long long)s->runs.pages);
	r = images_send(&s->session, s->images_directory, true, s->dedup, &s->images, err);
	log_debug("pages of the images sent, %llu by reference", (unsigned long long)s->images.pages_referenced);
	return r;
}

int source_stage_finish(struct source *s, struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	Phaul__Wire__Finish finish = PHAUL__WIRE__FINISH__INIT;
	CONTROL_OF(request, finish, FINISH, &finish);
	struct sender_counters round, all;
	int r = source_give_addresses(s, err); /* where nobody could before */

	if (!r)
		r = send_rest(s, err);
	if (!r && s->postcopy.server)
		r = source_postcopy_prepare(s, err);
	if (r < 0)
		return r;
	source_busy_tell(s);
	finish.round = s->round;
	finish.images = s->images.files;
	finish.present = s->present.pointers;
	finish.n_present = s->present.n;
	s->may_be_prepared = true;
	r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_PREPARED, &reply, err);
	if (r < 0)
		return r;
	sender_progress(s->sender, &round, &all);
	s->result.restore_ns = reply->prepared->restore_ns;
	s->result.pages_total = s->present.pages;
	for (size_t i = 0; i < ENCODING_MAX; i++)
		s->result.pages_sent += all.by[i].pages;
	s->result.pages_zero = all.by[ENCODING_ZERO].pages;
	s->result.pages_sent -= s->result.pages_zero;
	memcpy(s->result.encodings, all.by, sizeof(all.by));
	s->result.pages_referenced = s->images.pages_referenced;
	s->result.image_bytes = s->images.bytes;
	return STAGE_DONE;
}

int source_stage_commit(struct source *s, struct error *err)
{
	Phaul__Wire__Commit commit = PHAUL__WIRE__COMMIT__INIT;
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	CONTROL_OF(request, commit, COMMIT, &commit);
	int r;

	if (s->options->cancel_fd >= 0 && fd_wait(s->options->cancel_fd, POLLIN, 0) == 1)
		return error_set(err, ECANCELED, "canceled before the handover");
	s->firmly_stopped = true;
	r = s->driver->stop_firmly(&s->workload, err);
	/* If CRIU died before that, the tasks have run since, and what the target has is not what they are now. */
	if (!r && !criu_alive(s->criu))
		r = error_set(err, ECHILD, "CRIU ended before the handover; the tasks run on here");
	if (!r)
		r = hook_reached("source", "stopped", s->options->cancel_fd, err);
	if (!r)
		r = journal_enter(s->journal, STATE_COMMITTED, NULL, err);
	if (r < 0)
		return r;
	r = hook_reached("source", "committed", -1, err);
	if (r < 0)
		return r;
	/* From here on a Ctrl-C comes too late: the outcome is the target's. */
	channel_set_cancel_fd(s->session.control, -1);
	s->committed_at_ns = clock_now_ns();
	r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_RUNNING, &reply, err);
	if (r < 0) {
		log_warning("no answer to the commit: %s", err->text);
		return source_after_commit(s, err);
	}
	s->result.resume_ns = reply->running->resume_ns;
	s->result.held = reply->running->held;
	s->result.held_packets = reply->running->held_packets;
	s->result.frozen_ns = s->committed_at_ns - s->frozen_at_ns + s->round_trip_ns / 2 + reply->running->resume_ns;
	return STAGE_DONE;
}

/* The move is done whatever the engine says to it. */
void source_tell_engine(struct source *s)
{
	struct error err = { 0 };

	source_net_gone(s);
	if (s->driver->moved && s->driver->moved(&s->workload, &s->driver_options, &err) < 0)
		log_warning("it runs at the target, but here: %s", err.text);
}

int source_stage_settle(struct source *s, struct error *err)
{
	Phaul__Wire__Done done = PHAUL__WIRE__DONE__INIT;
	CONTROL_OF(request, done, DONE, &done);
	int r = hook_reached("source", "running", -1, err);

	if (!r)
		r = criu_dump_commit(s->criu, err);
	if (r < 0) {
		_cleanup_tasks_ struct noted_tasks tasks = { 0 };

		/* They are stopped by a second means, and nobody but us may end them. */
		log_warning("%s", err->text);
		r = noted_tasks_read(s->journal, &tasks, err);
		if (!r)
			r = noted_tasks_kill(&tasks, err);
	}
	if (r < 0)
		return r;
	s->result.preload_acted = criu_preload_acted(s->criu);
	criu_preload_actions(s->criu, s->result.preload_did, sizeof(s->result.preload_did));
	remove_criu_table(s);
	criu_free(TAKE_PTR(s->criu));
	r = journal_enter(s->journal, STATE_SETTLED, NULL, err);
	tracker_free(TAKE_PTR(s->tracker));
	if (!r)
		r = session_send(&s->session, &request, err);
	source_tell_engine(s);
	/* Should we be killed now, nothing is left here. */
	if (!s->options->keep_images)
		dir_remove(s->work_directory);
	return r;
}

/* The target says nothing until all is filled: give it the time that a slow one may need. A Ctrl-C ends only the wait. */
static void fill_patience(struct source *s)
{
	uint64_t ms = (s->present.pages << PAGE_SHIFT) / FILL_BYTES_PER_MS;

	channel_set_timeout(s->session.control, s->options->timeout_ms + (int64_t)ms);
	channel_set_cancel_fd(s->session.control, s->options->cancel_fd);
}

int source_stage_fill(struct source *s, struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	int r;

	fill_patience(s);
	r = session_receive(&s->session, PHAUL__WIRE__CONTROL__KIND_FILLED, &reply, err);

	if (r < 0)
		return error_wrap(err, "the workload runs at the target, but how its memory was filled is not known");
	s->result.faults = reply->filled->faults;
	s->result.pages_filled = reply->filled->pages_copied;
	s->result.fault_ns_max = reply->filled->fault_ns_max;
	s->result.pager_replaced = reply->filled->pager_replaced;
	s->result.fill_ns = reply->filled->fill_ns;
	s->result.fault_ns_p50 = reply->filled->fault_ns_p50;
	s->result.fault_ns_p99 = reply->filled->fault_ns_p99;
	s->result.faults_remote = reply->filled->faults_remote;
	s->result.remote_ns_p50 = reply->filled->remote_ns_p50;
	s->result.remote_ns_p99 = reply->filled->remote_ns_p99;
	return STAGE_DONE;
}
