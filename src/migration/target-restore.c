/*
 * The target from BEGIN to the end: store, rounds, file passes, restore held, resume, fill.
 *
 * Invariant: the tasks are held until COMMIT. Threads: that of target.c; receivers and pumps have their own (receiver.c, stream.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "migration/convert.h"
#include "migration/hook.h"
#include "migration/recover.h"
#include "migration/target-internal.h"
#include "migration/tasks.h"

#define RECONNECT_MAX_MS 3600000 /* a source may ask for more, but does not keep our memory longer */
#define AVAILABLE_SHARE 9 / 10	 /* of the memory that is free when the migration begins: what the store may take */

static uint64_t store_limit(void)
{
	uint64_t pages = (uint64_t)sysconf(_SC_AVPHYS_PAGES);
	_cleanup_buffer_ struct buffer text = { 0 };
	unsigned long long kib;
	const char *line;

	if (fd_read_file(-1, "/proc/meminfo", 65536, &text) == 0) {
		line = strstr((char *)text.data, "MemAvailable:");
		if (line && sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			return kib * 1024 * AVAILABLE_SHARE;
	}
	return (pages << PAGE_SHIFT) * AVAILABLE_SHARE;
}

/* The first frame of a further channel says what it is for. */
int target_accept_channel(struct target *t, uint64_t deadline_ns, struct channel **ret,
			  enum frame_channel_kind *ret_kind, uint32_t *ret_index, struct error *err)
{
	uint8_t bytes[FRAME_HEADER_BYTES], body[FRAME_CHANNEL_BYTES];
	_cleanup_channel_ struct channel *channel = NULL;
	struct frame_header header = { 0 };
	int r = route_receive(t->route, t->options->cancel_fd, deadline_ns, &channel, err);

	if (r < 0)
		return r;
	channel_set_timeout(channel, t->options->timeout_ms);
	/* Another host of our authority is still not this migration's source. */
	if (strcmp(channel_peer_identity(channel), t->identity) != 0)
		return error_set(err, EACCES, "%s opened a channel of a session that belongs to %s",
				 channel_peer(channel), t->identity);
	r = channel_read(channel, bytes, sizeof(bytes), err);
	if (!r)
		r = frame_decode_header(bytes, &header, err);
	if (!r && header.type != FRAME_CHANNEL)
		r = error_set(err, EPROTO, "%s opened a channel without saying what for", channel_peer(channel));
	if (!r)
		r = channel_read(channel, body, sizeof(body), err);
	if (!r)
		r = frame_decode_channel(body, header.length, ret_kind, ret_index, err);
	if (!r)
		*ret = TAKE_PTR(channel);
	return r;
}

static int make_directories(struct target *t, struct error *err)
{
	int r;

	fd_raise_limit(); /* one for each process and shared memory object of the workload */
	fd_reserve_table();
	snprintf(t->work_directory, sizeof(t->work_directory), "%s/%s", t->options->run_directory, t->id_text);
	snprintf(t->images_directory, sizeof(t->images_directory), "%s/images", t->work_directory);
	r = dir_make(t->images_directory, 0700);
	if (r < 0)
		return error_errno(err, -r, "cannot make the work directory %s", t->images_directory);
	r = store_new(store_limit(), &t->store, err);
	if (!r)
		r = receiver_new(t->store, &t->receiver, err);
	if (!r)
		receiver_set_gentle(t->receiver, true);
	if (!r)
		r = image_sink_open(t->images_directory, t->store, &t->sink, err);
	t->sink_open = !r;
	return r;
}

/* What is made at BEGIN, each step noted before it is taken. */
static int make_place(struct target *t, struct error *err)
{
	int r = make_directories(t, err);

	if (!r)
		r = journal_note_text(t->journal, "work_directory", t->work_directory, err);
	if (!r && t->keep_images)
		r = journal_mark(t->journal, "keep_images", err);
	if (!r)
		r = recover_note_addresses(t->journal, t->addresses, t->n_addresses, err);
	if (!r)
		r = journal_enter(t->journal, STATE_RECEIVING, NULL, err);
	return r < 0 ? r : target_prepare_place(t, err);
}

int target_on_begin(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	struct journal_subject subject = { SIDE_TARGET, t->workload.type, t->workload.id,
					   channel_peer(t->session.control),
					   channel_peer_identity(t->session.control) };
	int r;

	if (!t->driver || t->check_only || t->resume_only)
		return error_set(err, EPROTO, "the peer began without a plan");
	t->keep_images = m->begin->keep_images;
	t->no_start = m->begin->no_start;
	if (t->driver_options.restart && !t->driver->start)
		return error_set(err, EPROTO, "a %s cannot be started anew", t->driver->name);
	t->data_channels = m->begin->data_channels;
	t->further_channels = m->begin->data_channels + m->begin->fs_channels;
	t->reconnect_ms = MIN((int64_t)m->begin->reconnect_ms, (int64_t)RECONNECT_MAX_MS);
	journal_expire(t->journals);
	r = journal_create(t->journals, &t->id, &subject, &t->journal, err);
	if (!r)
		r = make_place(t, err);
	if (!r)
		r = session_send_ready(&t->session, err);
	return r < 0 ? r : target_take_channels(t, err);
}

int target_on_round(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	Phaul__Wire__RoundDone part = PHAUL__WIRE__ROUND_DONE__INIT;
	CONTROL_OF(reply, round_done, ROUND_DONE, &part);
	int r = target_await_round(t, m->round->number, "round", err);

	if (r < 0)
		return r;
	part.number = m->round->number;
	part.store_bytes = store_bytes(t->store);
	return session_send(&t->session, &reply, err);
}

/* Who has to end before a later phaul takes up what a crash left. An engine's CRIU is only known once it has restored. */
static int note_criu(struct target *t, struct error *err)
{
	pid_t pid = restorer_program_pid(t->restorer);

	return pid ? noted_process_write(t->journal, "criu", pid, err) : 0;
}

static int make_restorer(struct target *t, const Phaul__Wire__Arm *arm, struct error *err)
{
	const Phaul__Wire__Way *way = arm->way;
	struct criu_options options = {
		.images_directory = t->images_directory,
		.work_directory = t->work_directory,
		.shell_job = way->shell_job,
		.tcp_established = way->tcp_established,
		.file_locks = way->file_locks,
		.ext_unix_sk = way->ext_unix_sk,
		.link_remap = way->link_remap,
		.ghost_limit_bytes = way->ghost_limit_bytes,
		.manage_cgroups = way->manage_cgroups,
		.net_settings = arm->net_settings.len ? arm->net_settings.data : NULL,
		.net_settings_length = arm->net_settings.len,
	};
	int r;

	r = restorer_new(t->driver, &t->workload, &t->place, &options, t->options->cancel_fd, &t->restorer, err);
	return r < 0 ? r : note_criu(t, err);
}

static int make_pager(struct target *t, struct error *err)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/lazy-pages.socket", t->work_directory);
	return pager_prepare(path, &t->pager, err);
}

