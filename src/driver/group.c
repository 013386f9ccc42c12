/*
 * See group.h. No state; any thread.
 */
#include "driver/group.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

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

int group_each_own(group_seen *each, void *context)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/cgroup", "re");
	bool hybrid = access(GROUP_ROOT "/unified", F_OK) == 0;
	char line[PATH_MAX];
	int r = 0;

	if (!f)
		return -errno;
	while (!r && fgets(line, sizeof(line), f)) {
		char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!path)
			continue;
		*controllers++ = *path++ = 0;
		path[strcspn(path, "\n")] = 0;
		if (!strncmp(controllers, "name=", strlen("name=")))
			controllers += strlen("name=");
		if (*controllers)
			r = each(context, controllers, path, false);
		else
			r = each(context, hybrid ? "unified" : ".", path, true);
	}
	return r;
}

static int open_procs(void *context, const char *hierarchy, char *path, bool unified)
{
	char file[PATH_MAX];
	int *fd = context;

	(void)unified;
	snprintf(file, sizeof(file), GROUP_ROOT "/%.128s%.3072s/cgroup.procs", hierarchy, path);
	*fd = open(file, O_WRONLY | O_CLOEXEC);
	return *fd >= 0;
}

int group_open_own(void)
{
	int fd = -1, r = group_each_own(open_procs, &fd);

	if (r < 0)
		return r;
	return r ? fd : -ENOENT;
}

void group_ease(int fd)
{
	/* "0" is the writer. What it gains is time for others; nothing is lost when it fails. */
	if (write(fd, "0", 1) < 0)
		return;
}
