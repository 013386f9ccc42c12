/*
 * Work directories and what crashes left of them: see work-directory.h.
 *
 * A directory is locked (flock(2)) right after it is made; one that is swept away in between is made again. A target's directory always has a
 * journal. No state; any thread.
 */
#include "migration/work-directory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"

#define TRIES 8

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Whether there is nothing in RUN/ID/images, or no such directory: killed before the journal was made. What --keep-images kept has images. */
static bool has_no_images(int directory_fd)
{
	_cleanup_closedir_ DIR *d = NULL;
	int fd = openat(directory_fd, "images", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct dirent *e;

	if (fd < 0)
		return errno == ENOENT;
	d = fdopendir(fd);
	if (!d) {
		close_fd(&fd);
		return false;
	}
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			return false;
	return true;
}

bool work_directory_id(const char *name, struct uuid *ret)
{
	size_t n = strlen(WORK_DIRECTORY_CPU);

	return uuid_parse(strncmp(name, WORK_DIRECTORY_CPU, n) ? name : name + n, ret);
}

int work_directory_take_abandoned(int run_fd, const char *name, const char *journals)
{
	_cleanup_close_ int fd = openat(run_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char journal[4400];
	struct stat mine, there;

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -1;
	/* Another one that swept may have been quicker, and whom it belongs to may have made it again. */
	if (fstat(fd, &mine) < 0 || fstatat(run_fd, name, &there, AT_SYMLINK_NOFOLLOW) < 0 || !same_file(&mine, &there))
		return -1;
	if (!strncmp(name, WORK_DIRECTORY_CPU, strlen(WORK_DIRECTORY_CPU)))
		return TAKE_FD(fd);
	snprintf(journal, sizeof(journal), "%.4000s/%s/journal", journals, name);
	return access(journal, F_OK) < 0 && errno == ENOENT && has_no_images(fd) ? TAKE_FD(fd) : -1;
}

static void sweep(const char *run, const char *journals)
{
	_cleanup_closedir_ DIR *d = opendir(run);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		_cleanup_close_ int lock = -1;
		char path[4400];
		struct uuid id;

		if (work_directory_id(e->d_name, &id))
			lock = work_directory_take_abandoned(dirfd(d), e->d_name, journals);
		if (lock < 0)
			continue;
		snprintf(path, sizeof(path), "%.4000s/%s", run, e->d_name);
		log_debug("%s was left behind by a process that was killed", path);
		dir_remove(path);
	}
}

/* -ENOENT: it was swept away before it was locked. */
static int make_locked(const char *path, int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	struct stat mine, there;
	int r = dir_make(path, 0700);

	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* Who sweeps holds the lock only until it is gone. */
	if (flock(fd, LOCK_EX) < 0 || fstat(fd, &mine) < 0 || stat(path, &there) < 0)
		return -errno;
	if (!same_file(&mine, &there))
		return -ENOENT;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int work_directory_make(const char *run, const char *name, const char *journals, int *ret_lock, struct error *err)
{
	char path[4400];
	int r = -ENOENT;

	if (journals)
		sweep(run, journals);
	snprintf(path, sizeof(path), "%.4000s/%s", run, name);
	for (int i = 0; i < TRIES && r == -ENOENT; i++)
		r = make_locked(path, ret_lock);
	return r < 0 ? error_errno(err, -r, "cannot make the work directory %s", path) : 0;
}
