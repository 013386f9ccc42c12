/*
 * See group.h. No state; any thread.
 */
#include "driver/group.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"

#define GROUPS_MAX (64U << 10)

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)at;
	if (type == FTW_DP)
		(void)rmdir(path);
	return 0;
}

int group_remove_tree(const char *path)
{
	return nftw(path, remove_one, 16, FTW_PHYS | FTW_MOUNT | FTW_DEPTH);
}

/* A line of /proc/self/cgroup: "ID:CONTROLLERS:PATH", CONTROLLERS empty for version 2, "name=NAME" where a hierarchy has none. */
static int open_line(char *line)
{
	char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL,
	     file[PATH_MAX];

	if (!path)
		return -1;
	*path++ = 0;
	controllers++;
	if (!strncmp(controllers, "name=", strlen("name=")))
		controllers += strlen("name=");
	snprintf(file, sizeof(file), "/sys/fs/cgroup/%s%.3072s/cgroup.procs", controllers, path);
	return open(file, O_WRONLY | O_CLOEXEC);
}

int group_open_own(void)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char *save = NULL;
	int r = fd_read_file(AT_FDCWD, "/proc/self/cgroup", GROUPS_MAX, &text);

	if (r < 0)
		return r;
	for (char *line = text.length ? strtok_r((char *)text.data, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		int fd = open_line(line);

		if (fd >= 0)
			return fd;
	}
	return -ENOENT;
}

void group_ease(int fd)
{
	/* "0" is the writer. What it gains is time for others; nothing is lost when it fails. */
	if (write(fd, "0", 1) < 0)
		return;
}
