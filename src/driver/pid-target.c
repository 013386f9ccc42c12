/*
 * What would stop a restore of a bare process tree on this host: pids, files, memory. No state; any thread.
 *
 * The workload comes from the peer: numbers are compared, never trusted as an index or a path to write to.
 */
#include "driver/pid.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "base/fd.h"
#include "driver/files.h"
#include "driver/group.h"

#define PIDS_NAMED_MAX 4	       /* in one sentence */
#define CGROUP_LIMIT_NONE (1ULL << 62) /* v1 shows "no limit" as a number near 2^63 */

/* The first number of a file; a negative errno when it holds none ("max"). */
static int read_number(const char *path, uint64_t *ret)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	int r = fd_read_file(AT_FDCWD, path, 65536, &text);
	char *end;
	uint64_t value;

	if (r < 0)
		return r;
	if (!text.length)
		return -ENODATA;
	errno = 0;
	value = strtoull((char *)text.data, &end, 10);
	if (errno || end == (char *)text.data)
		return -ERANGE;
	*ret = value;
	return 0;
}

/* A number in use: a process, one of its threads (/proc/TID exists too), or the session or group that a dead leader left behind. */
static bool pid_in_use(pid_t pid)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", pid);
	return !access(path, F_OK) || !kill(-pid, 0) || errno == EPERM;
}

static int name_process(pid_t pid, char *text, size_t size)
{
	struct tree_process p;

	if (tree_read_process(pid, &p, NULL) < 0)
		return snprintf(text, size, "%d", pid);
	return snprintf(text, size, "%d (%s)", pid, p.name);
}

/* Sessions in use whose leader is gone and whose groups have other numbers are only seen by asking every process. */
static int session_in_use(const pid_t *pids, size_t n, pid_t *ret)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc");
	struct dirent *entry;

	*ret = 0;
	if (!dir)
		return -errno;
	while (!*ret && (entry = readdir(dir))) {
		pid_t session;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		session = getsid(atoi(entry->d_name));
		for (size_t i = 0; i < n && session > 0; i++)
			if (pids[i] == session)
				*ret = session;
	}
	return 0;
}

static int check_pids(const struct workload *w, struct obstacles *o)
{
	char names[256] = "";
	size_t taken = 0, length = 0;
	pid_t session = 0;
	int r;

	for (size_t i = 0; i < w->n_pids; i++) {
		if (w->pids[i] <= 0 || !pid_in_use(w->pids[i]))
			continue;
		if (taken++ >= PIDS_NAMED_MAX)
			continue;
		if (length)
			length += (size_t)snprintf(names + length, sizeof(names) - length, ", ");
		length += (size_t)name_process(w->pids[i], names + length, sizeof(names) - length);
	}
	if (!taken) {
		r = session_in_use(w->pids, w->n_pids, &session);
		if (r < 0 || !session)
			return r;
		taken = 1;
		snprintf(names, sizeof(names), "%d (a session)", session);
	}
	return obstacles_add(
		o, OBSTACLE_REFUSES, true,
		"end those processes, or run the workload in a pid namespace of its own (a container, unshare --pid)",
		"%zu of the workload's %zu process numbers %s in use at the target: %s%s", taken, w->n_pids,
		taken == 1 ? "is" : "are", names, taken > PIDS_NAMED_MAX ? ", ..." : "");
}

static int check_pid_max(const struct workload *w, struct obstacles *o)
{
	uint64_t limit;
	pid_t largest = 0;

	if (read_number("/proc/sys/kernel/pid_max", &limit) < 0)
		return 0;
	for (size_t i = 0; i < w->n_pids; i++)
		largest = MAX(largest, w->pids[i]);
	if ((uint64_t)largest < limit)
		return 0;
	return obstacles_add(o, OBSTACLE_REFUSES, true, "raise /proc/sys/kernel/pid_max at the target",
			     "the workload uses process number %d and the target allows less than %" PRIu64, largest,
			     limit);
}

