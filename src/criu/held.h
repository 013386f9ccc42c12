/*
 * A CRIU that somebody else starts (an engine's restore), held twice by its configuration.
 *
 * First, before it does anything: the directory that the configuration names for the images holds nothing but a named pipe called
 * inventory.img, which CRIU opens first. So the engine can be started early; all that is slow in it is done before the freeze.
 * Second, at post-restore, by the action script phaul-criu-hook: tasks exist, are stopped, the network is locked. If we go away, CRIU fails and
 * undoes the restore, and so does the engine.
 *
 * All calls block; one thread. Source of the facts: CRIU's criu/cr-service.c (a configuration file named over RPC overrides its images-dir
 * and work-dir), criu/cr-restore.c, criu/image.c, criu/action-scripts.c.
 */
#pragma once

#include "criu/criu.h"

struct criu_held;

/* Makes the socket and the configuration below options->work_directory, the directory with the pipe beside the images: IMAGES.view. options as for criu_start(), of which engines decide root, external
 * and cgroups themselves. Starts nothing. */
int criu_held_new(const struct criu_options *options, struct criu_held **ret, struct error *err);

/* The configuration file, which must reach the engine's CRIU: by RPC's config_file or CRIU_CONFIG_FILE. */
const char *criu_held_config(const struct criu_held *h);

/* Where that CRIU must find its images, for an engine that says so on CRIU's command line, which wins over the configuration. */
const char *criu_held_view(const struct criu_held *h);

/* For the environment of that CRIU, where the engine hands its own on: "NAME=value" strings, NULL-terminated, that let libphaul-criu.so act in it.
 * Without them the restore takes longer. */
const char *const *criu_held_environment(const struct criu_held *h);

/* Takes the engine's restore over, which was started as a child, and waits until its CRIU waits for images. words: a file with what the
 * engine says, quoted when it ends before that (-ECHILD). -ETIMEDOUT, -ECANCELED. */
int criu_held_await(struct criu_held *h, struct process *engine, const char *words, uint64_t deadline_ns, int cancel_fd,
		    struct error *err);

/* The images are complete: CRIU may go on, up to post-restore. *ret_pid: the root task. On failure the engine has undone it. */
int criu_held_restore(struct criu_held *h, int cancel_fd, pid_t *ret_pid, struct error *err);

/* The tasks run when it returns. The engine is not through yet: criu_held_finish(). */
int criu_held_resume(struct criu_held *h, struct error *err);

/* Waits for the engine's end. A failure does not undo the tasks: they have run. */
int criu_held_finish(struct criu_held *h, struct error *err);

/* CRIU fails, the engine undoes what it made, and has ended on return. Any number of times; not after the resume. */
int criu_held_abort(struct criu_held *h, struct error *err);

/* CRIU is there, and with it the hold on the tasks, and so is the engine that waits for it. */
bool criu_held_alive(const struct criu_held *h);
bool criu_held_released(const struct criu_held *h);	/* the tasks may have run */
pid_t criu_held_program_pid(const struct criu_held *h); /* of CRIU, 0: not known, or ended */

/* Aborts what is not resumed. */
void criu_held_free(struct criu_held *h);
