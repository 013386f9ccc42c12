/*
 * phaul-criu-hook, when the namespaces are there and no socket yet: what was set in the workload's network namespace (tcp_congestion_control,
 * somaxconn) is set in the one that the engine or CRIU has made. CRIU keeps only what is set for single devices.
 *
 * A setting that is so already is not written: some have effects beyond themselves. The namespace of this host is never touched. Nothing here makes the
 * restore fail: what cannot be set is listed, for phaul to tell.
 * Threads: one. Source: criu/cr-restore.c (ACT_POST_SETUP_NS), criu/net.c (the sysctls it restores).
 */
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "criu/preload/hook-settings.h"
#include "criu/preload/protocol.h"

#define VALUE_MAX 512

static bool enter(const char *root)
{
	struct stat ours, theirs;
	char path[64];
	int fd, r;

	snprintf(path, sizeof(path), "/proc/%.16s/ns/net", root);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	r = stat("/proc/self/ns/net", &ours) < 0 || fstat(fd, &theirs) < 0 || ours.st_ino == theirs.st_ino ||
	    setns(fd, CLONE_NEWNET) < 0;
	close(fd);
	return !r;
}

/* Whether it has that value now, or already had. */
static bool set(const char *name, const char *value)
{
	char path[256], now[VALUE_MAX + 1];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/%.200s", name);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, now, sizeof(now) - 1);
	now[n > 0 ? n : 0] = 0;
	now[strcspn(now, "\n")] = 0;
	for (char *tab = now; (tab = strchr(tab, '\t'));)
		*tab = ' ';
	n = strcmp(now, value) ? pwrite(fd, value, strlen(value), 0) : (ssize_t)strlen(value);
	close(fd);
	return n == (ssize_t)strlen(value);
}

void hook_settings(const char *directory, const char *root)
{
	char path[256], *line = NULL;
	FILE *f, *failed = NULL;
	size_t size = 0;
	bool inside;

	snprintf(path, sizeof(path), "%.200s/" HOOK_SETTINGS, directory);
	f = fopen(path, "re");
	if (!f)
		return;
	inside = enter(root);
	snprintf(path, sizeof(path), "%.200s/" HOOK_SETTINGS_FAILED, directory);
	while (inside && getline(&line, &size, f) > 0) {
		char *value = strchr(line, '=');

		if (!value)
			continue;
		*value++ = 0;
		value[strcspn(value, "\n")] = 0;
		if (set(line, value))
			continue;
		if (!failed)
			failed = fopen(path, "we");
		if (failed)
			fprintf(failed, "%s=%s\n", line, value);
	}
	if (failed)
		fclose(failed);
	fclose(f);
	free(line);
}
