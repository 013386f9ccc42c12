/*
 * Logs that outlive their directory: see logs.h. No state; any thread.
 */
#include "base/logs.h"

#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define LOG_MAX (2U << 20) /* the newest 200 migrations are kept */

static void copy_log(const char *from, const char *to, const char *name)
{
	_cleanup_buffer_ struct buffer content = { 0 };
	char path[4400];

	snprintf(path, sizeof(path), "%s/%s", from, name);
	if (fd_read_file(AT_FDCWD, path, LOG_MAX, &content) < 0 || !content.length)
		return;
	snprintf(path, sizeof(path), "%s/%s", to, name);
	(void)fd_write_file(AT_FDCWD, path, content.data, content.length, 0600);
}

static void rename_in(char *text, size_t size, const char *from, const char *to)
{
	size_t n = strlen(from), length = strlen(to);

	for (char *at = text; (at = strstr(at, from)); at += length) {
		size_t rest = strlen(at + n) + 1;

		if ((size_t)(at - text) + length + rest > size)
			return;
		memmove(at + length, at + n, rest);
		memcpy(at, to, length);
	}
}

void logs_keep(const char *from, const char *to, char *text, size_t size)
{
	_cleanup_closedir_ DIR *d = opendir(from);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		size_t n = strlen(e->d_name);

		if (n > 4 && !strcmp(e->d_name + n - 4, ".log"))
			copy_log(from, to, e->d_name);
	}
	rename_in(text, size, from, to);
}
