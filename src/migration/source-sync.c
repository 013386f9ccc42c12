/*
 * The source's half of the file passes.
 *
 *   files    each tree once, as a whole; its watch begins before that
 *   copy     beside the rounds of memory: what changed since the last pass, by list, again and again
 *   freeze   the last pass, by list; every rsync waits for it already, so nothing has to be started then
 *
 * A directory's pass is always started before it is needed (`pass`), and waits for its list (`fed`: it has it). A tree that cannot be watched
 * gets the list of all its directories. A single file has no list: it is looked at as a whole, in the freeze too. A tree
 * that both hosts see is left alone.
 *
 * Threads: that of source.c; only source_sync_final_begin() may be called by another, while source.c's waits. Passes and watches have
 * their own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/watch.h"
#include "migration/pass.h"
#include "migration/shared.h"
#include "migration/source-internal.h"

#define GAP_MS 200	  /* between the passes of a tree, by list */
#define WHOLE_GAP_MS 5000 /* and of one that is looked at as a whole */
#define TURN_MS 200
#define MANY_NAMES 256 /* more than that are not left to the freeze */

uint32_t source_passes(const struct source *s)
{
	return (uint32_t)(s->driver_options.n_synced_paths + s->workload.n_trees);
}

const char *source_pass_path(const struct source *s, uint32_t i)
{
	if (i < s->driver_options.n_synced_paths)
		return s->options->sync_paths[i];
	i -= (uint32_t)s->driver_options.n_synced_paths;
	return i < s->workload.n_trees ? s->workload.trees[i].path : NULL;
}

int source_sync_trees(struct source *s, struct error *err)
{
	uint32_t n = source_passes(s);

	s->trees = calloc(n + 1U, sizeof(*s->trees));
	if (!s->trees)
		return error_set(err, ENOMEM, "no memory for the plan");
	s->n_trees = n;
	for (uint32_t i = 0; i < n; i++) {
		size_t k = i - s->driver_options.n_synced_paths;
		struct stat st;

		s->trees[i].tree.path = source_pass_path(s, i);
		if (i >= s->driver_options.n_synced_paths)
			s->trees[i].tree.excludes = (const char *const *)s->workload.trees[k].excludes;
		s->trees[i].file = !stat(s->trees[i].tree.path, &st) && !S_ISDIR(st.st_mode);
	}
	return 0;
}

int source_sync_probe(struct source *s, uint32_t i, struct error *err)
{
	Phaul__Wire__Probe part = PHAUL__WIRE__PROBE__INIT;
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	CONTROL_OF(request, probe, PROBE, &part);
	struct source_tree *t = &s->trees[i];
	struct error why = { 0 };
	struct shared_mark mark;
	int r;

	t->probed = true;
	if (shared_mark_make(t->tree.path, t->file, &mark, &why) < 0) {
		log_debug("%s: whether it is shared is not known, it is copied", why.text);
		return 0;
	}
	part.path = i;
	part.file = t->file;
	part.name = (ProtobufCBinaryData){ .len = sizeof(mark.name), .data = mark.name };
	part.content = (ProtobufCBinaryData){ .len = sizeof(mark.content), .data = mark.content };
	r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_PROBE_REPLY, &reply, err);
	shared_mark_remove(&mark);
	if (r < 0)
		return r;
	t->shared = reply->probe_reply->same;
	if (t->shared)
		log_info("%s is the same %s on both hosts: it is not copied", t->tree.path,
			 t->file ? "file" : "directory");
	return 0;
}

static int begin_pass(struct source *s, uint32_t i, bool listed, struct error *err)
{
	Phaul__Wire__Sync part = PHAUL__WIRE__SYNC__INIT;
	CONTROL_OF(request, sync, SYNC, &part);
	struct source_tree *t = &s->trees[i];
	int r;

	part.path = i;
	if (t->file && stat(t->tree.path, &t->seen) < 0)
		t->seen = (struct stat){ 0 };
	r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_READY, NULL, err);
	if (!r)
		r = pass_send(&t->tree, listed, t->channel, s->options->timeout_ms, &t->pass, err);
	t->fed = !listed;
	t->fed_ns = clock_now_ns();
	return r;
}