int target_on_arm(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	int r = 0;

	receiver_set_gentle(t->receiver, false);
	/* Before the engine puts anything into it, and so is silent from the first moment on. */
	if (t->driver->capabilities & DRIVER_NETWORK_FIRST)
		r = target_net_arm(t, err);
	/* Asked again after a break: it is done. */
	if (!r && !t->restorer)
		r = make_restorer(t, m->arm, err);
	if (!r && !t->pager)
		r = make_pager(t, err);
	if (!r)
		r = target_net_arm(t, err);
	if (!r)
		r = session_send_ready(&t->session, err);
	return r < 0 ? r : target_take_page_channels(t, m->arm->page_channels, err);
}

/* The present maps: drop what is gone, know that the rest is here, give it to a pager. */
static int start_pager(struct target *t, const Phaul__Wire__Finish *finish, struct error *err)
{
	_cleanup_free_ struct pager_space *spaces = calloc(finish->n_present + 1, sizeof(*spaces));
	_cleanup_free_ struct range_set *sets = calloc(3 * finish->n_present + 1, sizeof(*sets));
	int r = 0;

	if (!t->pager)
		return error_set(err, EPROTO, "the peer did not let the target get ready for the freeze");
	if (!spaces || !sets)
		return error_set(err, ENOMEM, "no memory for the present maps");
	for (size_t i = 0; i < finish->n_present && !r; i++) {
		const Phaul__Wire__SpacePresent *p = finish->present[i];
		struct range_set *missing = &sets[finish->n_present + i], *busy = &sets[2 * finish->n_present + i];

		/* Borrowed: two numbers in a row are a range; message.c has checked them. */
		sets[i] = (struct range_set){ .ranges = (struct range *)p->bounds, .n_ranges = p->n_bounds / 2 };
		*missing = (struct range_set){ .ranges = (struct range *)p->missing, .n_ranges = p->n_missing / 2 };
		*busy = (struct range_set){ .ranges = (struct range *)p->busy, .n_ranges = p->n_busy / 2 };
		r = target_apply_missing(t, p->space, &sets[i], missing, err);
		spaces[i] = (struct pager_space){ .space = p->space,
						  .image_pid = p->image_pid,
						  .store_fd = store_fd(t->store, p->space),
						  .present = &sets[i],
						  .missing = missing->n_ranges ? missing : NULL,
						  .busy = busy->n_ranges ? busy : NULL };
	}
	if (!r)
		r = pager_start(t->pager, spaces, finish->n_present, err);
	return r < 0 ? r : target_start_fetch(t, err);
}

