/*
 * The workloads of the live tests. Each is a forked child with its own session and with stdio of its own namespace, since
 * CRIU cannot dump descriptors that lead outside.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "criu/support.h"

#define PAGE 4096UL

static uint64_t pattern(uint64_t page)
{
	return page * 0x9E3779B97F4A7C15ULL + 1;
}

static uint64_t *memory_make(struct shared *s, size_t bytes)
{
	uint64_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		_exit(1);
	for (size_t i = 0; i < bytes / PAGE; i++)
		p[i * PAGE / sizeof(*p)] = pattern(i);
	s->memory = (uint64_t)(uintptr_t)p;
	s->memory_bytes = bytes;
	return p;
}

/* A few pages per tick, all of them over time. */
static void memory_check(struct shared *s, const uint64_t *p)
{
	size_t n = s->memory_bytes / PAGE;

	for (size_t k = 0; n && k < 64; k++) {
		size_t i = (s->ticks * 64 + k) % n;

		if (p[i * PAGE / sizeof(*p)] != pattern(i))
			s->errors++;
	}
}

static void nap(void)
{
	struct timespec ts = { .tv_nsec = 500000 };

	nanosleep(&ts, NULL);
}

static void run_plain(struct shared *s, size_t bytes)
{
	const uint64_t *p = memory_make(s, bytes);

	s->ready = 1;
	for (;;) {
		memory_check(s, p);
		s->ticks++;
		nap();
	}
}

static struct shared *thread_shared;

static void *thread_main(void *argument)
{
	size_t i = (size_t)argument;
	volatile uint64_t local[600]; /* on a stack page that must come back */

	for (size_t k = 0; k < 600; k++)
		local[k] = k;
	for (;;) {
		for (size_t k = 0; k < 600; k++)
			if (local[k] != k)
				thread_shared->errors++;
		thread_shared->thread_ticks[i]++;
		nap();
	}
	return NULL;
}

static void run_threads(struct shared *s, size_t bytes)
{
	pthread_t t;

	thread_shared = s;
	for (size_t i = 0; i < 4; i++)
		if (pthread_create(&t, NULL, thread_main, (void *)i) != 0)
			_exit(1);
	run_plain(s, bytes);
}

static void run_tcp(struct shared *s, size_t bytes)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(a);
	const uint64_t *p = memory_make(s, bytes);
	int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), server;

	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &length) < 0 ||
	    connect(client, (struct sockaddr *)&a, sizeof(a)) < 0 || (server = accept(listener, NULL, NULL)) < 0)
		_exit(1);
	close(listener); /* so that nobody listens in this world */
	s->ready = 1;
	for (;;) {
		char c = (char)s->ticks, d;

		if (write(client, &c, 1) != 1 || read(server, &d, 1) != 1 || c != d) {
			s->errors++;
			s->thread_ticks[0] = (uint64_t)errno;
			pause();
		}
		memory_check(s, p);
		s->ticks++;
		nap();
	}
}

/* The timer is armed before the computation, so that its tick is surely pending while that lasts. */
static void run_timer(struct shared *s)
{
	struct itimerspec every = { .it_value.tv_nsec = 10000000, .it_interval.tv_nsec = 10000000 };
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), poller = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };

	if (timer < 0 || poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event) < 0 ||
	    timerfd_settime(timer, 0, &every, NULL) < 0)
		_exit(1);
	s->ready = 1;
	for (;;) {
		uint64_t expirations;

		while (s->busy_until_go)
			s->ticks++;
		if (epoll_wait(poller, &event, 1, -1) == 1 && read(timer, &expirations, 8) == 8)
			s->timer_ticks++;
		s->ticks++;
	}
}

static void run_undumpable(struct shared *s, size_t bytes)
{
	if (syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY) < 0)
		_exit(1);
	run_plain(s, bytes);
}

static void run_tree(struct shared *s, size_t bytes)
{
	int up[2], down[2];

	if (pipe(up) < 0 || pipe(down) < 0)
		_exit(1);
	for (size_t i = 0; i < 2; i++) {
		if (fork() == 0) {
			char c;

			while (i == 0 && read(up[0], &c, 1) == 1 && write(down[1], &c, 1) == 1)
				s->thread_ticks[0]++;
			for (;; nap())
				s->thread_ticks[1]++;
		}
	}
	memory_make(s, bytes);
	s->ready = 1;
	for (;;) {
		char c = 1;

		if (write(up[1], &c, 1) != 1 || read(down[0], &c, 1) != 1)
			s->errors++;
		s->ticks++;
		nap();
	}
}

static void open_stdio(void)
{
	int fd = open("/dev/null", O_RDWR);

	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	close_range(3, ~0U, 0);
}

_Noreturn static void workload_main(enum workload_kind kind, size_t bytes, struct shared *s)
{
	setsid();
	open_stdio();
	switch (kind) {
	case WORKLOAD_PLAIN:
		run_plain(s, bytes);
		break;
	case WORKLOAD_THREADS:
		run_threads(s, bytes);
		break;
	case WORKLOAD_USER:
		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(1);
		prctl(PR_SET_DUMPABLE, 1);
		run_plain(s, bytes);
		break;
	case WORKLOAD_TCP:
		run_tcp(s, bytes);
		break;
	case WORKLOAD_TIMER:
		run_timer(s);
		break;
	case WORKLOAD_UNDUMPABLE:
		run_undumpable(s, bytes);
		break;
	case WORKLOAD_TREE:
	case WORKLOAD_INIT:
		run_tree(s, bytes);
		break;
	}
	_exit(1);
}

struct start {
	enum workload_kind kind;
	size_t bytes;
	struct shared *shared;
};

static int init_main(void *argument)
{
	struct start *start = argument;

	workload_main(start->kind, start->bytes, start->shared);
	return 1;
}

void workload_start(enum workload_kind kind, size_t bytes, struct workload *ret)
{
	static unsigned int counter;
	static char stack[65536] __attribute__((aligned(16)));
	struct start start = { .kind = kind, .bytes = bytes };
	uint64_t deadline = deadline_in_ms(20000);
	int fd;

	snprintf(ret->path, sizeof(ret->path), "/tmp/shared-%u", counter++);
	fd = open(ret->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	assert_true(fd >= 0 && ftruncate(fd, 4096) == 0 && fchmod(fd, 0666) == 0);
	ret->shared = start.shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(ret->shared != MAP_FAILED);
	close(fd);
	if (kind == WORKLOAD_INIT)
		ret->pid = clone(init_main, stack + sizeof(stack), CLONE_NEWPID | SIGCHLD, &start);
	else
		ret->pid = fork();
	if (ret->pid == 0)
		workload_main(kind, bytes, start.shared);
	assert_true(ret->pid > 0);
	while (!ret->shared->ready) {
		assert_true(clock_now_ns() < deadline && waitpid(ret->pid, NULL, WNOHANG) == 0);
		nap();
	}
}

void workload_end(struct workload *w)
{
	uint64_t deadline = deadline_in_ms(5000);

	if (w->pid > 0) {
		kill(-w->pid, SIGKILL);
		kill(w->pid, SIGKILL);
	}
	while (w->pid > 0 && kill(w->pid, 0) == 0 && clock_now_ns() < deadline) {
		waitpid(w->pid, NULL, WNOHANG);
		nap();
	}
	munmap(w->shared, 4096);
	unlink(w->path);
}
