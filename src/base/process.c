/*
 * Child processes: see process.h. Threads: any, each struct process used by one at a time.
 *
 * posix_spawn's file actions run in order in the child, so descriptors are first duplicated far above any
 * target number and only then dropped onto it: no source can be overwritten by an earlier target.
 */
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"

#define ENVIRONMENT_EXTRA_MAX 16

/* The environment of this process with the extra strings in front (the first match wins in getenv). */
static char **environment_with(const char *const *extra)
{
	size_t n = 0, m = 0;
	char **all;

	while (environ && environ[n])
		n++;
	while (extra && extra[m])
		m++;
	all = calloc(n + m + 1, sizeof(*all));
	if (!all)
		return NULL;
	for (size_t i = 0; i < m; i++)
		all[i] = (char *)extra[i];
	for (size_t i = 0; i < n; i++)
		all[m + i] = environ[i];
	return all;
}

static int spawn_actions(const struct process_options *o, posix_spawn_file_actions_t *actions, int *high,
			 size_t *ret_n_high)
{
	int std[3] = { o->stdin_fd, o->stdout_fd < 0 ? o->stderr_fd : o->stdout_fd, o->stderr_fd };
	size_t n = 0;
	int r = 0;

	for (int i = 0; i < 3 && !r; i++) {
		if (std[i] < 0) {
			r = posix_spawn_file_actions_addopen(actions, i, "/dev/null", O_RDWR, 0);
			continue;
		}
		high[n] = fcntl(std[i], F_DUPFD_CLOEXEC, 100);
		if (high[n] < 0)
			return -errno;
		*ret_n_high = n + 1;
		r = posix_spawn_file_actions_adddup2(actions, high[n++], i);
	}
	for (size_t i = 0; i < o->n_fds && !r; i++) {
		high[n] = fcntl(o->source_fds[i], F_DUPFD_CLOEXEC, 100);
		if (high[n] < 0)
			return -errno;
		*ret_n_high = n + 1;
		r = posix_spawn_file_actions_adddup2(actions, high[n++], o->child_fds[i]);
	}
	return -r;
}

static int spawn_attributes(const struct process_options *o, posix_spawnattr_t *attr)
{
	short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
	sigset_t none, all;
	int r;

	sigemptyset(&none);
	sigfillset(&all);
	sigdelset(&all, SIGKILL);
	sigdelset(&all, SIGSTOP);
	if (o->new_session)
		flags |= POSIX_SPAWN_SETSID;
	r = posix_spawnattr_setsigmask(attr, &none);
	if (!r)
		r = posix_spawnattr_setsigdefault(attr, &all);
	if (!r)
		r = posix_spawnattr_setflags(attr, flags);
	return -r;
}

int process_start(const struct process_options *o, struct process *ret, struct error *err)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int high[PROCESS_FDS_MAX + 3];
	size_t n_high = 0;
	_cleanup_free_ char **environment = environment_with(o->environment);
	pid_t pid = 0;
	int r;

	if (!environment || o->n_fds > PROCESS_FDS_MAX)
		return error_set(err, ENOMEM, "no memory to start %s", o->argv[0]);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	r = spawn_actions(o, &actions, high, &n_high);
	if (!r)
		r = spawn_attributes(o, &attr);
	if (!r)
		r = -posix_spawnp(&pid, o->program ? o->program : o->argv[0], &actions, &attr, (char *const *)o->argv,
				  environment);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	while (n_high)
		close(high[--n_high]);
	if (r == -ENOENT)
		return error_set(err, ENOENT, "cannot start %s: it is not installed or not on PATH", o->argv[0]);
	if (r < 0)
		return error_errno(err, -r, "cannot start %s", o->argv[0]);
	*ret = (struct process){ .pid = pid, .pidfd = (int)syscall(SYS_pidfd_open, pid, 0) };
	if (ret->pidfd < 0) {
		r = -errno;
		process_kill(ret);
		return error_errno(err, -r, "cannot watch %s", o->argv[0]);
	}
	fcntl(ret->pidfd, F_SETFD, FD_CLOEXEC);
	return 0;
}

