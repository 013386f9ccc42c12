/*
 * Injection into tasks that wait in a system call: it must be restarted, end with the right result, at the right time.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "child.h"
#include "inject-helpers.h"
#include "slowdown.h"

/* System calls in which a child waits. Each tells first that it will wait, and exits with 0 when all was right. */

static bool took_ms(uint64_t begin_ns, uint64_t ms)
{
	uint64_t took = (clock_now_ns() - begin_ns) / NS_PER_MS;

	return took >= ms && took < ms + 150 * test_slowdown();
}

static int wait_nanosleep(int fd, void *argument)
{
	struct timespec ts = { .tv_nsec = WAIT_MS * NS_PER_MS % NS_PER_S, .tv_sec = WAIT_MS / 1000 };
	uint64_t begin = clock_now_ns();

	(void)argument;
	ready(fd);
	return nanosleep(&ts, NULL) || !took_ms(begin, WAIT_MS);
}

static int wait_poll(int fd, void *argument)
{
	struct pollfd p = { .fd = ready(fd), .events = POLLIN };
	uint64_t begin = clock_now_ns();

	(void)argument;
	return poll(&p, 1, WAIT_MS) != 0 || !took_ms(begin, WAIT_MS);
}

/* With a signal mask of its own and a timeout the kernel writes back. */
static int wait_ppoll(int fd, void *argument)
{
	struct pollfd p = { .fd = ready(fd), .events = POLLIN };
	struct timespec ts = { .tv_nsec = WAIT_MS * NS_PER_MS % NS_PER_S, .tv_sec = WAIT_MS / 1000 };
	uint64_t begin = clock_now_ns();
	sigset_t mask, after;

	(void)argument;
	sigfillset(&mask);
	sigdelset(&mask, SIGUSR1);
	if (ppoll(&p, 1, &ts, &mask) || !took_ms(begin, WAIT_MS))
		return 1;
	sigprocmask(SIG_BLOCK, NULL, &after);
	return sigismember(&after, SIGUSR2);
}

static int wait_futex(int fd, void *argument)
{
	struct timespec ts = { .tv_nsec = WAIT_MS * NS_PER_MS % NS_PER_S, .tv_sec = WAIT_MS / 1000 };
	uint64_t begin = clock_now_ns();
	uint32_t word = 5;

	(void)argument;
	ready(fd);
	return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, &ts, NULL, 0) != -1 || errno != ETIMEDOUT ||
	       !took_ms(begin, WAIT_MS);
}

static int wait_read_pipe(int fd, void *argument)
{
	int *pipe_fds = argument;
	uint64_t word = 0;

	close(pipe_fds[1]);
	ready(fd);
	return read(pipe_fds[0], &word, sizeof(word)) != sizeof(word) || word != 42;
}

static int wait_accept(int fd, void *argument)
{
	int connection = -1;

	ready(fd);
	connection = accept(*(int *)argument, NULL, NULL);
	return connection < 0;
}

/* Without a timeout: the kernel itself would give EINTR after any stop (signal(7)). */
static int wait_epoll(int fd, void *argument)
{
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC), *pipe_fds = argument;
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 77 };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, pipe_fds[0], &event) < 0)
		return 2;
	ready(fd);
	event.data.u64 = 0;
	if (epoll_wait(epoll_fd, &event, 1, -1) != 1)
		return errno == EINTR ? 3 : 4;
	return event.data.u64 != 77;
}

/* The same. */
static int wait_sigwaitinfo(int fd, void *argument)
{
	sigset_t set;

	(void)argument;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	ready(fd);
	return syscall(SYS_rt_sigtimedwait, &set, NULL, NULL, sizeof(uint64_t)) != SIGUSR1;
}

static void on_signal(int number)
{
	(void)number;
}

/* sigsuspend must not return without a signal, and must return with the one that comes. */
static int wait_sigsuspend(int fd, void *argument)
{
	sigset_t mask, blocked;

	(void)argument;
	signal(SIGUSR1, on_signal);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	sigemptyset(&mask);
	ready(fd);
	if (sigsuspend(&mask) != -1 || errno != EINTR)
		return 1;
	sigprocmask(SIG_BLOCK, NULL, &blocked);
	return !sigismember(&blocked, SIGUSR1);
}

static void end_pipe(const struct child *c, void *argument)
{
	uint64_t word = 42;

	(void)c;
	assert_int_equal(write(((int *)argument)[1], &word, sizeof(word)), sizeof(word));
}

static void end_accept(const struct child *c, void *argument)
{
	struct sockaddr_un address;
	socklen_t length = sizeof(address);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)c;
	assert_int_equal(getsockname(*(int *)argument, (struct sockaddr *)&address, &length), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, length), 0);
}

static void end_signal(const struct child *c, void *argument)
{
	(void)argument;
	kill(c->pid, SIGUSR1);
}

struct wait_case {
	const char *name;
	child_function *function;
	void (*end)(const struct child *c, void *argument);
	bool with_socket;
};

static const struct wait_case wait_cases[] = {
	{ "nanosleep", wait_nanosleep, NULL, false },
	{ "poll", wait_poll, NULL, false },
	{ "ppoll", wait_ppoll, NULL, false },
	{ "futex", wait_futex, NULL, false },
	{ "sigwaitinfo", wait_sigwaitinfo, end_signal, false },
	{ "read", wait_read_pipe, end_pipe, false },
	{ "epoll_wait", wait_epoll, end_pipe, false },
	{ "accept", wait_accept, end_accept, true },
	{ "sigsuspend", wait_sigsuspend, end_signal, false },
};

static void check_wait_case(const struct wait_case *w)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fds[2], status, before;
	struct child c;

	if (w->with_socket) {
		fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		fds[1] = -1;
		assert_int_equal(bind(fds[0], (struct sockaddr *)&address, sizeof(sa_family_t)), 0); /* autobind */
		assert_int_equal(listen(fds[0], 1), 0);
	} else {
		assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	}
	c = child_start(w->function, fds);
	child_receive(c.fd);
	wait_for_state(c.pid, 'S');
	before = open_descriptors(c.pid);
	inject_many(c.pid, TIMES);
	assert_int_equal(open_descriptors(c.pid), before);
	if (w->end)
		w->end(&c, fds);
	status = child_join(&c);
	if (status)
		fail_msg("%s was disturbed: status %x", w->name, (unsigned int)status);
	close_fd(&fds[0]);
	close_fd(&fds[1]);
}

static void test_waiting_calls_are_restarted(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wait_cases); i++)
		check_wait_case(&wait_cases[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waiting_calls_are_restarted),
	};

	return cmocka_run_group_tests_name("inject-calls", tests, NULL, NULL);
}
