/*
 * Files that the workload writes through shared mappings, before the last pass of --sync.
 *
 * rsync leaves out a file whose size and time stamp are as at the target. A write through a mapping moves the time stamp only
 * when the page was clean before (mmap(2): "at some point after the write"), and on tmpfs never: such a file may differ
 * and look the same. So its time stamp is set to now, which is what the kernel could have done at any time since the write.
 *
 * One thread. Invariant: the tasks are stopped, so nothing is written between this and the pass.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/maps.h"
#include "migration/source-internal.h"

static bool is_synced(const struct source *s, const char *path)
{
	/* A container's names are not ours: what it maps is touched, whatever it is. */
	if (s->workload.n_trees)
		return true;
	for (const char *const *p = s->options->sync_paths; *p; p++) {
		size_t n = strlen(*p);

		if (!strncmp(path, *p, n) && (!path[n] || path[n] == '/'))
			return true;
	}
	return false;
}

/* What was mapped when the workload was described, and perhaps is no more. */
static int touch_described(const struct source *s, struct error *err)
{
	for (size_t i = 0; i < s->workload.n_files; i++) {
		const struct workload_file *f = &s->workload.files[i];

		if ((f->use != FILE_USE_MAPPED && f->use != FILE_USE_EXECUTABLE) || !f->writable ||
		    !is_synced(s, f->path))
			continue;
		if (utimensat(AT_FDCWD, f->path, NULL, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
			return error_errno(err, errno, "cannot set the time stamp of %s, which is mapped", f->path);
	}
	return 0;
}

static int touch_mapping(const struct source *s, pid_t pid, const struct map *m, struct error *err)
{
	char link[80], path[4096];
	ssize_t n;

	/* Leads to the file itself, whatever its name is by now; proc(5). */
	snprintf(link, sizeof(link), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, pid, m->start, m->end);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return error_errno(err, errno, "cannot see which file is mapped at %s", link);
	path[n] = 0;
	if (!is_synced(s, path))
		return 0;
	if (utimensat(AT_FDCWD, link, NULL, 0) < 0)
		return error_errno(err, errno, "cannot set the time stamp of %s, which is mapped", path);
	return 0;
}

static int touch_process(const struct source *s, pid_t pid, struct error *err)
{
	_cleanup_maps_ struct maps maps = { 0 };
	int r = maps_read(pid, &maps, err);

	if (r == -ESRCH) /* a zombie maps nothing */
		return 0;
	for (size_t i = 0; i < maps.n_maps && !r; i++) {
		const struct map *m = &maps.maps[i];

		if (m->name == MAP_NAME_FILE && m->shared && m->writable)
			r = touch_mapping(s, pid, m, err);
	}
	return r;
}

int source_touch_mapped(struct source *s, struct error *err)
{
	_cleanup_free_ pid_t *pids = NULL, *image_pids = NULL;
	size_t n;
	int r = s->driver->processes(&s->workload, &pids, &image_pids, &n, err);

	if (!r)
		r = touch_described(s, err);
	for (size_t i = 0; i < n && !r; i++)
		r = touch_process(s, pids[i], err);
	return r;
}
