/*
 * Injection: one thread of the process runs userfaultfd(2) and close(2) for us while it is stopped by ptrace.
 *
 * What must stay untouched, and how:
 * - its code: the calls run at a `syscall` instruction it maps already (the vdso's). Nothing is written into it.
 * - registers: saved whole and put back. An interrupted system call is restarted by the kernel itself: after our calls the
 *   thread is interrupted once more, so that it gets its own registers (orig_rax included) back where the kernel is about
 *   to decide about restarts. restart_syscall(2) keeps working, as neither of our calls touches the restart block.
 * - signals: all are blocked (PTRACE_SETSIGMASK) for our calls; SIGSTOP is passed on. PTRACE_GETSIGMASK returns the mask that
 *   a sigsuspend or ppoll in progress will restore, and the restarted call sets its temporary one again.
 * - restartable sequences: a thread stopped within one continues at its abort handler, as after any preemption;
 *   otherwise the kernel, seeing an address outside, would forget that it was in one.
 * - seccomp: suspended (PTRACE_O_SUSPEND_SECCOMP) from the first stop on only, so that none of the thread's own calls
 *   escapes its filter. Where that is impossible, a filtered task is not touched: its filter might kill it.
 *
 * If the tracer were killed between two steps, the kernel would let the thread go with whatever registers it has then: it would
 * run on in the vdso behind the system call and most likely crash. So the tracer is a process of its own (task_run_tracer_apart()),
 * which whoever kills phaul does not know, which no signal ends that can be blocked, and which lives for the length of the two calls.
 *
 * Threads: every injection has such a process. ptrace binds to it, so a task that never stopped is let go when it ends.
 */
#include "memory/inject.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "base/clock.h"
#include "base/log.h"
#include "memory/kernel-api.h"
#include "memory/task-stop.h"

#define STOP_TIMEOUT_MS 200   /* for a thread to stop; then another one is tried */
#define OTHERS_TIMEOUT_MS 400 /* after that no other one is */
#define CALL_TIMEOUT_MS 2000
#define KERNEL_ERESTARTNOHAND 514 /* include/linux/errno.h; seen by tracers only */

#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif

struct injection {
	pid_t pid, tid;
	int pidfd;
	uint64_t syscall_address;
	int result; /* the descriptor, or a negative errno */
	struct error err;
};

static int find_in_map(pid_t pid, const struct map *map, uint64_t *ret)
{
	uint8_t chunk[65536];

	for (uint64_t at = map->start; at < map->end; at += sizeof(chunk) - 1) {
		struct iovec local = { chunk, MIN(sizeof(chunk), map->end - at) };
		struct iovec remote = { (void *)(uintptr_t)at, local.iov_len };
		ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
		const uint8_t *hit = n > 0 ? memmem(chunk, (size_t)n, "\x0f\x05", 2) : NULL;

		if (hit) {
			*ret = at + (uint64_t)(hit - chunk);
			return 0;
		}
		if (n < (ssize_t)local.iov_len)
			break;
	}
	return -ENOENT;
}

int inject_find_syscall(pid_t pid, const struct maps *maps, uint64_t *ret)
{
	for (size_t i = 0; i < maps->n_maps; i++)
		if (maps->maps[i].vdso && !find_in_map(pid, &maps->maps[i], ret))
			return 0;
	/* No vdso (vdso=0, or unmapped): the C library has one. */
	for (size_t i = 0; i < maps->n_maps; i++)
		if (maps->maps[i].executable && maps->maps[i].readable && maps->maps[i].name == MAP_NAME_FILE &&
		    !find_in_map(pid, &maps->maps[i], ret))
			return 0;
	return -ENOENT;
}

#if defined(__x86_64__)

static int registers_get(pid_t tid, struct user_regs_struct *regs)
{
	struct iovec iov = { regs, sizeof(*regs) };

	if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &iov) < 0)
		return -errno;
	return iov.iov_len == sizeof(*regs) ? 0 : -EOPNOTSUPP; /* a 32-bit task has a smaller set */
}

static int registers_set(pid_t tid, const struct user_regs_struct *regs)
{
	struct iovec iov = { (void *)regs, sizeof(*regs) };

	return ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &iov) < 0 ? -errno : 0;
}

/* Lets the task run to the next entry or exit of a system call, passing on what cannot be blocked. */
static int run_to_syscall_stop(pid_t tid, uint64_t deadline_ns)
{
	int signal_number = 0;

	for (;;) {
		int status, r;

		if (ptrace(PTRACE_SYSCALL, tid, 0, signal_number) < 0)
			return -errno;
		r = task_wait_stop(tid, deadline_ns, &status);
		if (r < 0)
			return r;
		if (stop_is_syscall(status))
			return 0;
		signal_number = stop_signal(status);
	}
}

