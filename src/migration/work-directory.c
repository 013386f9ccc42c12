/*
 * Work directories and what crashes left of them: see work-directory.h.
 *
 * A directory is locked (flock(2)) right after it is made; one that is swept away in between belongs to a process that is told so. A target's
 * directory always has a journal. No state; any thread.
 */
#include "migration/work-directory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/uuid.h"

/* Whether RUN/ID/images is there, with nothing in it: killed before the journal was made. What --keep-images kept has images. */
static bool has_no_images(int directory_fd)
{
	_cleanup_closedir_ DIR *d = NULL;
	int fd = openat(directory_fd, "images", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct dirent *e;

	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		close_fd(&fd);
		return false;
	}
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			return false;
	return true;
}

static bool left_behind(int run_fd, const char *name, const char *journals)
{
	_cleanup_close_ int fd = openat(run_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char journal[4400];

	snprintf(journal, sizeof(journal), "%.4000s/%s/journal", journals, name);
	return fd >= 0 && access(journal, F_OK) < 0 && errno == ENOENT && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
	       has_no_images(fd);
}

static void sweep(const char *run, const char *journals)
{
	_cleanup_closedir_ DIR *d = opendir(run);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char path[4400];
		struct uuid id;

		if (!uuid_parse(e->d_name, &id) || !left_behind(dirfd(d), e->d_name, journals))
			continue;
		snprintf(path, sizeof(path), "%.4000s/%s", run, e->d_name);
		log_debug("%s was left behind by a process that was killed", path);
		dir_remove(path);
	}
}

int work_directory_make(const char *run, const char *id_text, const char *journals, int *ret_lock, struct error *err)
{
	char path[4400];
	int fd = -1, r;

	sweep(run, journals);
	snprintf(path, sizeof(path), "%.4000s/%s", run, id_text);
	r = dir_make(path, 0700);
	/* Locked before there are images in it: until then nobody takes it for left behind. */
	if (!r && (fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		r = -errno;
	if (!r && flock(fd, LOCK_EX | LOCK_NB) < 0)
		r = -errno;
	snprintf(path, sizeof(path), "%.4000s/%s/images", run, id_text);
	if (!r)
		r = dir_make(path, 0700);
	if (r < 0) {
		close_fd(&fd);
		return error_errno(err, -r, "cannot make the work directory %s", path);
	}
	*ret_lock = fd;
	return 0;
}