/* All processes' memory must be in the pager's hands before anybody says "prepared". */
static int check_pager(struct target *t, struct error *err)
{
	struct pager_status status = { 0 };
	int r = pager_status(t->pager, &status, err);

	if (r < 0)
		return r;
	if (status.failed || !status.connected)
		return error_set(err, status.failed ? status.failed : EPROTO,
				 "the pager did not get hold of the restored memory (its log: %s/pager.log)",
				 t->work_directory);
	return 0;
}

int target_on_finish(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	Phaul__Wire__Prepared part = PHAUL__WIRE__PREPARED__INIT;
	CONTROL_OF(reply, prepared, PREPARED, &part);
	uint64_t began = clock_now_ns(), arrived, checked;
	int r;

	if (t->driver_options.restart)
		return target_restart_finish(t, err);
	r = target_await_round(t, m->finish->round, "last round", err);
	if (r < 0)
		return r;
	arrived = clock_now_ns();
	log_debug("all pages are here");
	r = image_sink_finish(&t->sink, m->finish->images, err);
	if (!r)
		r = start_pager(t, m->finish, err);
	log_debug("the pager is ready");
	if (!r)
		r = target_net_take(t, err);
	checked = clock_now_ns();
	if (!r && !t->restorer)
		r = error_set(err, EPROTO, "the peer did not let the target get ready for the freeze");
	if (!r)
		r = target_net_expect(t, err);
	if (!r)
		r = restorer_hold(t->restorer, t->options->cancel_fd, &t->root_pid, err);
	/* The hand over takes some milliseconds, in which the first pages get there. */
	if (!r)
		pager_fill(t->pager);
	if (!r)
		r = target_net_found(t, err);
	if (!r)
		r = note_criu(t, err);
	if (!r)
		r = check_pager(t, err);
	if (!r)
		r = target_await_passes(t, err);
	if (!r)
		r = noted_tasks_write(t->journal, t->root_pid, NULL, 0, err);
	if (!r)
		r = journal_enter(t->journal, STATE_PREPARED, NULL, err);
	if (r < 0)
		return r;
	part.wait_ns = arrived - began;
	part.check_ns = checked - arrived;
	part.restore_ns = clock_now_ns() - checked;
	return session_send(&t->session, &reply, err);
}

/* Who lacks its CRIU or its pager cannot be let go; the source may still have its copy back. */
static int check_held(struct target *t, struct error *err)
{
	if (!restorer_alive(t->restorer))
		return error_set(err, ECHILD, "CRIU ended at the target before the handover");
	/* Not to be taken for a failure of the link. */
	return check_pager(t, err) < 0 ? -(err->number = EIO) : 0;
}

