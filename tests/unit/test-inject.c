/*
 * Injection into real tasks: whatever they were doing, they must not notice.
 *
 * A child does something that is easily disturbed, again and again or for long, while a userfaultfd is fetched from it
 * many times; then the child itself says whether anything was wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "child.h"
#include "memory/inject.h"

#define TIMES 100
#define WAIT_MS 2500 /* of the calls that end by themselves: longer than the injections take */

static int inject_once(pid_t pid, struct error *err)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), fd = -1;
	_cleanup_maps_ struct maps maps = { 0 };
	int r = maps_read(pid, &maps, err);

	return r < 0 ? r : inject_userfaultfd(pid, pid, pidfd, &maps, &fd, err);
}

static void inject_many(pid_t pid, int times)
{
	uint64_t enough = deadline_in_ms(WAIT_MS / 2); /* on a loaded machine fewer must do */

	for (int i = 0; i < times && (i < 10 || clock_now_ns() < enough); i++) {
		struct error err = { 0 };

		if (inject_once(pid, &err) < 0) {
			int status = 0;

			waitpid(pid, &status, WNOHANG);
			fail_msg("injection %d: %s (its status: %x)", i, err.text, (unsigned int)status);
		}
	}
}

/* Until the task's state in /proc/PID/stat is this one. */
static void wait_for_state(pid_t pid, char state)
{
	uint64_t deadline = deadline_in_ms(5000);
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	while (clock_now_ns() < deadline) {
		_cleanup_buffer_ struct buffer text = { 0 };

		assert_int_equal(fd_read_file(AT_FDCWD, path, 65536, &text), 0);
		if (strrchr((char *)text.data, ')')[2] == state)
			return;
	}
	fail_msg("process %d never came into state %c", (int)pid, state);
}

/* The number of descriptors a process has open. */
static int open_descriptors(pid_t pid)
{
	_cleanup_closedir_ DIR *dir = NULL;
	char path[64];
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && readdir(dir))
		n++;
	return n;
}

/* System calls in which a child waits. Each tells first that it will wait, and exits with 0 when all was right. */

static int ready(int fd)
{
	child_send(fd, 1);
	return fd;
}

static bool took_ms(uint64_t begin_ns, uint64_t ms)
{
	uint64_t took = (clock_now_ns() - begin_ns) / NS_PER_MS;

	return took >= ms && took < ms + 150;
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

/* Busy threads with registers full of state: a checksum that any disturbed register or flag would spoil. */
static void *churn(void *argument)
{
	uint64_t a = 1, b = 2, c = 3, d = 4;
	double x = 1.5;

	for (uint64_t i = 0; i < (uint64_t)(uintptr_t)argument; i++) {
		a = a * 6364136223846793005ULL + b;
		b ^= c << 7 | c >> 57;
		c += d ^ i;
		d = (d << 13 | d >> 51) + a;
		x = x * 1.0000001 + (double)(d & 1);
	}
	return (void *)(uintptr_t)(a ^ b ^ c ^ d ^ (uint64_t)x);
}

#define CHURN 150000000ULL

static int busy(int fd, void *argument)
{
	void *want = argument, *got;
	pthread_t thread;

	pthread_create(&thread, NULL, churn, (void *)(uintptr_t)CHURN);
	ready(fd);
	got = churn((void *)(uintptr_t)CHURN);
	if (got != want)
		return 1;
	pthread_join(thread, &got);
	return got != want;
}

static void test_busy_threads(void **state)
{
	struct child c = child_start(busy, churn((void *)(uintptr_t)CHURN));
	uint64_t begin;

	(void)state;
	child_receive(c.fd);
	begin = clock_now_ns();
	inject_many(c.pid, TIMES);
	print_message("# injected into a busy task in %.0f us on average\n",
		      (double)(clock_now_ns() - begin) / 1e3 / TIMES);
	assert_int_equal(child_join(&c), 0);
}

/* Queued signals all arrive, in order of their number, while an itimer fires every millisecond. */
static uint64_t storm_sum;
static volatile sig_atomic_t storm_count, storm_ticks;

static void storm_handler(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	storm_sum += (uint64_t)info->si_value.sival_int + 1;
	storm_count++;
}

static void storm_tick(int number)
{
	(void)number;
	storm_ticks++;
}

static int storm(int fd, void *argument)
{
	struct sigaction action = { .sa_sigaction = storm_handler, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct itimerval timer = { { 0, 1000 }, { 0, 1000 } };
	uint64_t expected = (uint64_t)(uintptr_t)argument, deadline;
	struct sigaction tick = { .sa_handler = storm_tick, .sa_flags = SA_RESTART };

	sigaction(SIGRTMIN, &action, NULL);
	sigaction(SIGALRM, &tick, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	ready(fd);
	deadline = deadline_in_ms(20000);
	while ((uint64_t)storm_count < expected && clock_now_ns() < deadline)
		continue;
	child_receive(fd);
	if ((uint64_t)storm_count != expected || storm_sum != expected * (expected + 1) / 2)
		return 1;
	return storm_ticks < 10;
}

static void test_signal_storm(void **state)
{
	struct child c = child_start(storm, (void *)(uintptr_t)TIMES);

	(void)state;
	child_receive(c.fd);
	for (int i = 0; i < TIMES; i++) {
		assert_int_equal(sigqueue(c.pid, SIGRTMIN, (union sigval){ .sival_int = i }), 0);
		inject_many(c.pid, 2);
	}
	child_send(c.fd, 1);
	assert_int_equal(child_join(&c), 0);
}

static int sleeper(int fd, void *argument)
{
	(void)argument;
	ready(fd);
	child_receive(fd);
	return 0;
}

static void test_stopped_stays_stopped(void **state)
{
	struct child c = child_start(sleeper, NULL);
	int status;

	(void)state;
	child_receive(c.fd);
	kill(c.pid, SIGSTOP);
	assert_int_equal(waitpid(c.pid, &status, WUNTRACED), c.pid);
	inject_many(c.pid, TIMES);
	wait_for_state(c.pid, 'T');
	kill(c.pid, SIGCONT);
	child_send(c.fd, 1);
	assert_int_equal(child_join(&c), 0);
}

/* userfaultfd refused by a filter, with EPERM or by death; an unprivileged user; not dumpable. */
static int filtered(int fd, void *argument)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, (uint32_t)(uintptr_t)argument),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_SIZE(code), code };

	if (syscall(SYS_setresgid, 65534, 65534, 65534) || syscall(SYS_setresuid, 65534, 65534, 65534))
		return 1;
	prctl(PR_SET_DUMPABLE, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 2;
	ready(fd);
	child_receive(fd);
	/* The filter must be in force again. */
	if ((uint32_t)(uintptr_t)argument != SECCOMP_RET_KILL_PROCESS && (syscall(SYS_userfaultfd, 0) != -1 || errno != EPERM))
		return 3;
	return 0;
}

static void test_seccomp_and_other_users(void **state)
{
	const uint32_t actions[] = { SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_KILL_PROCESS };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		struct child c = child_start(filtered, (void *)(uintptr_t)actions[i]);

		child_receive(c.fd);
		inject_many(c.pid, 10);
		child_send(c.fd, 1);
		assert_int_equal(child_join(&c), 0);
	}
}

