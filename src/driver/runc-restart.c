/*
 * The runc driver in restart mode: a container is ended as `runc kill` does it, and started anew from its bundle. See runc.h.
 *
 * No state besides the workload; any thread.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "driver/oci.h"
#include "driver/runc-internal.h"

#define STOP_MS 10000 /* as docker stop: what a program gets to end by itself */
#define KILL_MS 10000
#define RUN_MS 60000

static int send_signal(const struct driver_options *options, const char *id, const char *signal, struct error *err)
{
	const char *argv[] = { runc_program(options), "--root", runc_root(options->engine), "kill", id, signal, NULL };
	int r = process_run(argv, NULL, deadline_in_ms(KILL_MS), err);

	return r > 0 ? -EIO : r;
}

int runc_stop(const struct workload *w, const struct driver_options *options, struct error *err)
{
	_cleanup_oci_ struct oci_state s = { 0 };
	_cleanup_close_ int pidfd = -1;
	struct error ignored = { 0 };
	int r = oci_state_read(runc_root(options->engine), w->id, &s, err);

	if (r < 0)
		return r;
	pidfd = (int)syscall(SYS_pidfd_open, s.pid, 0);
	if (pidfd < 0)
		return errno == ESRCH ? 0 : error_errno(err, errno, "cannot watch container %s", w->id);
	(void)send_signal(options, w->id, "TERM", &ignored);
	if (fd_wait(pidfd, POLLIN, deadline_in_ms(STOP_MS)) == 1)
		return 0;
	r = send_signal(options, w->id, "KILL", err);
	if (!r && fd_wait(pidfd, POLLIN, deadline_in_ms(KILL_MS)) != 1)
		r = error_set(err, ETIMEDOUT, "container %s does not end", w->id);
	return r < 0 ? error_wrap(err, "cannot stop container %s", w->id) : 0;
}

int runc_run(const struct driver_options *options, const char *bundle, const char *id, int output_fd, struct error *err)
{
	const char *argv[] = { runc_program(options),
			       "--root",
			       runc_root(options->engine),
			       "run",
			       "--detach",
			       "--bundle",
			       bundle,
			       id,
			       NULL };
	struct process_options o = { .argv = argv, .stdin_fd = -1, .stdout_fd = output_fd, .stderr_fd = output_fd };
	struct process p = PROCESS_NONE;
	int r = process_start(&o, &p, err);

	if (r < 0)
		return r;
	if (process_wait(&p, deadline_in_ms(RUN_MS)) == 0)
		r = error_set(err, ETIMEDOUT, "the runtime did not start container %s", id);
	else if (p.status)
		r = error_set(err, EIO, "the runtime could not start container %s (status %d); its bundle is %.512s",
			      id, p.status >> 8, bundle);
	process_free(&p);
	return r;
}

int runc_start(const struct workload *w, const struct driver_options *options, const struct driver_place *place,
	       struct error *err)
{
	_cleanup_oci_ struct oci_state s = { 0 };
	struct error ignored = { 0 };
	int r;

	if (place)
		return runc_target_start(w, place, err);
	r = oci_state_read(runc_root(options->engine), w->id, &s, &ignored);
	if (r == -ESRCH)
		return error_set(err, ESRCH, "container %s is gone", w->id);
	if (kill(s.pid, 0) == 0 && oci_runs(&s))
		return 0;
	/* What has ended cannot be started again: its state goes, the bundle stays. */
	r = runc_delete(options, options->engine, w->id, err);
	return r < 0 ? r : runc_run(options, s.bundle, w->id, -1, err);
}