static uint64_t meminfo_available(void)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	const char *line;

	if (fd_read_file(AT_FDCWD, "/proc/meminfo", 65536, &text) < 0 || !text.length)
		return UINT64_MAX;
	line = strstr((char *)text.data, "MemAvailable:");
	return line ? strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024 : UINT64_MAX;
}

/* What limit minus usage leaves in a cgroup directory; UINT64_MAX: no limit. */
static uint64_t cgroup_room(const char *directory, const char *limit_name, const char *usage_name)
{
	char path[4400];
	uint64_t limit, usage;

	snprintf(path, sizeof(path), "%s/%s", directory, limit_name);
	if (read_number(path, &limit) < 0 || limit >= CGROUP_LIMIT_NONE)
		return UINT64_MAX;
	snprintf(path, sizeof(path), "%s/%s", directory, usage_name);
	if (read_number(path, &usage) < 0)
		return UINT64_MAX;
	return limit > usage ? limit - usage : 0;
}

static int look_at_group(void *context, const char *hierarchy, char *path, bool unified)
{
	char directory[PATH_MAX], *slash;
	uint64_t *room = context;

	if (!unified && strcmp(hierarchy, "memory") != 0)
		return 0;
	snprintf(directory, sizeof(directory), GROUP_ROOT "/%.64s%.3900s", hierarchy, path);
	while ((slash = strrchr(directory, '/')) && strlen(directory) >= strlen(GROUP_ROOT)) {
		uint64_t here = unified ? cgroup_room(directory, "memory.max", "memory.current")
					: cgroup_room(directory, "memory.limit_in_bytes", "memory.usage_in_bytes");

		*room = MIN(*room, here);
		*slash = 0;
	}
	return 0;
}

/* The tightest of our own memory cgroup and those above it: what is restored starts as our child. */
static uint64_t cgroup_available(void)
{
	uint64_t room = UINT64_MAX;

	(void)group_each_own(look_at_group, &room);
	return room;
}

/* Huge pages come out of a pool of their own. Only those of 2 MiB are counted: the usual ones. */
static int check_huge_pages(const struct workload *w, struct obstacles *o)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	unsigned long long free_pages = 0;

	if (!w->hugetlb_bytes)
		return 0;
	if (fd_read_file(AT_FDCWD, "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", 64, &text) == 0)
		(void)sscanf((const char *)text.data, "%llu", &free_pages);
	if (free_pages << 21 >= w->hugetlb_bytes)
		return 0;
	return obstacles_add(o, OBSTACLE_REFUSES, true, "raise /proc/sys/vm/nr_hugepages there",
			     "the workload has %" PRIu64 " MiB of huge pages and the target has %llu MiB of them free",
			     w->hugetlb_bytes >> 20, free_pages << 1);
}

static int check_memory(const struct workload *w, struct obstacles *o)
{
	uint64_t host = meminfo_available(), cgroup = cgroup_available(), available = MIN(host, cgroup);

	if (available >= w->resident_bytes)
		return 0;
	return obstacles_add(o, OBSTACLE_REFUSES, true,
			     cgroup < host ? "raise the memory limit of phaul's cgroup at the target"
					   : "free memory at the target, or take another one",
			     "the workload has %" PRIu64 " MiB in memory and the target has room for %" PRIu64 " MiB%s",
			     w->resident_bytes >> 20, available >> 20,
			     cgroup < host ? " (the limit of the cgroup that phaul runs in)" : "");
}

int pid_check_room(const struct workload *w, struct obstacles *ret, struct error *err)
{
	int r = check_memory(w, ret);

	if (!r)
		r = check_huge_pages(w, ret);
	return r < 0 ? error_errno(err, -r, "cannot compare the workload's memory with this host") : 0;
}

int pid_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
		     struct error *err)
{
	int r = 0;

	if (!w->own_pid_namespace) {
		r = check_pids(w, ret);
		if (!r)
			r = check_pid_max(w, ret);
	}
	if (r < 0)
		return error_errno(err, -r, "cannot compare the workload with this host");
	r = pid_check_room(w, ret, err);
	return r < 0 ? r : files_check_target(w, options, ret, err);
}
