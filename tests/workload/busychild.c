/* A child of busytree: one epoll loop over a pipe, a socketpair, a timerfd, an eventfd and a signalfd, and two threads
 * that hand a baton to one another.
 *
 * Each tick of the timer writes the eventfd and sends SIGUSR2 to the process itself; so a timer that died shows, and
 * so does an eventfd, a signalfd or an epoll set that lost a member.
 * Invariants: tokens come without a hole. SIGUSR2 is blocked in every thread.
 * Threads: main and two with the baton.
 */
#include "busytree.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

struct baton {
	pthread_mutex_t lock;
	pthread_cond_t passed;
	unsigned holder;
	uint64_t passes;
};

struct child {
	struct tree_state *state;
	unsigned number;
	struct child_ends ends;
	uint64_t tick_ms;
	int epoll_fd, timer_fd, event_fd, signal_fd;
	uint64_t pipe_token, socket_token;
	uint64_t event_sent, event_got;
	struct baton baton;
};

struct runner {
	struct child *child;
	unsigned number;
	pthread_t thread;
};

static void count(struct child *child, enum activity activity)
{
	atomic_fetch_add_explicit(&child->state->activity[child->number][activity], 1, memory_order_relaxed);
}

static void *runner_main(void *argument)
{
	struct runner *runner = argument;
	struct child *child = runner->child;
	struct baton *baton = &child->baton;
	struct ticker ticker;
	ticker_start(&ticker, child->tick_ms * NS_PER_MS / 2);
	for (;;) {
		pthread_mutex_lock(&baton->lock);
		while (baton->holder != runner->number)
			pthread_cond_wait(&baton->passed, &baton->lock);
		/* Runner 0 holds it on even passes, runner 1 on odd ones. */
		if ((baton->passes & 1) != runner->number)
			tree_report(child->state, "child %u: the baton was passed %llu times and thread %u holds it",
				    child->number, (unsigned long long)baton->passes, runner->number);
		baton->passes++;
		baton->holder = !runner->number;
		pthread_cond_signal(&baton->passed);
		pthread_mutex_unlock(&baton->lock);
		count(child, ACTIVITY_THREADS);
		ticker_wait(&ticker);
	}
	return NULL;
}

static int epoll_watch(struct child *child, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
	return fd < 0 || epoll_ctl(child->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int child_open(struct child *child)
{
	struct itimerspec every = { .it_interval = { .tv_sec = (time_t)(child->tick_ms / 1000),
						     .tv_nsec = (long)(child->tick_ms % 1000 * NS_PER_MS) } };
	sigset_t signals;
	every.it_value = every.it_interval;
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR2);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	child->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	child->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	child->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	child->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (child->epoll_fd < 0 || child->timer_fd < 0 || timerfd_settime(child->timer_fd, 0, &every, NULL) < 0)
		return -errno;
	const int fds[] = { child->timer_fd, child->event_fd, child->signal_fd, child->ends.pipe_in,
			    child->ends.socket };
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		int r = epoll_watch(child, fds[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static void timer_ready(struct child *child)
{
	uint64_t expirations, one = 1;
	if (read(child->timer_fd, &expirations, sizeof(expirations)) != (ssize_t)sizeof(expirations))
		return;
	count(child, ACTIVITY_TIMER);
	busy_memory_check();
	if (write(child->event_fd, &one, sizeof(one)) == (ssize_t)sizeof(one))
		child->event_sent++;
	else
		tree_report(child->state, "child %u: cannot write its eventfd", child->number);
	kill(getpid(), SIGUSR2);
}

static void event_ready(struct child *child)
{
	uint64_t value;
	if (read(child->event_fd, &value, sizeof(value)) != (ssize_t)sizeof(value))
		return;
	child->event_got += value;
	count(child, ACTIVITY_EVENT);
	if (child->event_got != child->event_sent)
		tree_report(child->state, "child %u: its eventfd gave %llu of %llu", child->number,
			    (unsigned long long)child->event_got, (unsigned long long)child->event_sent);
}

static void signal_ready(struct child *child)
{
	struct signalfd_siginfo info;
	if (read(child->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	count(child, ACTIVITY_SIGNAL);
	if (info.ssi_signo != SIGUSR2 || info.ssi_pid != (uint32_t)getpid())
		tree_report(child->state, "child %u: signal %u from %u came instead of its own", child->number,
			    info.ssi_signo, info.ssi_pid);
}

/* Returns -ENOTCONN when the parent has closed its end. */
static int token_ready(struct child *child, int in, int out, uint64_t *last, enum activity activity)
{
	uint64_t token;
	ssize_t got = read(in, &token, sizeof(token));
	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (got == 0)
		return -ENOTCONN;
	if (got != (ssize_t)sizeof(token) || token != *last + 1)
		tree_report(child->state, "child %u: %s token %llu came after %llu", child->number,
			    activity == ACTIVITY_PIPE ? "pipe" : "socket", (unsigned long long)token,
			    (unsigned long long)*last);
	*last = token;
	token = token_answer(token);
	if (write(out, &token, sizeof(token)) != (ssize_t)sizeof(token))
		return errno == EPIPE ? -ENOTCONN : -errno;
	count(child, activity);
	return 0;
}

static int child_loop(struct child *child)
{
	for (;;) {
		struct epoll_event events[8];
		int ready = epoll_wait(child->epoll_fd, events, 8, -1);
		if (ready < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd, r = 0;
			if (fd == child->timer_fd)
				timer_ready(child);
			else if (fd == child->event_fd)
				event_ready(child);
			else if (fd == child->signal_fd)
				signal_ready(child);
			else if (fd == child->ends.pipe_in)
				r = token_ready(child, fd, child->ends.pipe_out, &child->pipe_token, ACTIVITY_PIPE);
			else
				r = token_ready(child, fd, fd, &child->socket_token, ACTIVITY_SOCKET);
			if (r < 0)
				return r == -ENOTCONN ? 0 : r;
		}
	}
}

int busy_child(struct tree_state *state, unsigned number, struct child_ends ends, const struct child_wants *wants)
{
	static struct child child;
	static struct runner runners[2];
	child = (struct child){ .state = state, .number = number, .ends = ends, .tick_ms = wants->tick_ms };
	int r = child_open(&child);
	if (r == 0)
		r = busy_memory_start(state, number, wants->memory_bytes, wants->threads);
	pthread_mutex_init(&child.baton.lock, NULL);
	pthread_cond_init(&child.baton.passed, NULL);
	for (unsigned i = 0; i < 2 && r == 0; i++) {
		runners[i] = (struct runner){ .child = &child, .number = i };
		r = -pthread_create(&runners[i].thread, NULL, runner_main, &runners[i]);
	}
	atomic_fetch_add(&state->children_ready, r == 0);
	return r < 0 ? r : child_loop(&child);
}
