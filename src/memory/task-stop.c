/*
 * Stopping threads with PTRACE_SEIZE and PTRACE_INTERRUPT: see task-stop.h, ptrace(2).
 *
 * Invariants: a signal that shows up while we hold a task is passed on, never swallowed; a task that was stopped with its
 * group (SIGSTOP) is stopped again by the kernel when it is let go. No PTRACE_ATTACH: its SIGSTOP would be seen.
 * Threads: see task-stop.h.
 */
#include "memory/task-stop.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "memory/maps.h"

#define WAIT_YIELDS 64
#define WAIT_PAUSE_MAX_NS 1000000L
#define APART_STACK_BYTES (256 << 10)

/*
 * There is no wait for ptrace stops that takes a deadline: waitid(2) has none, a pidfd does not report stops, and
 * SIGCHLD belongs to the program. So this polls; the first tries only yield, as most tasks stop within microseconds.
 */
int task_wait_stop(pid_t tid, uint64_t deadline_ns, int *ret_status)
{
	struct timespec pause = { .tv_nsec = 20000 };

	for (unsigned int tries = 0;; tries++) {
		pid_t r = waitpid(tid, ret_status, __WALL | WNOHANG);

		if (r == tid)
			return WIFSTOPPED(*ret_status) ? 0 : -ESRCH;
		if (r < 0 && errno != EINTR)
			return errno == ECHILD ? -ESRCH : -errno;
		if (clock_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		if (tries < WAIT_YIELDS) {
			sched_yield();
			continue;
		}
		nanosleep(&pause, NULL);
		pause.tv_nsec = MIN(pause.tv_nsec * 2, WAIT_PAUSE_MAX_NS);
	}
}

bool stop_is_event(int status)
{
	return status >> 16 == PTRACE_EVENT_STOP;
}

bool stop_is_syscall(int status)
{
	return status >> 16 == 0 && WSTOPSIG(status) == (SIGTRAP | 0x80);
}

int stop_signal(int status)
{
	return status >> 16 || stop_is_syscall(status) ? 0 : WSTOPSIG(status);
}

int task_seize(pid_t tid, struct error *err)
{
	uint64_t tracer = 0;
	int number;

	if (!ptrace(PTRACE_SEIZE, tid, 0, 0))
		return 0;
	number = errno;
	if (number == EPERM && !status_read_number(tid, "TracerPid", &tracer) && tracer)
		return error_set(err, EPERM,
				 "process %d is being traced by process %d (a debugger or strace); end that first",
				 (int)tid, (int)tracer);
	return error_errno(err, number, "cannot stop task %d with ptrace", (int)tid);
}

int task_interrupt(pid_t tid, bool running, uint64_t deadline_ns, struct error *err)
{
	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0)
		return error_errno(err, errno, "cannot interrupt task %d", (int)tid);
	if (!running && ptrace(PTRACE_CONT, tid, 0, 0) < 0)
		return error_errno(err, errno, "cannot continue task %d", (int)tid);
	for (;;) {
		int status, r = task_wait_stop(tid, deadline_ns, &status);

		if (r == -ETIMEDOUT)
			return error_set(err, ETIMEDOUT,
					 "task %d did not stop in time: it is frozen or waits uninterruptibly",
					 (int)tid);
		if (r < 0)
			return error_errno(err, -r, "task %d went away", (int)tid);
		if (stop_is_event(status))
			return 0;
		if (ptrace(PTRACE_CONT, tid, 0, stop_signal(status)) < 0 && errno != ESRCH)
			return error_errno(err, errno, "cannot continue task %d", (int)tid);
	}
}

void task_detach(pid_t tid)
{
	ptrace(PTRACE_DETACH, tid, 0, 0);
}

int task_run_tracer(void *(*function)(void *), void *argument)
{
	sigset_t all, old;
	pthread_t thread;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&thread, NULL, function, argument);
	if (!r)
		pthread_join(thread, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

struct apart {
	void *(*function)(void *);
	void *argument;
};

static int run_apart(void *argument)
{
	const struct apart *a = argument;

	a->function(a->argument);
	return 0;
}

int task_run_tracer_apart(void *(*function)(void *), void *argument)
{
	struct apart a = { function, argument };
	void *stack = mmap(NULL, APART_STACK_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
	sigset_t all, old;
	pid_t pid;
	int r = 0;

	if (stack == MAP_FAILED)
		return -errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	/* As posix_spawn(3) does it: the two take turns in this thread's storage. No signal tells of its end: nobody else waits for it. */
	pid = clone(run_apart, (char *)stack + APART_STACK_BYTES, CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_VFORK, &a);
	if (pid < 0)
		r = -errno;
	while (pid > 0 && waitpid(pid, NULL, __WCLONE) < 0 && errno == EINTR)
		continue;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	munmap(stack, APART_STACK_BYTES);
	return r;
}
