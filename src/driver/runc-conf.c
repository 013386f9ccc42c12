/*
 * /etc/criu/runc.conf for a moment: see runc-conf.h.
 *
 * Ours is a symbolic link, so that it is told apart from anybody's file; what was there has the name SAVED meanwhile. Every order of
 * these steps can be cut by a crash: whoever holds the lock next sees our link, or SAVED without a file, and puts things right.
 * Threads: any; the lock is per open file.
 */
#include "driver/runc-conf.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define SAVED RUNC_CONF ".phaul-saved"
#define LOCK "/etc/criu/.phaul-runc.lock"
#define LOCK_MS 60000
#define RETRY_NS 5000000

static int lock_file(uint64_t deadline_ns, int *ret_fd)
{
	const struct timespec pause = { .tv_nsec = RETRY_NS };
	_cleanup_close_ int fd = -1;

	if (dir_make("/etc/criu", 0755) < 0 || (fd = open(LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
		return -errno;
	/* flock(2) knows no deadline. */
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (clock_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* With the lock held: as it was before us. */
static int put_back(void)
{
	struct stat st;

	if (lstat(RUNC_CONF, &st) == 0 && S_ISLNK(st.st_mode)) {
		char target[4096];
		ssize_t n = readlink(RUNC_CONF, target, sizeof(target) - 1);

		target[n > 0 ? n : 0] = 0;
		if (strstr(target, "/engine/criu.conf") && unlink(RUNC_CONF) < 0)
			return -errno;
	}
	if (lstat(SAVED, &st) == 0 && lstat(RUNC_CONF, &st) < 0 && rename(SAVED, RUNC_CONF) < 0)
		return -errno;
	return 0;
}

int runc_conf_take(const char *config, int *ret_lock, struct error *err)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	int r = lock_file(deadline_in_ms(LOCK_MS), &fd);

	if (r == -ETIMEDOUT)
		return error_set(err, EBUSY, "another restore has held %s for a minute", RUNC_CONF);
	if (!r)
		r = put_back();
	if (!r && lstat(RUNC_CONF, &st) == 0 && rename(RUNC_CONF, SAVED) < 0)
		r = -errno;
	if (!r && symlink(config, RUNC_CONF) < 0)
		r = -errno;
	if (r < 0)
		return error_errno(err, -r, "cannot put CRIU's configuration into %s", RUNC_CONF);
	*ret_lock = TAKE_FD(fd);
	return 0;
}

void runc_conf_give_back(int *lock)
{
	int r = *lock < 0 ? 0 : put_back();

	if (r < 0)
		log_error("cannot restore %s (what was there is %s): %s", RUNC_CONF, SAVED, strerror(-r));
	close_fd(lock);
}

void runc_conf_mend(void)
{
	struct stat st;
	int lock = -1;

	if (lstat(SAVED, &st) < 0 && (lstat(RUNC_CONF, &st) < 0 || !S_ISLNK(st.st_mode)))
		return;
	if (lock_file(clock_now_ns(), &lock) == 0)
		runc_conf_give_back(&lock);
}
