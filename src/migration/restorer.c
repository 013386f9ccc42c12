/*
 * The two ways to restore, behind one table: see restorer.h. Threads: the caller's.
 */
#include "migration/restorer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "criu/held.h"

#define ENGINE_START_MS 60000 /* a daemon that makes a container ready: seconds on a busy host */

struct restorer_ops {
	int (*hold)(struct restorer *r, int cancel_fd, pid_t *ret_root, struct error *err);
	int (*resume)(struct restorer *r, struct error *err);
	int (*finish)(struct restorer *r, struct error *err);
	int (*abort)(struct restorer *r, struct error *err);
	bool (*alive)(struct restorer *r);
	bool (*released)(const struct restorer *r);
	pid_t (*program_pid)(const struct restorer *r);
	void (*free)(struct restorer *r);
};

struct restorer {
	const struct restorer_ops *ops;
	struct criu_job *criu;	/* ours */
	struct criu_held *held; /* the engine's */
	const struct driver_ops *driver;
	const struct workload *workload;
	const struct driver_place *place;
};

static int direct_hold(struct restorer *r, int cancel_fd, pid_t *ret_root, struct error *err)
{
	return criu_restore(r->criu, cancel_fd, ret_root, err);
}

static int direct_resume(struct restorer *r, struct error *err)
{
	return criu_restore_resume(r->criu, err);
}

static int direct_finish(struct restorer *r, struct error *err)
{
	(void)r;
	(void)err;
	return 0;
}

static int direct_abort(struct restorer *r, struct error *err)
{
	return criu_restore_abort(r->criu, err);
}

static bool direct_alive(struct restorer *r)
{
	return criu_alive(r->criu);
}

static bool direct_released(const struct restorer *r)
{
	return criu_restore_released(r->criu);
}

static pid_t direct_program_pid(const struct restorer *r)
{
	return criu_program_pid(r->criu);
}

static void direct_free(struct restorer *r)
{
	criu_free(r->criu);
}

static const struct restorer_ops direct_ops = { direct_hold,  direct_resume,   direct_finish,	   direct_abort,
						direct_alive, direct_released, direct_program_pid, direct_free };

static int engine_hold(struct restorer *r, int cancel_fd, pid_t *ret_root, struct error *err)
{
	return criu_held_restore(r->held, cancel_fd, ret_root, err);
}

static int engine_resume(struct restorer *r, struct error *err)
{
	return criu_held_resume(r->held, err);
}

static int engine_finish(struct restorer *r, struct error *err)
{
	int result = criu_held_finish(r->held, err);

	if (!result && r->driver->restored)
		result = r->driver->restored(r->workload, r->place, err);
	return result;
}

static int engine_abort(struct restorer *r, struct error *err)
{
	return criu_held_abort(r->held, err);
}

static bool engine_alive(struct restorer *r)
{
	return criu_held_alive(r->held);
}

static bool engine_released(const struct restorer *r)
{
	return criu_held_released(r->held);
}

static pid_t engine_program_pid(const struct restorer *r)
{
	return criu_held_program_pid(r->held);
}

static void engine_free(struct restorer *r)
{
	criu_held_free(r->held);
}

static const struct restorer_ops engine_ops = { engine_hold,  engine_resume,   engine_finish,	   engine_abort,
						engine_alive, engine_released, engine_program_pid, engine_free };

static int start_engine(struct restorer *r, struct driver_place *place, const struct criu_options *options,
			int cancel_fd, struct error *err)
{
	struct process engine = PROCESS_NONE;
	_cleanup_close_ int words_fd = -1;
	char words[600];
	int result = criu_held_new(options, &r->held, err);

	if (result < 0)
		return result;
	place->criu_config = criu_held_config(r->held);
	place->criu_images = criu_held_view(r->held);
	place->criu_environment = criu_held_environment(r->held);
	snprintf(words, sizeof(words), "%s/engine.log", place->work_directory);
	words_fd = open(words, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (words_fd < 0)
		return error_errno(err, errno, "cannot create %s", words);
	result = r->driver->restore(r->workload, place, words_fd, &engine, err);
	if (!result)
		result = criu_held_await(r->held, &engine, words, deadline_in_ms(ENGINE_START_MS), cancel_fd, err);
	if (r->driver->restore_begun)
		r->driver->restore_begun(place);
	if (!result && r->driver->restore_ready)
		result = r->driver->restore_ready(r->workload, place, err);
	return result;
}

int restorer_new(const struct driver_ops *driver, const struct workload *w, struct driver_place *place,
		 const struct criu_options *options, int cancel_fd, struct restorer **ret, struct error *err)
{
	struct restorer *r = calloc(1, sizeof(*r));
	int result;

	if (!r)
		return error_set(err, ENOMEM, "no memory for a restore");
	r->driver = driver;
	r->workload = w;
	r->place = place;
	r->ops = driver->restore ? &engine_ops : &direct_ops;
	result = driver->restore ? start_engine(r, place, options, cancel_fd, err) : criu_start(options, &r->criu, err);
	if (result < 0) {
		restorer_free(r);
		return result;
	}
	*ret = r;
	return 0;
}

int restorer_hold(struct restorer *r, int cancel_fd, pid_t *ret_root, struct error *err)
{
	return r->ops->hold(r, cancel_fd, ret_root, err);
}

int restorer_resume(struct restorer *r, struct error *err)
{
	return r->ops->resume(r, err);
}

int restorer_finish(struct restorer *r, struct error *err)
{
	return r->ops->finish(r, err);
}

int restorer_abort(struct restorer *r, struct error *err)
{
	return r->ops->abort(r, err);
}

bool restorer_alive(struct restorer *r)
{
	return r->ops->alive(r);
}

bool restorer_released(const struct restorer *r)
{
	return r->ops->released(r);
}

pid_t restorer_program_pid(const struct restorer *r)
{
	return r->ops->program_pid(r);
}

void restorer_free(struct restorer *r)
{
	if (!r)
		return;
	r->ops->free(r);
	free(r);
}
