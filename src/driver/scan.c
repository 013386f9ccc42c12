/*
 * Descriptors and mappings of one process: see scan.h. No state; any thread.
 *
 * stat(2) through /proc/PID/fd/N tells of the file that is open, whatever became of its name.
 */
#include "driver/scan.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/fd.h"

static const char deleted_mark[] = " (deleted)";

bool scan_deleted(const char *target)
{
	size_t n = strlen(target), m = strlen(deleted_mark);

	return n > m && !strcmp(target + n - m, deleted_mark);
}

static void read_fdinfo(int fdinfo_fd, const char *name, struct scan_fd *s)
{
	_cleanup_close_ int fd = openat(fdinfo_fd, name, O_RDONLY | O_CLOEXEC);
	char text[1024], *line;
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n <= 0)
		return;
	text[n] = 0;
	line = strstr(text, "flags:");
	if (line)
		s->flags = (unsigned int)strtoul(line + strlen("flags:"), NULL, 8);
	line = strstr(text, "tty-index:");
	if (line)
		s->tty_index = atoi(line + strlen("tty-index:"));
}

static int open_fds(pid_t pid, const char *what)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, what);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Its name and its file, by one look: a program that runs opens another file under the same number in between two. */
static int read_one(int fds, int fdinfo_fd, const char *name, struct scan_fd *s)
{
	_cleanup_close_ int fd = openat(fds, name, O_PATH | O_CLOEXEC);
	char link[64];
	ssize_t n;

	if (fd < 0 || fstat(fd, &s->st) < 0)
		return -errno;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, s->target, sizeof(s->target) - 1);
	if (n < 0)
		return -errno;
	s->target[n] = 0;
	read_fdinfo(fdinfo_fd, name, s);
	return 0;
}

int scan_fds(pid_t pid, scan_fd_fn *fn, void *context)
{
	_cleanup_closedir_ DIR *dir = NULL;
	_cleanup_close_ int fdinfo_fd = open_fds(pid, "fdinfo");
	int fd = open_fds(pid, "fd");
	struct dirent *entry;

	if (fd < 0)
		return fd == -ENOENT || fd == -ESRCH ? 0 : fd;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while ((entry = readdir(dir))) {
		struct scan_fd s = { .pid = pid, .tty_index = -1 };
		int r;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		s.fd = atoi(entry->d_name);
		if (read_one(dirfd(dir), fdinfo_fd, entry->d_name, &s) < 0)
			continue;
		r = fn(context, &s);
		if (r < 0)
			return r;
	}
	return 0;
}

int scan_mappings(pid_t pid, scan_mapping_fn *fn, void *context)
{
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *line = NULL;
	size_t allocated = 0;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT || errno == ESRCH ? 0 : -errno;
	while ((n = getline(&line, &allocated, f)) > 0) {
		struct scan_mapping m = { .pid = pid };
		int at = 0, r;

		if (line[n - 1] == '\n')
			line[n - 1] = 0;
		if (sscanf(line, "%lx-%lx %4s %*x %*x:%*x %*u %n", &m.start, &m.end, m.permissions, &at) < 3 || !at ||
		    !line[at])
			continue;
		snprintf(m.path, sizeof(m.path), "%s", line + at);
		r = fn(context, &m);
		if (r < 0)
			return r;
	}
	return 0;
}

int scan_take_fd(pid_t pid, int fd)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int taken;

	if (pidfd < 0)
		return -errno;
	taken = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	return taken < 0 ? -errno : taken;
}