int target_release(struct target *t, struct error *err)
{
	int r = t->driver_options.restart ? 0 : check_held(t, err);

	if (t->driver_options.restart)
		return target_restart_release(t, err);
	if (!r)
		r = journal_enter(t->journal, STATE_RESUMING, NULL, err);
	if (!r)
		r = hook_reached("target", "resuming", -1, err);
	if (!r)
		r = journal_mark(t->journal, "released", err);
	if (r < 0)
		return r;
	pager_keep(t->pager);
	r = restorer_resume(t->restorer, err);
	if (r < 0)
		return r;
	t->resumed_at_ns = clock_now_ns();
	log_debug("the tasks run");
	/* Only now: a segment that reaches a socket still under repair is lost, or answered wrongly. */
	target_net_release(t);
	r = hook_reached("target", "resumed", -1, err);
	if (!r)
		r = pager_release(t->pager, err);
	if (!r)
		r = restorer_finish(t->restorer, err);
	return r < 0 ? r : journal_enter(t->journal, STATE_RUNNING, NULL, err);
}

int target_on_commit(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	Phaul__Wire__Running part = PHAUL__WIRE__RUNNING__INIT;
	CONTROL_OF(reply, running, RUNNING, &part);
	uint64_t began = clock_now_ns();
	int r = target_release(t, err);

	(void)m;
	if (!r)
		r = hook_reached("target", "running", -1, err);
	if (r < 0)
		return r;
	part.resume_ns = t->resumed_at_ns - began;
	part.root_pid = t->root_pid;
	part.held = net_hold_queues(t->hold) || net_hold_queues(t->net.hold) || target_guard_holds(t);
	part.held_packets = t->held.packets;
	return session_send(&t->session, &reply, err);
}

int target_on_done(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	Phaul__Wire__Filled part = PHAUL__WIRE__FILLED__INIT;
	CONTROL_OF(reply, filled, FILLED, &part);
	struct pager_status status = { 0 };
	int r;

	(void)m;
	if (t->driver_options.restart)
		return target_restart_done(t, err);
	target_net_settle(t);
	restorer_free(TAKE_PTR(t->restorer));
	/* The pager has duplicates: ours would only keep the pages of punched holes company. */
	receiver_free(TAKE_PTR(t->receiver));
	store_free(TAKE_PTR(t->store));
	target_end_fetch(t);
	r = pager_wait(t->pager, DEADLINE_NEVER, err);
	if (r >= 0)
		r = pager_status(t->pager, &status, err);
	if (r >= 0)
		r = journal_mark(t->journal, RESIDENT_MARK, err);
	if (r < 0)
		return r;
	part.faults = status.faults;
	part.pages_copied = status.pages_copied;
	part.fault_ns_max = status.fault_ns_max;
	part.pager_replaced = status.replaced;
	part.fill_ns = clock_now_ns() - t->resumed_at_ns;
	part.fault_ns_p50 = status.fault_ns_p50;
	part.fault_ns_p99 = status.fault_ns_p99;
	part.faults_remote = status.faults_remote;
	part.remote_ns_p50 = status.remote_ns_p50;
	part.remote_ns_p99 = status.remote_ns_p99;
	t->finished = true;
	return session_send(&t->session, &reply, err);
}

void target_undo(struct target *t)
{
	struct error err = { 0 };

	target_net_undo(t); /* first: the source speaks again as soon as it hears of the end */
	target_end_passes(t);
	if (t->restorer && restorer_abort(t->restorer, &err) < 0)
		log_error("%s", err.text);
	target_end_fetch(t);
	restorer_free(TAKE_PTR(t->restorer));
	pager_free(TAKE_PTR(t->pager));
	receiver_free(TAKE_PTR(t->receiver));
	store_free(TAKE_PTR(t->store));
	target_forget_place(t);
	target_guard_end(t);
}

int target_on_abort(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	int r = 0;

	log_info("the source gave up: %s", m->abort->reason);
	target_undo(t);
	if (t->journal)
		r = journal_enter(t->journal, STATE_ABORTED, m->abort->reason, err);
	t->finished = true;
	return r < 0 ? r : session_send_ready(&t->session, err);
}
