/*
 * Trees of tasks that CRIU has left in the middle of something.
 *
 * A CRIU that dies in mid-restore leaves half-made tasks. They are found by descent while it lives (it is stopped first,
 * so that it cannot fork on), by the root's pid that CRIU told us, by the socket that its fresh children inherit, and, for
 * trees without a pid namespace, by the pids of the images where the task is younger than the job. Killing goes through
 * pidfds. A CRIU that dies in a dump leaves TCP sockets in repair mode.
 * Threads: the job's. Source: criu/cr-restore.c, soccr/soccr.c, tcp(7) and net/ipv4/tcp.c of Linux.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "criu/images.h"
#include "criu/job.h"

#define KILL_MS 2000
#define TASKS_MAX 65536

static void kill_pidfd(int pidfd)
{
	syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	fd_wait(pidfd, POLLIN, deadline_in_ms(KILL_MS));
}

size_t tree_children(pid_t pid, pid_t *pids, size_t n, size_t max)
{
	char path[300];
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		_cleanup_fclose_ FILE *f = NULL;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/children", pid, e->d_name);
		f = fopen(path, "re");
		while (f && n < max && fscanf(f, "%d", &pids[n]) == 1)
			n++;
	}
	if (d)
		closedir(d);
	return n;
}

/* Kills pid's descendants, leaves last, then again until there are none: a task may have forked meanwhile. */
static void kill_descendants(pid_t pid)
{
	_cleanup_free_ pid_t *pids = calloc(TASKS_MAX, sizeof(*pids));

	for (int round = 0; pids && round < 16; round++) {
		size_t n = tree_children(pid, pids, 0, TASKS_MAX);
		bool any = false;

		for (size_t i = 0; i < n; i++)
			n = tree_children(pids[i], pids, n, TASKS_MAX);
		for (size_t i = 0; i < n; i++) {
			int pidfd = (int)syscall(SYS_pidfd_open, pids[i], 0);
			siginfo_t info = { 0 };

			if (pidfd < 0)
				continue;
			/* A zombie whose parent is stopped stays one; it does no harm and has nothing to kill. */
			if (fd_wait(pidfd, POLLIN, 0) == 0) {
				any = true;
				kill_pidfd(pidfd);
			}
			waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG);
			close(pidfd);
		}
		if (!any)
			return;
	}
}

static bool holds_socket(const char *pid, uint64_t inode)
{
	_cleanup_closedir_ DIR *d = NULL;
	char path[300], wanted[64], target[64];

	snprintf(wanted, sizeof(wanted), "socket:[%llu]", (unsigned long long)inode);
	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	d = opendir(path);
	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);

		if (n <= 0)
			continue;
		target[n] = 0;
		if (strcmp(target, wanted) == 0)
			return true;
	}
	return false;
}

/* Tasks that CRIU forked and that have not come far: they still hold its end of the RPC socket. */
static void kill_by_socket(struct criu_job *job)
{
	bool any = job->rpc.peer_inode != 0;

	for (int round = 0; any && round < 16; round++) {
		_cleanup_closedir_ DIR *d = opendir("/proc");

		any = false;
		for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
			int pidfd;

			if (e->d_name[0] < '1' || e->d_name[0] > '9' || !holds_socket(e->d_name, job->rpc.peer_inode))
				continue;
			pidfd = (int)syscall(SYS_pidfd_open, atoi(e->d_name), 0);
			if (pidfd < 0)
				continue;
			any = true;
			kill_pidfd(pidfd);
			close(pidfd);
		}
	}
}

void criu_restore_wipe(const char *images_directory, uint64_t started_ticks, uint64_t until_ticks)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0;

	if (images_read_pids(images_directory, &pids, &n) < 0 || !n || pids[0] == 1)
		return;
	for (size_t i = 0; i < n; i++) {
		int pidfd = (int)syscall(SYS_pidfd_open, pids[i], 0);
		uint64_t ticks = process_start_ticks(pids[i]);

		if (pidfd < 0)
			continue;
		if (started_ticks && ticks >= started_ticks && ticks <= until_ticks && fd_wait(pidfd, POLLIN, 0) == 0)
			kill_pidfd(pidfd);
		close(pidfd);
	}
}

void restore_kill(struct criu_job *job)
{
	bool crashed = process_wait(&job->rpc.process, 0) == 1 && WIFSIGNALED(job->rpc.process.status);

	if (job->rpc.process.pid && kill(job->rpc.process.pid, SIGSTOP) == 0)
		kill_descendants(job->rpc.process.pid);
	process_kill(&job->rpc.process);
	close_fd(&job->rpc.socket_fd);
	if (job->root_pidfd >= 0) {
		if (fd_wait(job->root_pidfd, POLLIN, 0) == 0)
			kill_descendants(job->pid);
		kill_pidfd(job->root_pidfd);
	}
	if (job->root_pidfd < 0)
		kill_by_socket(job);
	if (crashed) /* otherwise it has cleaned up, and such a pid may be a stranger's: the very reason of the failure */
		criu_restore_wipe(job->images_directory, job->started_ticks, UINT64_MAX);
}

static void task_set_tcp_repair(pid_t pid, int wanted)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), now = 0;
	_cleanup_closedir_ DIR *d = NULL;
	char path[64], target[32];

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	d = pidfd < 0 ? NULL : opendir(path);
	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		_cleanup_close_ int fd = -1;
		socklen_t length = sizeof(now);

		if (readlinkat(dirfd(d), e->d_name, target, 7) != 7 || memcmp(target, "socket:", 7) != 0)
			continue;
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(e->d_name), 0);
		if (fd >= 0 && getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &now, &length) == 0 && now != wanted)
			setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &wanted, sizeof(wanted));
	}
	close_fd(&pidfd);
}

void criu_silence_connections(pid_t pid)
{
	task_set_tcp_repair(pid, 1);
}

void criu_end_tcp_repair(pid_t root)
{
	_cleanup_free_ pid_t *pids = calloc(TASKS_MAX, sizeof(*pids));
	size_t n = 0;

	if (!pids)
		return;
	pids[n++] = root;
	for (size_t i = 0; i < n; i++) {
		task_set_tcp_repair(pids[i], 0);
		n = tree_children(pids[i], pids, n, TASKS_MAX);
	}
}
