/*
 * Process trees out of /proc: see tree.h. No state; any thread.
 *
 * A process is found as a child of one of its parent's threads (task/TID/children), because a whole-/proc scan
 * would cost what the host runs, not what the workload runs. That list is only reliable while nothing forks; the
 * callers walk again at each round, and once more when the tree is stopped.
 */
#include "driver/tree.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/array.h"
#include "base/fd.h"
#include "driver/workload.h"

#define PF_KTHREAD 0x00200000
#define THREADS_MAX 4194304 /* PID_MAX_LIMIT */
#define SMALL_FILE 8192

void tree_free(struct tree *t)
{
	free(t->processes);
	free(t->threads);
	*t = (struct tree){ 0 };
}

/* A small file of /proc whole, terminated; the number of bytes or a negative errno. */
static ssize_t read_small(int dir_fd, const char *path, char *text, size_t size)
{
	_cleanup_close_ int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;

	if (fd < 0)
		return -errno;
	while (length < size - 1) {
		ssize_t n = read(fd, text + length, size - 1 - length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		length += (size_t)n;
	}
	text[length] = 0;
	return (ssize_t)length;
}

/* /proc/PID/stat: "pid (name) state ppid pgrp session tty_nr tpgid flags ... rss". The name may hold anything. */
static int parse_stat(char *text, struct tree_process *p)
{
	char *open = strchr(text, '('), *close = strrchr(text, ')');
	unsigned long flags, rss;
	unsigned int threads;

	if (!open || !close || close < open)
		return -EPROTO;
	*close = 0;
	snprintf(p->name, sizeof(p->name), "%s", open + 1);
	if (sscanf(close + 1, " %c %d %d %d %*d %*d %lu %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %u %*d %*u %*u %lu",
		   &p->state, &p->parent, &p->group, &p->session, &flags, &threads, &rss) != 7)
		return -EPROTO;
	p->kernel_thread = flags & PF_KTHREAD;
	p->threads = threads;
	p->resident_bytes = (uint64_t)rss * (uint64_t)sysconf(_SC_PAGESIZE);
	return 0;
}

/* The numbers of a line "NAME:\t1\t2"; how many there are. */
static uint32_t status_numbers(const char *text, const char *name, pid_t numbers[TREE_LEVELS_MAX])
{
	char key[32];
	const char *line;
	uint32_t n = 0;

	snprintf(key, sizeof(key), "\n%s:", name);
	line = strstr(text, key);
	if (!line)
		return 0;
	line += strlen(key);
	while (n < TREE_LEVELS_MAX) {
		char *end;
		long value;

		while (*line == ' ' || *line == '\t')
			line++;
		if (!isdigit((unsigned char)*line))
			break;
		value = strtol(line, &end, 10);
		numbers[n++] = (pid_t)value;
		line = end;
	}
	return n;
}

/* level: which of the NSpid numbers is that of the images; 0: the innermost. */
static int parse_status(const char *text, uint32_t level, struct tree_process *p)
{
	pid_t pids[TREE_LEVELS_MAX] = { 0 }, sessions[TREE_LEVELS_MAX] = { 0 }, one[TREE_LEVELS_MAX] = { 0 };
	uint32_t n_sessions;

	p->levels = status_numbers(text, "NSpid", pids);
	n_sessions = status_numbers(text, "NSsid", sessions);
	if (!p->levels || n_sessions != p->levels)
		return -EPROTO;
	if (!level)
		level = p->levels;
	if (level > p->levels)
		return -EPROTO;
	p->image_pid = pids[level - 1];
	p->image_session = sessions[level - 1];
	p->tracer = status_numbers(text, "TracerPid", one) ? one[0] : 0;
	p->hugetlb_bytes = status_numbers(text, "HugetlbPages", one) ? (uint64_t)one[0] * 1024 : 0;
	p->thread_group = status_numbers(text, "Tgid", one) ? one[0] : p->pid;
	return 0;
}

static int read_process(int dir_fd, pid_t pid, uint32_t level, struct tree_process *ret)
{
	struct tree_process p = { .pid = pid };
	char text[SMALL_FILE];
	ssize_t n = read_small(dir_fd, "stat", text, sizeof(text));
	int r;

	if (n <= 0)
		return n < 0 ? (int)n : -ESRCH;
	r = parse_stat(text, &p);
	if (r < 0)
		return r;
	n = read_small(dir_fd, "status", text, sizeof(text));
	if (n <= 0)
		return n < 0 ? (int)n : -ESRCH;
	r = parse_status(text, level, &p);
	if (r < 0)
		return r;
	*ret = p;
	return 0;
}

static int open_process(pid_t pid)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d", pid);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	return fd;
}

