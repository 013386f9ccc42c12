/*
 * Being asked to stop: see cancel.h.
 *
 * Threads: cancel_start() makes one that reads the signals, because the main thread is busy with the migration and a signalfd
 * that is never read tells nothing of the second Ctrl-C. It touches its struct cancel and the log only.
 */
#include "cli/cancel.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include "base/fd.h"
#include "base/log.h"

int cancel_open_signals(struct error *err)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		struct sigaction now;

		/* Whoever started us with nohup, or in the background of a script, wants them ignored. */
		if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
			sigaddset(&set, signals[i]);
	}
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return error_errno(err, errno, "cannot block signals");
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	return fd < 0 ? error_errno(err, errno, "cannot make a descriptor for signals") : fd;
}

static void *watch(void *argument)
{
	struct cancel *c = argument;
	struct pollfd p[2] = { { .fd = c->signal_fd, .events = POLLIN }, { .fd = c->end_fd, .events = POLLIN } };
	bool asked = false;

	for (;;) {
		struct signalfd_siginfo info;
		uint64_t one = 1;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (p[1].revents)
			return NULL;
		if (!p[0].revents || fd_read_full(c->signal_fd, &info, sizeof(info)) < 0)
			continue;
		if (asked) {
			log_warning("already giving up");
			continue;
		}
		asked = true;
		log_warning("%s: giving up, unless the move is committed already", strsignal((int)info.ssi_signo));
		(void)fd_write_full(c->fd, &one, sizeof(one));
	}
}

int cancel_start(struct cancel *c, struct error *err)
{
	int r;

	*c = (struct cancel){ .fd = -1, .signal_fd = -1, .end_fd = -1 };
	c->signal_fd = cancel_open_signals(err);
	if (c->signal_fd < 0)
		return c->signal_fd;
	c->fd = eventfd(0, EFD_CLOEXEC);
	c->end_fd = eventfd(0, EFD_CLOEXEC);
	r = c->fd < 0 || c->end_fd < 0 ? errno : pthread_create(&c->thread, NULL, watch, c);
	if (!r)
		return 0;
	close_fd(&c->signal_fd);
	close_fd(&c->fd);
	close_fd(&c->end_fd);
	return error_errno(err, r, "cannot watch for signals");
}

void cancel_stop(struct cancel *c)
{
	uint64_t one = 1;

	(void)fd_write_full(c->end_fd, &one, sizeof(one));
	pthread_join(c->thread, NULL);
	close_fd(&c->signal_fd);
	close_fd(&c->fd);
	close_fd(&c->end_fd);
}
