/*
 * Direct I/O: a device writes into a page after the fault that pinned it, and no page table shows that write.
 *
 * So pages that a process with such descriptors wrote stay dirty for a window, within which its requests are taken
 * to end: they are reported in every round, once more when the window has passed, and in the final pass, when the tasks are
 * stopped. One thread.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fd.h"
#include "memory/tracker-internal.h"
#include "memory/tracker.h"

static bool is_aio_ring(pid_t pid, const struct map *map)
{
	char path[96], target[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", (int)pid, (unsigned long)map->start,
		 (unsigned long)map->end);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	return !strncmp(target, "/[aio]", 6);
}

/* Only what a path leads to has direct I/O: sockets and pipes, of which a server has thousands, cost one call. */
static bool descriptor_is_direct(int fd_dir, int fdinfo_dir, const char *name)
{
	char text[256];
	const char *flags;

	if (readlinkat(fd_dir, name, text, 1) != 1 || text[0] != '/')
		return false;
	/* pos and flags are the first two lines. */
	if (fd_read_head(fdinfo_dir, name, text, sizeof(text)) <= 0)
		return false;
	flags = strstr(text, "flags:");
	return flags && (strtoul(flags + 6, NULL, 8) & O_DIRECT);
}

bool direct_io_has_ring(pid_t pid, const struct maps *maps)
{
	for (size_t i = 0; i < maps->n_maps; i++)
		if (maps->maps[i].shared && maps->maps[i].name == MAP_NAME_FILE && maps->maps[i].writable &&
		    is_aio_ring(pid, &maps->maps[i]))
			return true;
	return false;
}

bool direct_io_has_descriptor(pid_t pid)
{
	_cleanup_closedir_ DIR *fds = NULL;
	_cleanup_close_ int fdinfo = -1;
	struct dirent *entry;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	fds = opendir(path);
	snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)pid);
	fdinfo = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (fds && fdinfo >= 0 && (entry = readdir(fds)))
		if (entry->d_name[0] != '.' && descriptor_is_direct(dirfd(fds), fdinfo, entry->d_name))
			return true;
	return false;
}

bool tracker_uses_io_uring(pid_t pid)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		char target[64];
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (n < 0)
			continue;
		target[n] = 0;
		if (!strcmp(target, "anon_inode:[io_uring]"))
			return true;
	}
	return false;
}

int direct_io_note(struct direct_io *d, uint64_t now_ns, struct range_set *pages_taken)
{
	struct direct_io_report *grown;

	if (!pages_taken->n_ranges)
		return 0;
	grown = reallocarray(d->reports, d->n_reports + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	d->reports = grown;
	d->reports[d->n_reports++] = (struct direct_io_report){ now_ns, *pages_taken };
	*pages_taken = (struct range_set){ 0 };
	return 0;
}

int direct_io_add(struct direct_io *d, uint64_t now_ns, enum tracker_pass pass, struct range_set *pages)
{
	size_t expired = 0;

	for (size_t i = 0; i < d->n_reports; i++) {
		const struct direct_io_report *report = &d->reports[i];

		int r = range_set_unite(pages, &report->pages);

		if (r < 0)
			return r;
		/* Only a report made after the window may be the last one. */
		if (pass == TRACKER_ROUND && report->at_ns + DIRECT_IO_WINDOW_NS <= now_ns)
			expired = i + 1;
	}
	for (size_t i = 0; i < expired; i++)
		range_set_free(&d->reports[i].pages);
	if (expired)
		memmove(d->reports, d->reports + expired, (d->n_reports - expired) * sizeof(*d->reports));
	d->n_reports -= expired;
	return 0;
}

void direct_io_free(struct direct_io *d)
{
	for (size_t i = 0; i < d->n_reports; i++)
		range_set_free(&d->reports[i].pages);
	free(d->reports);
	*d = (struct direct_io){ 0 };
}