/* Runs one system call in the stopped task; *ret_value: what it returned. */
static int remote_syscall(const struct injection *j, const struct user_regs_struct *saved, long number,
			  unsigned long long argument, long *ret_value)
{
	struct user_regs_struct regs = *saved;
	uint64_t deadline = deadline_in_ms(CALL_TIMEOUT_MS);
	int r;

	regs.rip = j->syscall_address;
	regs.rax = (unsigned long long)number;
	regs.orig_rax = (unsigned long long)-1; /* nothing to restart */
	regs.rdi = argument;
	r = registers_set(j->tid, &regs);
	for (int stop = 0; stop < 2 && !r; stop++) /* entry, exit */
		r = run_to_syscall_stop(j->tid, deadline);
	if (!r)
		r = registers_get(j->tid, &regs);
	if (!r)
		*ret_value = (long)regs.rax;
	return r;
}

/* A task stopped within a restartable sequence goes on at the abort handler. */
static void leave_rseq_section(pid_t tid, struct user_regs_struct *regs)
{
	struct ptrace_rseq config = { 0 };
	struct rseq_section section;
	uint64_t pointer = 0;
	struct iovec local = { &pointer, sizeof(pointer) }, remote;

	if (ptrace((enum __ptrace_request)PTRACE_RSEQ_REQUEST, tid, sizeof(config), &config) < 0 || !config.abi_pointer)
		return;
	remote = (struct iovec){ (void *)(uintptr_t)(config.abi_pointer + RSEQ_SECTION_POINTER_OFFSET),
				 sizeof(pointer) };
	if (process_vm_readv(tid, &local, 1, &remote, 1, 0) != (ssize_t)sizeof(pointer) || !pointer)
		return;
	local = (struct iovec){ &section, sizeof(section) };
	remote = (struct iovec){ (void *)(uintptr_t)pointer, sizeof(section) };
	if (process_vm_readv(tid, &local, 1, &remote, 1, 0) != (ssize_t)sizeof(section))
		return;
	if (regs->rip - section.start_ip < section.post_commit_offset)
		regs->rip = section.abort_ip;
}

/*
 * A few calls give EINTR after any stop, though nothing was delivered (signal(7), "Interruption of system calls by stop
 * signals"). Where they wait without a timeout they are made again; with one, that would wait too long, and
 * the caller gets the EINTR it must expect from SIGSTOP (and from CRIU) as well.
 */
static void restart_untimed(struct user_regs_struct *regs)
{
	bool untimed;

	if ((long long)regs->rax != -EINTR)
		return;
	switch (regs->orig_rax) {
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
		untimed = (int)regs->r10 < 0;
		break;
	case SYS_epoll_pwait2:
	case SYS_semtimedop:
		untimed = !regs->r10;
		break;
	case SYS_io_getevents:
		untimed = !regs->r8;
		break;
	case SYS_rt_sigtimedwait:
		untimed = !regs->rdx;
		break;
	case SYS_semop:
		untimed = true;
		break;
	default:
		return;
	}
	/* The kernel's own mark for "restart, or EINTR when a handler runs": a signal that comes now is still seen. */
	if (untimed)
		regs->rax = (unsigned long long)-KERNEL_ERESTARTNOHAND;
}

static int suspend_seccomp(struct injection *j)
{
	uint64_t mode = 0;

	if (!ptrace(PTRACE_SETOPTIONS, j->tid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP))
		return 0;
	if (status_read_number(j->tid, "Seccomp", &mode) < 0 || mode)
		return error_set(
			&j->err, EPERM,
			"process %d runs under a seccomp filter and this kernel or these privileges do not allow to "
			"suspend it (CAP_SYS_ADMIN is needed)",
			(int)j->pid);
	if (ptrace(PTRACE_SETOPTIONS, j->tid, 0, PTRACE_O_TRACESYSGOOD) < 0)
		return error_errno(&j->err, errno, "cannot trace system calls of task %d", (int)j->tid);
	return 0;
}

