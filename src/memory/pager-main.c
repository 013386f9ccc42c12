/*
 * The supervisor: `phaul pager FD`. Receives the state, the listening socket and the stores over FD, and then does nothing but
 * start the pager proper and start it again when it dies.
 *
 * The pager is a clone with CLONE_FILES: both have one and the same descriptor table, so a descriptor that the pager got
 * (CRIU's userfaultfds, and those of forked processes) stays open when the pager is killed. That matters: when the
 * last descriptor of a userfaultfd is closed, the kernel gives out zeros.
 *
 * For the same reason the supervisor does not end while pages are missing: when the pager cannot be kept alive, it
 * reports that, holds the descriptors (tasks that want a missing page wait) and tries again once a second.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/process.h"
#include "memory/pager-internal.h"
#include "memory/pager-server.h"
#include "memory/pager.h"

#define DEATHS_MAX 20
#define DEATHS_WINDOW_NS (10 * NS_PER_S)
#define RETRY_AFTER_MS 1000

/* The stores come behind, up to 16 to a message, in the order of the spaces that have one. */
static int receive_stores(struct pager_state *s, int control_fd)
{
	uint32_t i = 0;

	while (i < s->n_spaces) {
		int fds[PAGER_FDS_PER_MESSAGE];
		size_t n = 0;
		char byte;
		ssize_t got;

		/* The client wrote 0 for "comes", -1 for "none". */
		if (state_space(s, i)->store_fd < 0) {
			i++;
			continue;
		}
		got = fd_recv_fds(control_fd, &byte, 1, fds, PAGER_FDS_PER_MESSAGE, &n);
		if (got <= 0 || !n)
			return got < 0 ? (int)got : -EPIPE;
		for (size_t k = 0; k < n; k++) {
			while (i < s->n_spaces && state_space(s, i)->store_fd < 0)
				i++;
			if (i == s->n_spaces)
				return -EPROTO;
			state_space(s, i++)->store_fd = fds[k];
		}
	}
	return 0;
}

static int receive_state(int control_fd, struct pager_state **ret)
{
	struct pager_state *s;
	int fds[4], r;
	size_t n;
	char byte;
	ssize_t got = fd_recv_fds(control_fd, &byte, 1, fds, 4, &n);

	if (got <= 0 || n != 4)
		return got < 0 ? (int)got : got ? -EPROTO : -ECANCELED;
	r = pager_state_map(fds[0], &s, NULL);
	if (r < 0)
		return r;
	s->state_fd = fds[0];
	s->listen_fd = fds[1];
	s->request_fd = fds[2];
	s->arrival_fd = fds[3];
	s->control_fd = control_fd;
	s->supervisor_pid = getpid();
	*ret = s;
	return receive_stores(s, control_fd);
}

/* Nothing that a terminal, a shell or a hurried operator sends may end what a workload depends on; SIGKILL can. */
static void settle_process(void)
{
	static const int ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGUSR1, SIGUSR2 };

	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		signal(ignored[i], SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	process_spare(getpid());
	fd_raise_limit();
	fd_reserve_table();
	if (chdir("/") < 0)
		log_debug("cannot leave the working directory: %s", strerror(errno));
}

static uint64_t progress(const struct pager_state *s)
{
	return s->faults + s->events + s->pages_copied + s->pages_zero + s->spaces_built;
}

enum life {
	LIFE_DONE,  /* the work is done */
	LIFE_DEATH, /* start another */
	LIFE_STUCK, /* it said what it cannot do: another will hardly fare better at once */
};

/* One life of the pager. */
static enum life run_pager(struct pager_state *s)
{
	long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	int status;

	if (!pid)
		_exit(pager_serve(s));
	if (pid < 0) {
		pager_state_fail(s, errno, "the pager cannot be started: %s", strerror(errno));
		return LIFE_STUCK;
	}
	s->pager_pid = (int32_t)pid;
	while (waitpid((pid_t)pid, &status, 0) < 0 && errno == EINTR)
		;
	if (s->finished || s->aborted)
		return LIFE_DONE;
	log_warning("the pager (process %ld) ended with %s %d and is replaced", pid,
		    WIFSIGNALED(status) ? "signal" : "status",
		    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return WIFEXITED(status) ? LIFE_STUCK : LIFE_DEATH;
}

/* Tells the client to look at the state. */
static void notify(const struct pager_state *s)
{
	send(s->control_fd, "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* False: the client gave up a restore that has not run yet, and so may we. */
static bool pause_and_report(struct pager_state *s)
{
	uint64_t deadline = deadline_in_ms(RETRY_AFTER_MS);
	struct pollfd p = { .fd = s->control_fd, .events = POLLRDHUP };

	log_error("%s", s->failure);
	notify(s);
	if (s->released || s->kept)
		p.fd = -1;
	while (poll(&p, 1, deadline_poll_ms(deadline)) < 0 && errno == EINTR)
		;
	return !(p.revents & (POLLHUP | POLLRDHUP));
}

static int supervise(struct pager_state *s)
{
	uint64_t first_ns = clock_now_ns(), before = 0;
	int deaths = 0;

	for (;;) {
		enum life end = run_pager(s);

		if (end == LIFE_DONE)
			return s->aborted ? EXIT_FAILURE : EXIT_SUCCESS;
		s->replaced++;
		if (progress(s) != before || clock_now_ns() - first_ns > DEATHS_WINDOW_NS) {
			before = progress(s);
			first_ns = clock_now_ns();
			deaths = 0;
		}
		deaths++;
		if (end == LIFE_DEATH && deaths < DEATHS_MAX)
			continue;
		pager_state_fail(s, EIO, "the pager died %d times in a row", deaths);
		if (!pause_and_report(s))
			return EXIT_FAILURE;
		deaths = 0;
	}
}

int pager_main(int control_fd)
{
	struct pager_state *s = NULL;
	int r;

	log_set_name("pager");
	log_set_level(LOG_INFO);
	fcntl(control_fd, F_SETFD, FD_CLOEXEC);
	/* Text, data and stack whole; the state, which comes next and is huge and sparse, as far as it is touched. */
	mlockall(MCL_CURRENT);
	mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
	r = receive_state(control_fd, &s);
	if (r == -ECANCELED) /* it was prepared in vain */
		return EXIT_SUCCESS;
	if (r < 0) {
		log_error("cannot take over the stores: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	settle_process();
	notify(s);
	return supervise(s);
}