static int await_pass(struct source *s, struct source_tree *t,
		      int (*wait)(struct pass *p, int cancel_fd, uint64_t deadline_ns, struct error *err),
		      struct error *err)
{
	int r = 0;

	while (!r) {
		r = wait(t->pass, s->options->cancel_fd, deadline_in_ms(TURN_MS), err);
		if (!r)
			r = source_keep_alive(s, err);
	}
	return r < 0 ? r : 0;
}

/* The pass of a tree has its list, and is waited for. */
static int end_pass(struct source *s, uint32_t i, struct error *err)
{
	Phaul__Wire__SyncEnd part = PHAUL__WIRE__SYNC_END__INIT;
	CONTROL_OF(request, sync_end, SYNC_END, &part);
	struct source_tree *t = &s->trees[i];
	struct error theirs = { 0 };
	int r = await_pass(s, t, pass_wait, err), k;

	if (r < 0)
		return r;
	r = pass_end(TAKE_PTR(t->pass), NULL, err);
	t->ended_ns = clock_now_ns();
	s->result.sync_passes++;
	if (r == -ETIMEDOUT)
		return r;
	/* The target's half knows better what went wrong there (a full disk, say); here rsync only sees a broken pipe. */
	part.path = i;
	k = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_SYNC_DONE, NULL, &theirs);
	if (k < 0)
		*err = theirs;
	return k < 0 ? k : r;
}

/* Gives the waiting pass its list: what changed, or all there is. *ret_n: names on it. */
static int feed(struct source *s, struct source_tree *t, bool last, uint64_t *ret_n, struct error *err)
{
	_cleanup_buffer_ struct buffer list = { 0 };
	struct error why = { 0 };
	size_t n = 0;
	int r = t->watch ? watch_take(t->watch, &list, &n, &why) : 0;

	if (r > 0 && t->redo)
		r = error_set(&why, ECONNRESET, "the link was lost in a pass");
	t->redo = false;
	if (r <= 0) {
		_cleanup_(changes_freep) struct changes *c = NULL;

		if (t->watch)
			log_warning("%s: all of %s is looked at", why.text, t->tree.path);
		if (last)
			snprintf(s->result.sync_final_whole, sizeof(s->result.sync_final_whole), "%s",
				 t->watch ? why.text : t->unwatched);
		list.length = 0;
		r = changes_new(&t->tree, &c, err);
		if (!r)
			r = changes_add_all(c, err);
		if (!r)
			r = changes_finish(c, &list, &n, err);
		if (r < 0)
			return r;
	}
	*ret_n += n;
	if (last && !n)
		return 0; /* a pass over nothing takes as long as one over something little */
	if (last && (r = source_blocks_final(s, t, err)) < 0)
		return r;
	if (!last)
		source_blocks_note(t, &list);
	t->fed = true;
	t->fed_ns = clock_now_ns();
	return pass_feed(t->pass, &list, err);
}

static int start_watch(struct source *s, struct source_tree *t)
{
	struct error why = { 0 };

	if (t->file || t->watch)
		return 0;
	if (watch_new(&t->tree, s->workload.root_pid, &t->watch, &why) < 0) {
		log_warning("%s: each pass looks at all of it", why.text);
		snprintf(t->unwatched, sizeof(t->unwatched), "%s", why.text);
	}
	return 0;
}

static void tell_pass(struct source *s, const struct source_tree *t)
{
	s->event->kind = EVENT_SYNC;
	s->event->path = t->tree.path;
	s->event->ns = clock_now_ns() - t->fed_ns;
	s->result.sync_ns += s->event->ns;
}