static int debugger(int fd, void *argument)
{
	pid_t victim = *(pid_t *)argument;

	if (ptrace(PTRACE_SEIZE, victim, 0, 0) < 0)
		return 1;
	ready(fd);
	child_receive(fd);
	return 0;
}

static void test_already_traced(void **state)
{
	struct child victim = child_start(sleeper, NULL);
	struct child tracer = child_start(debugger, &victim.pid);
	struct error err = { 0 };
	char want[64];

	(void)state;
	child_receive(victim.fd);
	child_receive(tracer.fd);
	assert_int_equal(inject_once(victim.pid, &err), -EPERM);
	snprintf(want, sizeof(want), "traced by process %d", (int)tracer.pid);
	assert_non_null(strstr(err.text, want));
	child_end(&tracer);
	inject_many(victim.pid, 1);
	child_end(&victim);
}

/* A parent in vfork(2) waits uninterruptibly: refused in time, and unharmed afterwards; a second thread is used instead. */
static int vforker(int fd, void *argument)
{
	bool with_thread = argument != NULL;
	pthread_t thread;
	pid_t child;

	if (with_thread)
		pthread_create(&thread, NULL, churn, (void *)(uintptr_t)(20 * CHURN));
	ready(fd);
	child = vfork();
	if (!child) {
		struct timespec ts = { .tv_nsec = 900000000 };

		nanosleep(&ts, NULL);
		_exit(0);
	}
	return waitpid(child, NULL, 0) != child;
}

static void test_uninterruptible(void **state)
{
	struct child c = child_start(vforker, NULL);
	struct error err = { 0 };

	(void)state;
	child_receive(c.fd);
	wait_for_state(c.pid, 'D');
	assert_int_equal(inject_once(c.pid, &err), -ETIMEDOUT);
	assert_int_equal(child_join(&c), 0);
	c = child_start(vforker, (void *)1);
	child_receive(c.fd);
	wait_for_state(c.pid, 'D');
	inject_many(c.pid, 1);
	assert_int_equal(child_join(&c), 0);
}

/* In a pid and a mount namespace of its own. */
static int namespaced(int fd, void *argument)
{
	pid_t inner;

	(void)argument;
	if (unshare(CLONE_NEWPID | CLONE_NEWNS))
		return 1;
	inner = fork();
	if (!inner) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		child_receive(fd);
		_exit(getpid() != 1);
	}
	child_send(fd, (uint64_t)inner);
	if (waitpid(inner, &(int){ 0 }, 0) != inner)
		return 2;
	return 0;
}

static void test_namespaces(void **state)
{
	struct child c = child_start(namespaced, NULL);
	pid_t inner = (pid_t)child_receive(c.fd);

	(void)state;
	inject_many(inner, 10);
	child_send(c.fd, 1);
	assert_int_equal(child_join(&c), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waiting_calls_are_restarted),
		cmocka_unit_test(test_busy_threads),
		cmocka_unit_test(test_signal_storm),
		cmocka_unit_test(test_stopped_stays_stopped),
		cmocka_unit_test(test_seccomp_and_other_users),
		cmocka_unit_test(test_already_traced),
		cmocka_unit_test(test_uninterruptible),
		cmocka_unit_test(test_namespaces),
	};

	return cmocka_run_group_tests_name("inject", tests, NULL, NULL);
}
