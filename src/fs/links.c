/*
 * Whether files at the target have several names: see links.h. No state; any thread.
 */
#include "fs/links.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

/* Takes over fd. */
static bool search(int fd)
{
	_cleanup_closedir_ DIR *d = fdopendir(fd);
	const struct dirent *e;

	if (!d) {
		close_fd(&fd);
		return true;
	}
	while ((e = readdir(d))) {
		struct stat st;
		int below;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISREG(st.st_mode) && st.st_nlink > 1)
			return true;
		if (!S_ISDIR(st.st_mode))
			continue;
		below = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below < 0 && errno == ENOENT)
			continue;
		if (below < 0 || search(below))
			return true;
	}
	return false;
}

bool links_below(int fd)
{
	int top = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return top < 0 || search(top);
}
