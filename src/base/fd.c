/*
 * File descriptors: see fd.h. No state; any thread.
 *
 * dir_remove() walks with descriptors (openat, unlinkat) and never follows a link, so a tree that somebody
 * else may write into cannot lead it astray.
 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "base/clock.h"

#define FDS_MAX 16
#define TABLE_ROOM 4096UL /* 32 KiB of the kernel's memory */

void close_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

int fd_read_full(int fd, void *data, size_t length)
{
	uint8_t *p = data;

	while (length) {
		ssize_t n = read(fd, p, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EPIPE;
		p += n;
		length -= (size_t)n;
	}
	return 0;
}

int fd_pread_full(int fd, void *data, size_t length, uint64_t offset)
{
	uint8_t *p = data;

	while (length) {
		ssize_t n = pread(fd, p, length, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		offset += (size_t)n;
		length -= (size_t)n;
	}
	return 0;
}

int fd_write_full(int fd, const void *data, size_t length)
{
	const uint8_t *p = data;

	while (length) {
		ssize_t n = write(fd, p, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		length -= (size_t)n;
	}
	return 0;
}

int fd_wait(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		int r = poll(&p, 1, deadline_poll_ms(deadline_ns));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r > 0 || clock_now_ns() >= deadline_ns)
			return r > 0;
	}
}

int fd_read_file(int dir_fd, const char *path, size_t limit, struct buffer *b)
{
	_cleanup_close_ int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	size_t start = b->length;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n;
		int r = buffer_reserve(b, 4096);

		if (r < 0)
			return r;
		n = read(fd, b->data + b->length, b->capacity - b->length - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		b->length += (size_t)n;
		b->data[b->length] = 0;
		if (b->length - start > limit)
			return -EFBIG;
		if (!n)
			return 0;
	}
}

int fd_write_file(int dir_fd, const char *path, const void *data, size_t length, mode_t mode)
{
	_cleanup_close_ int fd = -1, parent = -1;
	const char *slash = strrchr(path, '/');
	char temporary[4096], directory[4096];
	int r;

	if ((size_t)snprintf(temporary, sizeof(temporary), "%s.new", path) >= sizeof(temporary))
		return -ENAMETOOLONG;
	snprintf(directory, sizeof(directory), "%.*s", slash ? MAX((int)(slash - path), 1) : 1, slash ? path : ".");
	parent = openat(dir_fd, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0)
		return -errno;
	fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	r = fd_write_full(fd, data, length);
	if (!r && fsync(fd) < 0)
		r = -errno;
	if (!r && renameat(dir_fd, temporary, dir_fd, path) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(dir_fd, temporary, 0);
		return r;
	}
	return fsync(parent) < 0 ? -errno : 0;
}

int fd_open_beneath(int dir_fd, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.mode = flags & O_CREAT ? mode : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
	};
	long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

ssize_t fd_read_head(int dir_fd, const char *path, char *text, size_t size)
{
	_cleanup_close_ int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	text[n > 0 ? n : 0] = 0;
	return n < 0 ? -errno : n;
}

void fd_raise_limit(void)
{
	struct rlimit files;

	if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

void fd_reserve_table(void)
{
	_cleanup_close_ int any = open("/dev/null", O_RDONLY | O_CLOEXEC), high = -1;
	struct rlimit files;

	/* It becomes as large as the highest number needs, and never smaller. */
	if (!getrlimit(RLIMIT_NOFILE, &files))
		high = fcntl(any, F_DUPFD_CLOEXEC, (int)MIN(files.rlim_cur, TABLE_ROOM) - 1);
}

int fd_send_fds(int socket_fd, const void *data, size_t length, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * FDS_MAX)];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)data, .iov_len = length };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (n_fds > FDS_MAX || !length)
		return -EINVAL;
	if (n_fds) {
		struct cmsghdr *c;

		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do {
		n = sendmsg(socket_fd, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if ((size_t)n < length)
		return fd_write_full(socket_fd, (const char *)data + n, length - (size_t)n);
	return 0;
}

static size_t fds_of_message(struct msghdr *msg, int *all, size_t max)
{
	size_t found = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n && found < max; i++)
			memcpy(&all[found++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}
	return found;
}

ssize_t fd_recv_fds(int socket_fd, void *data, size_t length, int *fds, size_t n_fds, size_t *ret_n_fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * FDS_MAX)];
	} control = { 0 };
	struct iovec iov = { .iov_base = data, .iov_len = length };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)
	};
	int all[FDS_MAX];
	size_t found;
	ssize_t n;

	do {
		n = recvmsg(socket_fd, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	found = fds_of_message(&msg, all, ARRAY_SIZE(all));
	if (found > n_fds || (msg.msg_flags & MSG_CTRUNC)) {
		while (found)
			close(all[--found]);
		return -E2BIG;
	}
	for (size_t i = 0; i < found; i++)
		fds[i] = all[i];
	*ret_n_fds = found;
	return n;
}

int dir_make(const char *path, mode_t mode)
{
	char part[4096];
	size_t length = strlen(path);

	if (length >= sizeof(part))
		return -ENAMETOOLONG;
	for (size_t i = 1; i <= length; i++) {
		if (path[i] != '/' && path[i] != 0)
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (mkdir(part, mode) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

static int dir_empty(int dir_fd, dev_t device)
{
	_cleanup_closedir_ DIR *dir = fdopendir(dir_fd);
	struct dirent *entry;
	int first = 0;

	if (!dir) {
		close(dir_fd);
		return -errno;
	}
	while ((entry = readdir(dir))) {
		struct stat st;
		int child, r = 0;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (!unlinkat(dirfd(dir), entry->d_name, 0) || errno == ENOENT)
			continue;
		if (errno != EISDIR && errno != EPERM) {
			first = first ? first : -errno;
			continue;
		}
		child = openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (child < 0 || fstat(child, &st) < 0 || st.st_dev != device) {
			r = child < 0 ? -errno : -EXDEV;
			close_fd(&child);
		} else {
			r = dir_empty(child, device);
		}
		if (!r && unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR) < 0)
			r = -errno;
		first = first ? first : r;
	}
	return first;
}

int dir_remove(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	r = dir_empty(TAKE_FD(fd), st.st_dev);
	if (!r && rmdir(path) < 0)
		r = -errno;
	return r;
}

int dir_free_bytes(const char *path, uint64_t *ret_bytes)
{
	struct statvfs st;

	if (statvfs(path, &st) < 0)
		return -errno;
	*ret_bytes = (uint64_t)st.f_bavail * st.f_frsize;
	return 0;
}