/* The two calls; the result is our own descriptor or a negative errno. */
static int fetch_userfaultfd(struct injection *j, const struct user_regs_struct *saved)
{
	long remote_fd = -1, closed;
	int fd, r;

	r = remote_syscall(j, saved, SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_MODE_USER_ONLY, &remote_fd);
	if (r < 0)
		return error_errno(&j->err, -r, "process %d did not finish the call that was injected", (int)j->pid);
	if (remote_fd < 0)
		return error_errno(&j->err, (int)-remote_fd, "process %d cannot open a userfaultfd", (int)j->pid);
	fd = (int)syscall(SYS_pidfd_getfd, j->pidfd, (int)remote_fd, 0);
	if (fd < 0)
		r = error_errno(&j->err, errno, "cannot fetch the userfaultfd of process %d", (int)j->pid);
	if (remote_syscall(j, saved, SYS_close, (unsigned long long)remote_fd, &closed) < 0 && !r)
		r = error_set(&j->err, EIO, "process %d kept the userfaultfd that was opened in it", (int)j->pid);
	if (r < 0)
		close_fd(&fd);
	return r < 0 ? r : fd;
}

/* Frozen by its cgroup in between, or a machine that stalls: whatever it waits for, a task with registers that are not its own must not
 * be left, so this goes on until it stops or ends. */
static void take_back(pid_t tid)
{
	while (task_interrupt(tid, true, deadline_in_ms(CALL_TIMEOUT_MS), NULL) == -ETIMEDOUT)
		log_warning("task %d does not come back from the call that was injected; waiting for it", (int)tid);
}

static int inject_in_stop(struct injection *j)
{
	struct user_regs_struct saved = { 0 };
	uint64_t mask, all = UINT64_MAX;
	int r = registers_get(j->tid, &saved), restored;

	if (!r && saved.cs == 0x23)
		r = -EOPNOTSUPP;
	if (r < 0)
		return error_errno(&j->err, -r, "process %d is not a 64-bit process whose registers can be read",
				   (int)j->pid);
	r = suspend_seccomp(j);
	if (r < 0)
		return r;
	if (ptrace(PTRACE_GETSIGMASK, j->tid, sizeof(mask), &mask) < 0)
		return error_errno(&j->err, errno, "cannot read the signal mask of task %d", (int)j->tid);
	leave_rseq_section(j->tid, &saved);
	restart_untimed(&saved);
	ptrace(PTRACE_SETSIGMASK, j->tid, sizeof(all), &all);
	r = fetch_userfaultfd(j, &saved);
	if (r == -ETIMEDOUT)
		take_back(j->tid);
	restored = registers_set(j->tid, &saved);
	ptrace(PTRACE_SETSIGMASK, j->tid, sizeof(mask), &mask);
	/* Again to where the kernel decides about restarts. */
	if (!restored)
		restored = task_interrupt(j->tid, false, deadline_in_ms(CALL_TIMEOUT_MS), NULL);
	if (!restored)
		restored = registers_set(j->tid, &saved);
	if (restored < 0 && restored != -ESRCH && r >= 0) {
		close(r);
		return error_errno(&j->err, -restored, "cannot put back the registers of task %d", (int)j->tid);
	}
	return r;
}

#else

static int inject_in_stop(struct injection *j)
{
	return error_set(&j->err, EOPNOTSUPP, "tracking writes by userfaultfd is built for x86-64 only");
}

#endif

static void *injection(void *argument)
{
	struct injection *j = argument;

	j->result = task_seize(j->tid, &j->err);
	if (!j->result)
		j->result = task_interrupt(j->tid, true, deadline_in_ms(STOP_TIMEOUT_MS), &j->err);
	if (!j->result)
		j->result = inject_in_stop(j);
	task_detach(j->tid); /* fails harmlessly unless it stands in a stop: then the end of this thread does it */
	return NULL;
}

static int inject_apart(struct injection *j)
{
	int r = task_run_tracer_apart(injection, j);

	return r < 0 ? error_errno(&j->err, -r, "cannot start a process that traces") : j->result;
}

int inject_userfaultfd(pid_t pid, pid_t tid, int pidfd, const struct maps *maps, int *ret_fd, struct error *err)
{
	uint64_t deadline = deadline_in_ms(OTHERS_TIMEOUT_MS);
	struct injection j = { .pid = pid, .tid = tid, .pidfd = pidfd };
	_cleanup_closedir_ DIR *threads = NULL;
	struct dirent *entry;
	char path[64];
	int r;

	if (inject_find_syscall(pid, maps, &j.syscall_address) < 0)
		return error_set(err, EOPNOTSUPP, "process %d maps no code with a system call in it", (int)pid);
	r = inject_apart(&j);
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	if (r == -ETIMEDOUT)
		threads = opendir(path);
	while (r == -ETIMEDOUT && clock_now_ns() < deadline && threads && (entry = readdir(threads))) {
		pid_t other = (pid_t)strtol(entry->d_name, NULL, 10);

		if (other <= 0 || other == tid)
			continue;
		j.tid = other;
		r = inject_apart(&j);
	}
	if (r < 0) {
		if (err)
			*err = j.err;
		return r;
	}
	*ret_fd = r;
	return 0;
}