/* One more pass by list, waited for, when that many names or more have changed. */
static int catch_up(struct source *s, uint32_t i, size_t least, struct error *err)
{
	struct source_tree *t = &s->trees[i];
	uint64_t n = 0;
	int r;

	if (!t->pass || t->fed || !t->watch || watch_pending(t->watch) < least)
		return 0;
	r = feed(s, t, false, &n, err);
	if (!r)
		r = end_pass(s, i, err);
	if (r < 0)
		return error_wrap(err, "cannot bring %s to the target", t->tree.path);
	s->result.sync_ns += clock_now_ns() - t->fed_ns;
	return begin_pass(s, i, true, err);
}

int source_stage_sync(struct source *s, struct error *err)
{
	struct source_tree *t;
	uint32_t i;
	int r = 0;

	while (s->sync_next < s->n_trees && s->trees[s->sync_next].shared)
		s->sync_next++;
	if (s->sync_next >= s->n_trees)
		return STAGE_DONE;
	i = (uint32_t)s->sync_next;
	t = &s->trees[i];
	if (!t->probed)
		r = source_sync_probe(s, i, err);
	if (r < 0)
		return r;
	if (t->shared)
		return source_stage_sync(s, err); /* the next one */
	start_watch(s, t);
	r = begin_pass(s, i, false, err);
	if (!r)
		r = end_pass(s, i, err);
	if (r < 0)
		return error_wrap(err, "cannot bring %s to the target", t->tree.path);
	tell_pass(s, t);
	source_blocks_begin(t);
	if (!t->file)
		r = begin_pass(s, i, true, err);
	/* A long first pass leaves much behind. */
	if (!r)
		r = catch_up(s, i, 1, err);
	if (r < 0)
		return r;
	s->sync_next++;
	return STAGE_AGAIN;
}

static bool due(const struct source_tree *t)
{
	uint64_t gap_ms = t->watch ? GAP_MS : WHOLE_GAP_MS;

	return clock_now_ns() >= t->ended_ns + gap_ms * NS_PER_MS && (!t->watch || watch_pending(t->watch));
}

/* A directory's pass is started, if it is not. */
static int await_list(struct source *s, uint32_t i, struct error *err)
{
	struct source_tree *t = &s->trees[i];

	return t->file || t->shared || t->pass ? 0 : begin_pass(s, i, true, err);
}

int source_sync_turn(struct source *s, struct error *err)
{
	uint64_t n = 0;
	int r = 0;

	for (uint32_t i = 0; i < s->n_trees && !r; i++) {
		struct source_tree *t = &s->trees[i];

		r = await_list(s, i, err);
		if (r < 0 || !t->pass)
			continue;
		if (!t->fed) {
			r = due(t) ? feed(s, t, false, &n, err) : 0;
		} else if ((r = pass_wait(t->pass, -1, 0, err)) == 1) {
			r = end_pass(s, i, err);
			if (r < 0)
				return error_wrap(err, "cannot bring %s to the target", t->tree.path);
			tell_pass(s, t);
			r = begin_pass(s, i, true, err);
			return r < 0 ? r : 1;
		}
	}
	return r;
}

int source_sync_arm(struct source *s, struct error *err)
{
	int r = 0;

	if (s->files_armed)
		return 0;
	for (uint32_t i = 0; i < s->n_trees && !r; i++) {
		if (s->trees[i].pass && s->trees[i].fed)
			r = end_pass(s, i, err);
		if (!r)
			r = await_list(s, i, err);
		if (!r)
			r = catch_up(s, i, MANY_NAMES, err);
	}
	if (!r)
		r = source_blocks_arm(s, err);
	s->files_armed = !r;
	return r;
}