int process_wait(struct process *p, uint64_t deadline_ns)
{
	int r;

	if (!p->pid)
		return 1;
	if (p->pidfd >= 0) {
		r = fd_wait(p->pidfd, POLLIN, deadline_ns);
		if (r <= 0)
			return r;
	}
	while (waitpid(p->pid, &p->status, 0) < 0)
		if (errno != EINTR) {
			p->pid = 0;
			return -errno;
		}
	p->pid = 0;
	return 1;
}

void process_kill(struct process *p)
{
	if (!p->pid)
		return;
	kill(p->pid, SIGKILL);
	process_wait(p, DEADLINE_NEVER);
}

void process_free(struct process *p)
{
	process_kill(p);
	close_fd(&p->pidfd);
}

/* Drains the two pipes of a running program until both end or time is up. */
static int drain_pipes(int out_fd, int err_fd, struct buffer *output, struct buffer *errors, uint64_t deadline_ns)
{
	struct pollfd p[2] = { { .fd = out_fd, .events = POLLIN }, { .fd = err_fd, .events = POLLIN } };
	struct buffer *sinks[2] = { output, errors };

	while (p[0].fd >= 0 || p[1].fd >= 0) {
		int r = poll(p, 2, deadline_poll_ms(deadline_ns));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r && clock_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		for (int i = 0; i < 2; i++) {
			char chunk[4096];
			ssize_t n;

			if (!p[i].revents)
				continue;
			n = read(p[i].fd, chunk, sizeof(chunk));
			if (n <= 0)
				p[i].fd = -1;
			else if (sinks[i] && sinks[i]->length < (64U << 20))
				buffer_append(sinks[i], chunk, (size_t)n);
		}
	}
	return 0;
}

int process_run(const char *const *argv, struct buffer *output, uint64_t deadline_ns, struct error *err)
{
	int out[2] = { -1, -1 }, errors[2] = { -1, -1 };
	_cleanup_buffer_ struct buffer text = { 0 };
	const char *words;
	_cleanup_process_ struct process p = PROCESS_NONE;
	struct process_options o = { .argv = argv, .stdin_fd = -1 };
	int r;

	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0) {
		r = error_errno(err, errno, "cannot make a pipe for %s", argv[0]);
		goto finish;
	}
	o.stdout_fd = out[1];
	o.stderr_fd = errors[1];
	r = process_start(&o, &p, err);
	close_fd(&out[1]);
	close_fd(&errors[1]);
	if (r < 0)
		goto finish;
	r = drain_pipes(out[0], errors[0], output, &text, deadline_ns);
	if (!r && process_wait(&p, deadline_ns) == 0)
		r = -ETIMEDOUT;
	if (r < 0) {
		r = error_errno(err, -r, "%s did not finish", argv[0]);
		goto finish;
	}
	if (p.status == 0)
		goto finish;
	words = buffer_last_line(&text);
	r = WIFEXITED(p.status) ? WEXITSTATUS(p.status) : 128 + WTERMSIG(p.status);
	error_set(err, EIO, "%s failed with status %d: %s", argv[0], r, words ? words : "it said nothing");
finish:
	close_fd(&out[0]);
	close_fd(&out[1]);
	close_fd(&errors[0]);
	close_fd(&errors[1]);
	return r;
}

/* Field `first` of /proc/PID/stat and those behind it, counted as in proc(5), into n numbers; false: it is gone. */
static bool read_stat(pid_t pid, int first, unsigned long long *ret, int n)
{
	_cleanup_buffer_ struct buffer b = { 0 };
	char path[64], *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (fd_read_file(AT_FDCWD, path, 4096, &b) < 0 || buffer_append(&b, "", 1) < 0)
		return false;
	p = strrchr((char *)b.data, ')');
	for (int field = 2; p && field < first; field++)
		p = strchr(p + 1, ' ');
	for (int i = 0; p && i < n; i++)
		ret[i] = strtoull(p + 1, &p, 10);
	return p;
}

uint64_t process_start_ticks(pid_t pid)
{
	unsigned long long ticks;

	return read_stat(pid, 22, &ticks, 1) ? ticks : 0;
}

uint64_t process_cpu_ns(pid_t pid)
{
	unsigned long long times[2];

	return read_stat(pid, 14, times, 2) ? (times[0] + times[1]) * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK)) : 0;
}

void process_spare(pid_t pid)
{
	_cleanup_close_ int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)!write(fd, "-1000", 5);
}
