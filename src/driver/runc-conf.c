/*
 * Borrowing runc.conf: see runc-conf.h.
 *
 * Invariant: at any moment either runc.conf is the administrator's, or its first line is MARK and his is KEPT, if there was one. Both changes are
 * a rename. No state besides the lock; any thread.
 */
#include "driver/runc-conf.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

#define NAME "runc.conf"
#define KEPT "runc.conf.phaul-kept"
#define MARK "# phaul: borrowed for a restore; what was here is in " KEPT "\n"
#define CONFIG_MAX (1U << 20)
#define LOCK_POLL_MS 20

static int open_directory(const char *directory, bool make, struct error *err)
{
	int fd, r;

	if (!directory)
		directory = RUNC_CONF_DIRECTORY;
	r = make ? dir_make(directory, 0755) : 0;
	if (r < 0)
		return error_errno(err, -r, "cannot make %s", directory);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	return fd < 0 ? error_errno(err, errno, "cannot open %s", directory) : fd;
}

/* flock(2) knows no deadline. */
static int take_lock(int fd, uint64_t deadline_ns, struct error *err)
{
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return error_errno(err, errno, "cannot lock " RUNC_CONF_DIRECTORY);
		if (clock_now_ns() >= deadline_ns)
			return error_set(err, ETIMEDOUT, "another restore keeps " RUNC_CONF_DIRECTORY "/" NAME " for itself");
		(void)fd_wait(-1, 0, deadline_in_ms(LOCK_POLL_MS));
	}
	return 0;
}

/* 1: the file is a borrower's, 0: it is not. *ret: its content, empty when there is none. */
static int read_present(int dir_fd, struct buffer *ret)
{
	int r = fd_read_file(dir_fd, NAME, CONFIG_MAX, ret);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	return ret->length >= strlen(MARK) && !memcmp(ret->data, MARK, strlen(MARK));
}

/* With the lock held. */
static int put_back(int dir_fd)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	int r = read_present(dir_fd, &text);

	if (r < 0)
		return r;
	if (!r) /* died before it wrote its own: both names are the administrator's file */
		return unlinkat(dir_fd, KEPT, 0) < 0 && errno != ENOENT ? -errno : 0;
	if (renameat(dir_fd, KEPT, dir_fd, NAME) == 0)
		return 0;
	if (errno != ENOENT)
		return -errno;
	return unlinkat(dir_fd, NAME, 0) < 0 && errno != ENOENT ? -errno : 0;
}

static int write_ours(int dir_fd, const char *config)
{
	_cleanup_buffer_ struct buffer text = { 0 }, his = { 0 };
	int r = read_present(dir_fd, &his);

	if (r < 0)
		return r;
	if (linkat(dir_fd, NAME, dir_fd, KEPT, 0) < 0 && errno != ENOENT)
		return -errno;
	r = buffer_append(&text, MARK, strlen(MARK));
	if (!r && his.length)
		r = buffer_append(&text, his.data, his.length);
	if (!r)
		r = buffer_append(&text, "\n", 1);
	if (!r)
		r = fd_read_file(AT_FDCWD, config, CONFIG_MAX, &text);
	return r < 0 ? r : fd_write_file(dir_fd, NAME, text.data, text.length, 0644);
}

int runc_conf_borrow(const char *directory, const char *config, uint64_t deadline_ns, struct runc_conf *ret, struct error *err)
{
	_cleanup_close_ int fd = open_directory(directory, true, err);
	int r;

	if (fd < 0)
		return fd;
	r = take_lock(fd, deadline_ns, err);
	if (r < 0)
		return r;
	r = put_back(fd);
	if (!r)
		r = write_ours(fd, config);
	if (r < 0) {
		(void)put_back(fd);
		return error_errno(err, -r, "cannot write " RUNC_CONF_DIRECTORY "/" NAME);
	}
	ret->lock_fd = TAKE_FD(fd);
	return 0;
}

int runc_conf_give_back(struct runc_conf *c, struct error *err)
{
	int r;

	if (c->lock_fd < 0)
		return 0;
	r = put_back(c->lock_fd);
	close_fd(&c->lock_fd);
	return r < 0 ? error_errno(err, -r, "cannot put " RUNC_CONF_DIRECTORY "/" NAME " back as it was") : 0;
}

int runc_conf_recover(const char *directory, struct error *err)
{
	_cleanup_close_ int fd = open_directory(directory, false, err);
	int r;

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? 0 : error_errno(err, errno, "cannot lock " RUNC_CONF_DIRECTORY);
	r = put_back(fd);
	return r < 0 ? error_errno(err, -r, "cannot put " RUNC_CONF_DIRECTORY "/" NAME " back as it was") : 0;
}
