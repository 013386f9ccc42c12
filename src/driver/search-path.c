/*
 * The PATH of an engine's restore: see search-path.h. No state; any thread.
 */
#include "driver/search-path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FALLBACK "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

int search_path_make(const struct driver_place *place, char *ret, size_t size, struct error *err)
{
	const char *named = getenv("PHAUL_CRIU"), *path = getenv("PATH");
	char directory[PATH_MAX] = "", link[PATH_MAX + 8];

	if (named && named[0]) {
		snprintf(directory, sizeof(directory), "%s/bin", place->work_directory);
		snprintf(link, sizeof(link), "%s/criu", directory);
		if ((mkdir(directory, 0700) < 0 && errno != EEXIST) || (symlink(named, link) < 0 && errno != EEXIST))
			return error_errno(err, errno, "cannot make %s", link);
	}
	if (snprintf(ret, size, "PATH=%s%s%s%s%s", directory, directory[0] ? ":" : "", path ? path : "",
		     path && path[0] ? ":" : "", FALLBACK) >= (int)size)
		return error_set(err, ENAMETOOLONG, "PATH is too long");
	return 0;
}
