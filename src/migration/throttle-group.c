/*
 * The control group that a workload has to itself, and its CPU quota. No state; any thread.
 *
 * Source: Documentation/admin-guide/cgroup-v2.rst (cpu.max), cgroup-v1/cgroups.rst, scheduler/sched-bwc.rst (cpu.cfs_quota_us,
 * cpu.cfs_period_us), proc_pid_mountinfo(5). To itself: not the root group, all its processes are below it, and nobody else's are.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "migration/throttle-internal.h"

#define TEXT_MAX (1U << 20)

static int read_text(const char *path, struct buffer *b)
{
	int r = fd_read_file(AT_FDCWD, path, TEXT_MAX, b);

	return r < 0 ? r : buffer_append(b, "", 1);
}

int throttle_group_write(const char *file, const char *text)
{
	_cleanup_close_ int fd = open(file, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd_write_full(fd, text, strlen(text));
}

/* Whether a comma-separated list holds the word. */
static bool has_word(const char *list, size_t length, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list, *end = list + length; p + n <= end; p++) {
		if ((p == list || p[-1] == ',') && !memcmp(p, word, n) && (p + n == end || p[n] == ','))
			return true;
		while (p < end && *p != ',')
			p++;
	}
	return false;
}

/* The path of a process in the hierarchy of version 2, or in that of version 1 with the cpu controller. */
static int group_of(pid_t pid, bool unified, char ret[PATH_MAX])
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[64], *save = NULL;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	r = read_text(path, &text);
	for (char *line = r < 0 ? NULL : strtok_r((char *)text.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!group)
			continue;
		controllers++;
		if (unified ? group != controllers || strncmp(line, "0:", 2) != 0
			    : !has_word(controllers, (size_t)(group - controllers), "cpu"))
			continue;
		return snprintf(ret, PATH_MAX, "%s", group + 1) < PATH_MAX ? 0 : -ENAMETOOLONG;
	}
	return r < 0 ? r : -ENOENT;
}

/* Where that hierarchy is mounted, and what of it. */
static int find_mount(bool unified, char at[PATH_MAX], char root[PATH_MAX])
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char *save = NULL;
	int r = read_text("/proc/self/mountinfo", &text);

	for (char *line = r < 0 ? NULL : strtok_r((char *)text.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *rest = strstr(line, " - "), type[32], options[512];

		if (!rest || sscanf(line, "%*s %*s %*s %4095s %4095s", root, at) != 2 ||
		    sscanf(rest, " - %31s %*s %511s", type, options) != 2)
			continue;
		if (unified ? !strcmp(type, "cgroup2")
			    : !strcmp(type, "cgroup") && has_word(options, strlen(options), "cpu"))
			return 0;
	}
	return r < 0 ? r : -ENOENT;
}

/* nftw(3) passes nothing through. One thread of a migration does this, but not more than one migration a process. */
static _Thread_local struct walk {
	const pid_t *pids;
	size_t n, inside;
	bool others;
} walk;

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char *save = NULL;

	(void)st;
	if (type != FTW_F || strcmp(path + ftw->base, "cgroup.procs") != 0)
		return 0;
	if (read_text(path, &text) < 0)
		return -1;
	for (char *word = strtok_r((char *)text.data, "\n", &save); word; word = strtok_r(NULL, "\n", &save)) {
		bool known = false;

		for (size_t i = 0; i < walk.n && !known; i++)
			known = walk.pids[i] == atoi(word);
		walk.inside += known;
		walk.others = walk.others || !known;
	}
	return 0;
}

static bool is_own(const char *directory, const pid_t *pids, size_t n)
{
	walk = (struct walk){ .pids = pids, .n = n };
	return nftw(directory, visit, 16, FTW_PHYS) == 0 && !walk.others && walk.inside == n;
}

static int find_in(bool unified, const pid_t *pids, size_t n, char quota_file[PATH_MAX], char period_file[PATH_MAX])
{
	char group[PATH_MAX], at[PATH_MAX], root[PATH_MAX], directory[PATH_MAX];
	const char *below = group;
	int r = group_of(pids[0], unified, group);

	if (!r)
		r = find_mount(unified, at, root);
	if (r < 0)
		return r;
	if (strcmp(root, "/") != 0) {
		if (strncmp(group, root, strlen(root)) != 0)
			return -ENOENT;
		below += strlen(root);
	}
	if (!below[0] || !strcmp(below, "/"))
		return -ENOENT;
	if (snprintf(directory, PATH_MAX, "%s%s", at, below) >= PATH_MAX ||
	    snprintf(quota_file, PATH_MAX, "%s/%s", directory, unified ? "cpu.max" : "cpu.cfs_quota_us") >= PATH_MAX ||
	    snprintf(period_file, PATH_MAX, "%s/%s", directory, "cpu.cfs_period_us") >= PATH_MAX)
		return -ENAMETOOLONG;
	if (unified)
		period_file[0] = 0;
	return access(quota_file, W_OK) < 0 || !is_own(directory, pids, n) ? -ENOENT : 0;
}

int throttle_group_find(const pid_t *pids, size_t n, char quota_file[PATH_MAX], char period_file[PATH_MAX])
{
	return find_in(true, pids, n, quota_file, period_file) == 0 ? 0
								    : find_in(false, pids, n, quota_file, period_file);
}