int tree_read_process(pid_t pid, struct tree_process *ret, struct error *err)
{
	_cleanup_close_ int fd = open_process(pid);
	int r = fd < 0 ? fd : read_process(fd, pid, 0, ret);

	if (r == -ESRCH || r == -ENOENT)
		return error_set(err, ESRCH, "there is no process %d here", pid);
	if (r < 0)
		return error_errno(err, -r, "cannot read /proc/%d", pid);
	return 0;
}

static int add_process(struct tree *t, pid_t pid)
{
	if (t->n == t->n_allocated && t->n >= WORKLOAD_PROCESSES_MAX)
		return -E2BIG;
	if (array_grow(&t->processes, t->n, &t->n_allocated, 32, sizeof(*t->processes)) < 0)
		return -ENOMEM;
	t->processes[t->n++] = (struct tree_process){ .pid = pid };
	return 0;
}

static int add_thread(struct tree *t, pid_t tid)
{
	if (t->n_threads == t->n_threads_allocated && t->n_threads >= THREADS_MAX)
		return -E2BIG;
	if (array_grow(&t->threads, t->n_threads, &t->n_threads_allocated, 128, sizeof(*t->threads)) < 0)
		return -ENOMEM;
	t->threads[t->n_threads++] = tid;
	return 0;
}

/* Appends the pids of a "children" file. */
static int add_children(struct tree *t, int task_fd, const char *tid, struct buffer *text)
{
	char path[64], *p, *end;
	int r;

	snprintf(path, sizeof(path), "%.20s/children", tid);
	text->length = 0;
	r = fd_read_file(task_fd, path, 16U * WORKLOAD_PROCESSES_MAX, text);
	if (r < 0 || !text->length)
		return r == -ENOENT || r == -ESRCH ? 0 : r;
	for (p = (char *)text->data;; p = end) {
		long pid = strtol(p, &end, 10);

		if (end == p)
			return 0;
		r = add_process(t, (pid_t)pid);
		if (r < 0)
			return r;
	}
}

/* Threads of the process at `index`, and the children of each. */
static int walk_threads(struct tree *t, size_t index, int dir_fd, struct buffer *text)
{
	_cleanup_closedir_ DIR *dir = NULL;
	int task_fd = openat(dir_fd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t first = t->n_threads;
	struct dirent *entry;

	if (task_fd < 0)
		return -errno;
	dir = fdopendir(task_fd);
	if (!dir) {
		close(task_fd);
		return -ENOMEM;
	}
	while ((entry = readdir(dir))) {
		int r;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		r = add_thread(t, (pid_t)atoi(entry->d_name));
		if (!r)
			r = add_children(t, task_fd, entry->d_name, text);
		if (r < 0)
			return r;
	}
	t->processes[index].first_thread = first;
	t->processes[index].threads = (uint32_t)(t->n_threads - first);
	return 0;
}

static int walk_process(struct tree *t, size_t index, uint32_t level, struct buffer *text)
{
	pid_t pid = t->processes[index].pid;
	_cleanup_close_ int fd = open_process(pid);
	int r;

	if (fd < 0)
		return fd;
	r = read_process(fd, pid, level, &t->processes[index]);
	return r < 0 ? r : walk_threads(t, index, fd, text);
}

int tree_read(pid_t root, struct tree *ret, struct error *err)
{
	_cleanup_tree_ struct tree t = { 0 };
	_cleanup_buffer_ struct buffer text = { 0 };
	uint32_t level = 0;
	size_t kept = 0;
	int r = add_process(&t, root);

	for (size_t i = 0; !r && i < t.n; i++) {
		r = walk_process(&t, i, level, &text);
		if (i && (r == -ENOENT || r == -ESRCH)) {
			t.processes[i].pid = 0; /* it ended: dropped below */
			r = 0;
		}
		if (!i && !r)
			level = t.processes[0].levels;
	}
	if (r == -ENOENT || r == -ESRCH)
		return error_set(err, ESRCH, "there is no process %d here", root);
	if (r == -E2BIG)
		return error_set(err, E2BIG, "the tree of process %d is larger than phaul moves (%d processes)", root,
				 WORKLOAD_PROCESSES_MAX);
	if (r < 0)
		return error_errno(err, -r, "cannot read the process tree of %d", root);
	for (size_t i = 0; i < t.n; i++)
		if (t.processes[i].pid)
			t.processes[kept++] = t.processes[i];
	t.n = kept;
	*ret = t;
	t = (struct tree){ 0 };
	return 0;
}

bool tree_contains(const struct tree *t, pid_t pid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->processes[i].pid == pid)
			return true;
	return false;
}

uint64_t tree_namespace(pid_t pid, const char *kind)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kind);
	return stat(path, &st) < 0 ? 0 : st.st_ino;
}
