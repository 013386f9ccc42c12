/*
 * The destination service: one process that listens, one forked worker per session.
 *
 * The listening process never speaks TLS and never blocks on a peer; what a peer can make crash is its own worker. A worker is a plain
 * fork (this process has one thread), so it inherits the certificates that were checked at the start.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "migration/migration.h"
#include "migration/recover.h"

#define HANDSHAKE_TIMEOUT_MS 10000
#define REAP_MS 100

/* A worker's whole life. Returns its exit status. */
static int worker(const struct server_options *options, struct tls_identity *identity, int fd, int route_fd,
		  const uint8_t route_id[ROUTE_BYTES])
{
	_cleanup_channel_ struct channel *control = NULL;
	struct route *route = NULL;
	struct error err = { 0 };
	int r;

	log_set_name("worker");
	r = channel_accept_tls(fd, identity, HANDSHAKE_TIMEOUT_MS, &control, &err);
	if (r < 0) {
		log_warning("%s", err.text);
		close(route_fd);
		return EXIT_FAILURE;
	}
	r = route_open_tls(route_fd, identity, &route, &err);
	if (!r)
		r = target_run(TAKE_PTR(control), route, route_id, &options->target, &err);
	if (r < 0)
		log_error("%s", err.text);
	route_free(route);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int start_worker(const struct server_options *options, struct tls_identity *identity, struct listener *listener,
			struct listener_event *event, uint32_t *n_workers, struct error *err)
{
	int pair[2], r = 0;
	pid_t pid;

	if (*n_workers >= options->workers_max) {
		log_warning("%s is turned away: %u migrations are under way", event->peer, *n_workers);
		close_fd(&event->fd);
		return 0;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		close_fd(&event->fd);
		return error_errno(err, errno, "cannot make a socket pair for a worker");
	}
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		listener_forget(listener);
		_exit(worker(options, identity, event->fd, pair[1], event->route));
	}
	if (pid < 0) {
		r = error_errno(err, errno, "cannot start a worker");
		close_fd(&pair[0]);
	} else {
		(*n_workers)++;
		r = listener_add_worker(listener, event->route, pair[0], err);
	}
	close_fd(&pair[1]);
	close_fd(&event->fd);
	return r;
}

/* What a worker that crashed has left is settled by another process: this one never blocks. */
static void settle_crash(const struct server_options *options, struct listener *listener, uint32_t *n_workers)
{
	char journals[512];
	pid_t pid = fork();

	if (pid < 0)
		log_warning("cannot settle what a crashed worker left: %m");
	if (pid > 0)
		(*n_workers)++;
	if (pid)
		return;
	listener_forget(listener);
	log_set_name("worker");
	snprintf(journals, sizeof(journals), "%s/migrations", options->target.state_directory);
	recover_targets(journals);
	_exit(EXIT_SUCCESS);
}

static void reap(const struct server_options *options, struct listener *listener, uint32_t *n_workers)
{
	int status;

	while (*n_workers && waitpid(-1, &status, WNOHANG) > 0) {
		(*n_workers)--;
		if (WIFSIGNALED(status)) {
			log_error("a worker was ended by signal %d (%s)", WTERMSIG(status),
				  strsignal(WTERMSIG(status)));
			settle_crash(options, listener, n_workers);
		}
	}
}

static int serve(const struct server_options *options, struct tls_identity *identity, struct listener *listener,
		 struct error *err)
{
	uint32_t n_workers = 0;

	for (;;) {
		struct listener_event event;
		int r = listener_step(listener, options->cancel_fd, deadline_in_ms(n_workers ? REAP_MS : -1), &event,
				      err);

		reap(options, listener, &n_workers);
		if (r < 0)
			return r;
		switch (event.kind) {
		case LISTENER_NEW_SESSION:
			r = start_worker(options, identity, listener, &event, &n_workers, err);
			if (r < 0)
				log_error("%s", err->text); /* this session is lost, not the service */
			break;
		case LISTENER_CANCELED:
			/* Workers have their own way to the end; a migration under way is theirs to finish. */
			return 0;
		case LISTENER_NONE:
		case LISTENER_WORKER_DONE:
			break;
		}
	}
}

int server_run(const struct server_options *options, struct error *err)
{
	struct tls_identity *identity = NULL;
	struct listener *listener = NULL;
	char journals[512];
	int r = dir_make(options->target.run_directory, 0700);

	if (r < 0)
		return error_errno(err, -r, "cannot make the run directory %s", options->target.run_directory);
	r = tls_identity_load(options->pki_directory, &identity, err);
	if (!r) {
		snprintf(journals, sizeof(journals), "%s/migrations", options->target.state_directory);
		recover_targets(journals);
		r = listener_open(options->listen, &listener, err);
	}
	if (!r) {
		char line[32];
		int n = snprintf(line, sizeof(line), "port %u\n", listener_port(listener));

		log_info("listening on port %u", listener_port(listener));
		if (options->ready_fd >= 0)
			(void)fd_write_full(options->ready_fd, line, (size_t)n);
		r = serve(options, identity, listener, err);
	}
	listener_free(listener);
	tls_identity_free(identity);
	return r;
}
