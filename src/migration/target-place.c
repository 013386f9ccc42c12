/*
 * The place that a driver makes for the workload at the target: the engine's container, the directories of its files.
 *
 * Invariant: what the driver needs to undo it is on disk (subject.h) before it makes anything. Threads: that of target.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "migration/bring.h"
#include "migration/subject.h"
#include "migration/target-internal.h"

/* Asks the source for what prepare() needs, and has the driver take it. */
static int bring_what_lacks(struct target *t, struct error *err)
{
	Phaul__Wire__Lacks part = PHAUL__WIRE__LACKS__INIT;
	CONTROL_OF(message, lacks, LACKS, &part);
	struct bring b = { .channel = t->session.control,
			   .cancel_fd = t->options->cancel_fd,
			   .silence_ms = t->options->timeout_ms };
	_cleanup_free_ char *words = NULL;
	int r = t->driver->lacks ? t->driver->lacks(&t->workload, &t->place, &words, err) : 0;

	if (r < 0 || !words)
		return r;
	part.words = words;
	snprintf(b.log, sizeof(b.log), "%s/take.log", t->work_directory);
	r = bring_open(&b, err);
	if (!r)
		r = t->driver->take(&t->workload, &t->place, words, b.child_fd, b.log_fd, &b.child, err);
	if (!r)
		r = session_send(&t->session, &message, err);
	if (!r)
		r = bring_run(&b, err);
	bring_close(&b);
	return r == -EIO ? error_wrap(err, "what the target lacks could not be brought") : r;
}

int target_prepare_place(struct target *t, struct error *err)
{
	int r;

	snprintf(t->engine_directory, sizeof(t->engine_directory), "%s/told", t->work_directory);
	t->place = (struct driver_place){ .id_text = t->id_text,
					  .work_directory = t->work_directory,
					  .images_directory = t->engine_directory,
					  .options = &t->driver_options,
					  .lock = -1 };
	if (!t->driver->prepare)
		return 0;
	r = dir_make(t->engine_directory, 0700);
	if (r < 0)
		return error_errno(err, -r, "cannot make %s", t->engine_directory);
	r = subject_save(t->journal, &t->workload, &t->driver_options, err);
	if (r < 0)
		return r;
	t->prepared_place = true;
	r = bring_what_lacks(t, err);
	if (r < 0)
		return r;
	target_guard_begin(t);
	r = t->driver->prepare(&t->workload, &t->place, err);
	/* Once more, with the places of the trees. */
	return r < 0 ? r : subject_save(t->journal, &t->workload, &t->driver_options, err);
}

void target_forget_place(struct target *t)
{
	struct error err = { 0 };

	if (!t->prepared_place)
		return;
	t->prepared_place = false;
	t->place.criu_config = NULL;
	if (t->driver->forget && t->driver->forget(&t->workload, &t->place, &err) < 0)
		log_error("%s", err.text);
}

const char *target_pass_path(const struct target *t, uint32_t i, struct error *err)
{
	const char *path;

	if (i < t->n_sync_paths) {
		path = t->sync_paths[i];
		if (target_may_sync(t, path))
			return path;
		error_set(err, EPERM, "the target does not let %s be replaced: it belongs to the host", path);
		return NULL;
	}
	i -= (uint32_t)t->n_sync_paths;
	path = i < t->workload.n_trees ? t->workload.trees[i].target_path : NULL;
	if (!path)
		error_set(err, EPROTO, "the peer wants to bring a path that is not in the plan");
	return path;
}
