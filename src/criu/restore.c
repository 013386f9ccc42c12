/*
 * A restore that holds before its tasks run, and its two ways out.
 *
 * At the "post-restore" notification all tasks exist, stopped inside CRIU's restorer, and the network is still locked.
 * Resume accepts it: CRIU unlocks the network, lets the tasks go and ends; the root becomes a child of init (or of the nearest
 * subreaper), never of the caller. Abort refuses it: CRIU kills what it made.
 * What a CRIU that dies on its way leaves behind is tree.c's to end.
 * Threads: the job's. Source: criu/cr-restore.c (restore_root_task), criu/cr-service.c.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "criu/job.h"

#define FINISH_MS 60000

static int restore_request(struct criu_job *job, struct error *err)
{
	CriuRpc__Request request = CRIU_RPC__REQUEST__INIT;
	CriuRpc__Options options = CRIU_RPC__OPTIONS__INIT;
	int r;

	snprintf(job->log_name, sizeof(job->log_name), "restore.log");
	job->terse = true;
	job_fill_options(job, &options);
	options.root = job->root;
	request.type = CRIU_RPC__TYPE__RESTORE;
	request.options = &options;
	r = rpc_send(&job->rpc, &request);
	return r < 0 ? error_errno(err, -r, "cannot ask CRIU to restore %s", job->images_directory) : 0;
}

/* What a notification tells of the root task. A pidfd now, so that its number cannot be mistaken later. */
static void restore_learn_root(struct criu_job *job, const CriuRpc__Response *response, bool is_refused_end)
{
	(void)is_refused_end;
	if (!response->notify || !response->notify->has_pid || response->notify->pid <= 0 || job->root_pidfd >= 0)
		return;
	job->pid = response->notify->pid;
	job->root_pidfd = (int)syscall(SYS_pidfd_open, job->pid, 0);
}

int criu_restore(struct criu_job *job, int cancel_fd, pid_t *ret_pid, struct error *err)
{
	int r;

	if (job->state != JOB_STARTED)
		return error_set(err, EINVAL, "this CRIU has been used already");
	r = restore_request(job, err);
	if (r < 0)
		return r;
	r = job_follow(job, NULL, "post-restore", cancel_fd, restore_learn_root);
	if (r == -ETIMEDOUT) /* there is no deadline but that of a cancel */
		r = -ECANCELED;
	if (r > 0) {
		job->state = JOB_RESTORE_HELD;
		*ret_pid = job->pid;
		return 0;
	}
	if (r == 0 || r == -ECONNRESET || r == -EPIPE) /* it has said its last word, or is dying: let it end */
		process_wait(&job->rpc.process, deadline_in_ms(CANCEL_MS));
	restore_kill(job);
	job->state = JOB_FAILED;
	if (r == -ECANCELED)
		return error_set(err, ECANCELED, "the restore of %s was cancelled; nothing of it is left",
				 job->images_directory);
	return job_failed(job, r < 0 && r != -ECONNRESET && r != -EPIPE ? -r : EIO, "restore the tree", err);
}

/* The verdict. 1: CRIU says success, 0: it says failure, or a negative errno. */
static int restore_finish(struct criu_job *job, bool success)
{
	uint64_t deadline_ns = deadline_in_ms(FINISH_MS);
	int r = rpc_notify(&job->rpc, success), answer = -1;

	while (!r && answer < 0) {
		CriuRpc__Response *response;

		r = rpc_receive(&job->rpc, -1, deadline_ns, &response);
		if (r < 0)
			break;
		if (response->type == CRIU_RPC__TYPE__NOTIFY) { /* network-unlock, pre-resume, post-resume */
			/* CRIU detaches from the tasks whatever we answer to this one. */
			if (response->notify && response->notify->script &&
			    !strcmp(response->notify->script, "pre-resume"))
				job->released = true;
			r = rpc_notify(&job->rpc, true);
		} else {
			answer = response->success;
		}
		criu_rpc__response__free_unpacked(response, NULL);
	}
	return r < 0 ? r : answer;
}

int criu_restore_resume(struct criu_job *job, struct error *err)
{
	int r;

	if (job->state == JOB_RESTORE_RESUMED)
		return 0;
	if (job->state != JOB_RESTORE_HELD)
		return error_set(err, EINVAL, "the restored tree cannot be resumed: it is not held");
	r = restore_finish(job, true);
	if (r == 1) {
		rpc_finish(&job->rpc, deadline_in_ms(FINISH_MS));
		job->state = JOB_RESTORE_RESUMED;
		return 0;
	}
	if (r == 0 || r == -ECONNRESET || r == -EPIPE)
		process_wait(&job->rpc.process, deadline_in_ms(CANCEL_MS));
	/* A CRIU that died after it let them go has done its work. */
	if (job->released && job->root_pidfd >= 0 && !criu_alive(job) && fd_wait(job->root_pidfd, POLLIN, 0) == 0) {
		log_warning("CRIU ended early, but the restored tasks run");
		job->state = JOB_RESTORE_RESUMED;
		return 0;
	}
	restore_kill(job);
	job->state = JOB_RESTORE_UNDONE;
	return job_failed(job, r < 0 && r != -ECONNRESET && r != -EPIPE ? -r : EIO,
			  "resume the restored tree, which was killed", err);
}

int criu_restore_abort(struct criu_job *job, struct error *err)
{
	if (job->state == JOB_RESTORE_UNDONE || job->state == JOB_FAILED || job->state == JOB_STARTED)
		return 0;
	if (job->state != JOB_RESTORE_HELD)
		return error_set(err, EINVAL, "the restored tree cannot be undone: it runs already");
	if (restore_finish(job, false) != -ETIMEDOUT)
		process_wait(&job->rpc.process, deadline_in_ms(CANCEL_MS));
	restore_kill(job);
	job->state = JOB_RESTORE_UNDONE;
	return 0;
}
