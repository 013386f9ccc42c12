/*
 * The process that holds a workload back: `phaul throttle FD`, see throttle.h. One thread.
 *
 * Invariants: it ends only with everything undone. Signals that a terminal sends do not reach it, for Ctrl-C ends phaul, whose
 * end ends this. A process that was stopped by somebody else is left alone, here and when it is undone.
 *
 * The duty cycle is QEMU's: the tasks run for 10 ms, then stand for so long that they have stood `percent` of the time.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/process.h"
#include "driver/tree.h"
#include "migration/throttle-internal.h"
#include "migration/throttle.h"

#define RUN_NS (10 * NS_PER_MS)

struct task {
	int pidfd;
	bool stopped_before; /* not by us */
};

struct server {
	int fd;
	struct throttle_order *order;
	struct task tasks[THROTTLE_TASKS_MAX];
	uint32_t n_tasks;
	bool standing; /* the tasks are stopped just now */
	uint64_t turn_ns;
	char quota_file[PATH_MAX], period_file[PATH_MAX], quota_before[64], period_before[64];
};

static void signal_all(struct server *s, int signal)
{
	/* Stopped parents first, continued children first: no parent sees a child of its own stopped. */
	for (uint32_t i = 0; i < s->n_tasks; i++) {
		struct task *t = &s->tasks[signal == SIGSTOP ? i : s->n_tasks - 1 - i];

		if (!t->stopped_before)
			syscall(SYS_pidfd_send_signal, t->pidfd, signal, NULL, 0);
	}
	s->standing = signal == SIGSTOP;
}

static void forget_tasks(struct server *s)
{
	if (s->standing)
		signal_all(s, SIGCONT);
	while (s->n_tasks)
		close_fd(&s->tasks[--s->n_tasks].pidfd);
}

static void take_tasks(struct server *s)
{
	for (uint32_t i = 0; i < s->order->n; i++) {
		pid_t pid = s->order->tasks[i].pid;
		_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pid, 0);
		struct tree_process p;

		/* The pidfd is taken first, so that it and the start time are one process's. */
		if (fd < 0 || process_start_ticks(pid) != s->order->tasks[i].ticks ||
		    tree_read_process(pid, &p, NULL) < 0)
			continue;
		s->tasks[s->n_tasks++] = (struct task){ TAKE_FD(fd), p.state == 'T' };
	}
}

/* What the file says now, to be put back. */
static int remember(const char *file, char before[64])
{
	_cleanup_buffer_ struct buffer text = { 0 };
	int r = fd_read_file(AT_FDCWD, file, 4096, &text);

	if (r < 0)
		return r;
	if (!text.length || text.length >= 64)
		return -EBADMSG;
	memcpy(before, text.data, text.length);
	before[text.length] = 0;
	return 0;
}

static int restore_quota(struct server *s)
{
	int r = 0;

	if (!s->quota_file[0])
		return 0;
	/* The quota first: none at all goes with any period. */
	r = throttle_group_write(s->quota_file, s->quota_before);
	if (!r && s->period_file[0])
		r = throttle_group_write(s->period_file, s->period_before);
	s->quota_file[0] = 0;
	return r == -ENOENT || r == -ENODEV ? 0 : r; /* the group went with its last process */
}

static int set_quota(struct server *s)
{
	const struct throttle_order *o = s->order;
	char text[64];
	int r = 0;

	if (!s->quota_file[0]) {
		r = remember(o->quota_file, s->quota_before);
		if (!r && o->period_file[0])
			r = remember(o->period_file, s->period_before);
		if (r < 0)
			return r;
		memcpy(s->quota_file, o->quota_file, PATH_MAX);
		memcpy(s->period_file, o->period_file, PATH_MAX);
	}
	if (!o->period_file[0]) {
		snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64 "\n", o->quota_us, o->period_us);
		return throttle_group_write(o->quota_file, text);
	}
	snprintf(text, sizeof(text), "%" PRIu64 "\n", o->period_us);
	r = throttle_group_write(o->period_file, text);
	snprintf(text, sizeof(text), "%" PRIu64 "\n", o->quota_us);
	return r < 0 ? r : throttle_group_write(o->quota_file, text);
}

static int obey(struct server *s)
{
	const struct throttle_order *o = s->order;

	forget_tasks(s);
	if (!o->percent)
		return restore_quota(s);
	if (o->quota_file[0])
		return set_quota(s);
	take_tasks(s);
	s->turn_ns = clock_now_ns() + RUN_NS;
	return 0;
}

/* The tasks' turn to stand or to run. */
static void turn(struct server *s)
{
	uint64_t percent = s->order->percent;

	signal_all(s, s->standing ? SIGCONT : SIGSTOP);
	s->turn_ns = clock_now_ns() + (s->standing ? RUN_NS * percent / (100 - percent) : RUN_NS);
}

static bool order_valid(const struct throttle_order *o, ssize_t length)
{
	return length >= (ssize_t)sizeof(*o) && o->percent < 100 && o->n <= THROTTLE_TASKS_MAX &&
	       length == (ssize_t)(sizeof(*o) + o->n * sizeof(o->tasks[0]));
}

static void serve(struct server *s, size_t size)
{
	for (;;) {
		struct pollfd p = { .fd = s->fd, .events = POLLIN };
		uint64_t now = clock_now_ns();
		struct timespec wait = { 0 };
		uint8_t answer;
		ssize_t n;

		if (s->turn_ns > now)
			wait = (struct timespec){ (time_t)((s->turn_ns - now) / NS_PER_S),
						  (long)((s->turn_ns - now) % NS_PER_S) };
		n = ppoll(&p, 1, s->n_tasks ? &wait : NULL, NULL);
		if (n < 0 && errno != EINTR)
			return;
		if (n <= 0) {
			if (s->n_tasks && clock_now_ns() >= s->turn_ns)
				turn(s);
			continue;
		}
		n = recv(s->fd, s->order, size, 0);
		if (n <= 0 || !order_valid(s->order, n))
			return;
		answer = (uint8_t)-obey(s);
		if (send(s->fd, &answer, 1, MSG_NOSIGNAL) < 0)
			return;
	}
}

int throttle_main(int control_fd)
{
	static const int ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGUSR1, SIGUSR2 };
	size_t size =
		sizeof(struct throttle_order) + THROTTLE_TASKS_MAX * sizeof(((struct throttle_order *)0)->tasks[0]);
	struct server *s = calloc(1, sizeof(*s));
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		signal(ignored[i], SIG_IGN);
	log_set_name("throttle");
	if (s)
		s->order = malloc(size);
	if (!s || !s->order) {
		free(s);
		return EXIT_FAILURE;
	}
	s->fd = control_fd;
	serve(s, size);
	forget_tasks(s);
	r = restore_quota(s);
	free(s->order);
	free(s);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
