/*
 * Proof of shared storage: see shared.h. No state; any thread.
 */
#include "migration/shared.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"

#define PREFIX ".phaul-shared-"
#define LEFT_AFTER_S 60 /* older ones are nobody's */

static void file_name(char text[static 64], const uint8_t *name)
{
	int n = snprintf(text, 64, PREFIX);

	for (int i = 0; i < SHARED_NONCE_BYTES; i++)
		n += snprintf(text + n, 64 - (size_t)n, "%02x", name[i]);
}

/* The directory of the mark, or a negative errno. */
static int open_directory(const char *path, bool file)
{
	char directory[4096];
	char *slash;
	int root, fd;

	if (path[0] != '/' || snprintf(directory, sizeof(directory), "%s", path + 1) >= (int)sizeof(directory))
		return -EINVAL;
	slash = strrchr(directory, '/');
	if (file && slash)
		*slash = 0;
	root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return -errno;
	fd = fd_open_beneath(root, file && !slash ? "." : directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	close(root);
	return fd;
}

static void remove_left(int directory_fd)
{
	int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	struct stat st;

	if (!d)
		close_fd(&fd);
	while (d && (e = readdir(d)))
		if (!strncmp(e->d_name, PREFIX, sizeof(PREFIX) - 1) &&
		    strlen(e->d_name) == sizeof(PREFIX) - 1 + 2 * SHARED_NONCE_BYTES &&
		    !fstatat(directory_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode) &&
		    st.st_size <= SHARED_NONCE_BYTES && st.st_mtime < time(NULL) - LEFT_AFTER_S)
			unlinkat(directory_fd, e->d_name, 0);
}

int shared_mark_make(const char *path, bool file, struct shared_mark *ret, struct error *err)
{
	struct shared_mark m = { .directory_fd = -1 };
	struct stat st;
	int fd, r;

	if (getrandom(m.name, sizeof(m.name), 0) != sizeof(m.name) ||
	    getrandom(m.content, sizeof(m.content), 0) != sizeof(m.content))
		return error_errno(err, errno, "there are no random numbers");
	file_name(m.file, m.name);
	m.directory_fd = open_directory(path, file);
	if (m.directory_fd < 0)
		return error_errno(err, -m.directory_fd, "cannot open the directory of %s", path);
	if (!fstat(m.directory_fd, &st)) {
		m.modified.s = st.st_mtim.tv_sec;
		m.modified.ns = st.st_mtim.tv_nsec;
	}
	remove_left(m.directory_fd);
	fd = openat(m.directory_fd, m.file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : fd_write_full(fd, m.content, sizeof(m.content));
	/* A network file system shows the others what is closed. */
	if (fd >= 0 && close(fd) < 0 && !r)
		r = -errno;
	if (r < 0) {
		if (fd >= 0)
			shared_mark_remove(&m);
		close_fd(&m.directory_fd);
		return error_errno(err, -r, "cannot make the file %s in %s", m.file, path);
	}
	*ret = m;
	return 0;
}

void shared_mark_remove(struct shared_mark *m)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { m->modified.s, m->modified.ns } };

	if (m->directory_fd < 0)
		return;
	unlinkat(m->directory_fd, m->file, 0);
	futimens(m->directory_fd, times);
	close_fd(&m->directory_fd);
}

bool shared_seen(const char *path, bool file, const uint8_t name[static SHARED_NONCE_BYTES],
		 const uint8_t content[static SHARED_NONCE_BYTES])
{
	_cleanup_close_ int directory = open_directory(path, file), fd = -1;
	uint8_t found[SHARED_NONCE_BYTES];
	char text[64];

	if (directory < 0)
		return false;
	file_name(text, name);
	fd = openat(directory, text, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return fd >= 0 && !fd_read_full(fd, found, sizeof(found)) && !memcmp(found, content, sizeof(found));
}