int source_sync_final_begin(struct source *s, struct error *err)
{
	int r = 0;

	if (s->sync_final_at_ns || !s->n_trees)
		return 0;
	s->sync_final_at_ns = clock_now_ns();
	r = s->options->restart ? 0 : source_touch_mapped(s, err);
	log_debug("mapped files touched after %.1f ms",
		  (double)(clock_now_ns() - s->sync_final_at_ns) / (double)NS_PER_MS);
	for (uint32_t i = 0; i < s->n_trees && !r; i++)
		if (s->trees[i].pass)
			r = feed(s, &s->trees[i], true, &s->result.sync_final_names, err);
	log_debug("%llu names listed after %.1f ms", (unsigned long long)s->result.sync_final_names,
		  (double)(clock_now_ns() - s->sync_final_at_ns) / (double)NS_PER_MS);
	return r;
}

/* Starting rsync for a file costs tens of milliseconds; most are as they were. A pass takes longer than the clock of time stamps. */
static bool unchanged(const struct source_tree *t)
{
	const struct stat *seen = &t->seen;
	struct stat now;

	return !t->redo && stat(t->tree.path, &now) == 0 && now.st_ino == seen->st_ino &&
	       now.st_size == seen->st_size && now.st_mtim.tv_sec == seen->st_mtim.tv_sec &&
	       now.st_mtim.tv_nsec == seen->st_mtim.tv_nsec && now.st_ctim.tv_sec == seen->st_ctim.tv_sec &&
	       now.st_ctim.tv_nsec == seen->st_ctim.tv_nsec;
}

static int give_up_pass(struct source *s, uint32_t i, struct error *err)
{
	Phaul__Wire__SyncEnd part = PHAUL__WIRE__SYNC_END__INIT;
	CONTROL_OF(request, sync_end, SYNC_END, &part);

	part.path = i;
	part.unused = true;
	return session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_SYNC_DONE, NULL, err);
}

/* The last pass: all its files are there. The target sees to the rest of it while it restores; what failed is asked for at once. */
static int place_pass(struct source *s, uint32_t i, struct error *err)
{
	struct source_tree *t = &s->trees[i];
	int r;

	if (!t->fed)
		return give_up_pass(s, i, err);
	s->result.sync_passes++;
	r = await_pass(s, t, pass_wait_placed, err);
	return r == -EIO ? end_pass(s, i, err) : r;
}

int source_sync_final_end(struct source *s, struct error *err)
{
	int r = source_sync_final_begin(s, err);

	for (uint32_t i = 0; i < s->n_trees && !r; i++) {
		struct source_tree *t = &s->trees[i];

		if (t->file && !t->shared && !unchanged(t))
			r = begin_pass(s, i, false, err);
		if (!r && t->pass)
			r = place_pass(s, i, err);
		if (r < 0)
			return error_wrap(err, "cannot bring %s to the target", t->tree.path);
	}
	if (s->sync_final_at_ns)
		s->result.sync_final_ns = clock_now_ns() - s->sync_final_at_ns;
	return r;
}

void source_sync_unlink(struct source *s)
{
	s->files_armed = false;
	source_blocks_unlink(s);
	for (size_t i = 0; i < s->n_trees; i++) {
		struct source_tree *t = &s->trees[i];

		t->redo = t->redo || (t->pass && t->fed);
		pass_free(TAKE_PTR(t->pass));
		if (t->channel)
			s->result.bytes_wire += channel_bytes_out(t->channel) + channel_bytes_in(t->channel);
		channel_free(TAKE_PTR(t->channel));
	}
}

uint64_t source_sync_bytes(const struct source *s)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < s->n_trees; i++)
		sum += s->trees[i].channel ? channel_bytes_out(s->trees[i].channel) : 0;
	return sum;
}

void source_undo_sync(struct source *s)
{
	for (size_t i = 0; i < s->n_trees; i++) {
		pass_free(TAKE_PTR(s->trees[i].pass));
		watch_free(TAKE_PTR(s->trees[i].watch));
	}
}

void source_sync_free(struct source *s)
{
	source_undo_sync(s);
	source_blocks_free(s);
	for (size_t i = 0; i < s->n_trees; i++)
		channel_free(s->trees[i].channel);
	free(s->trees);
	s->n_trees = 0;
}
