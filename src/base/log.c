/*
 * The log: see log.h.
 *
 * Threads: any; a line is formatted on the stack and leaves in one write(2). Nothing here allocates, so a
 * process with locked memory and no room left can still say why it fails.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#define LOG_LINE_MAX 2048

static _Atomic int log_level = LOG_WARNING;
static _Atomic int log_file_fd = -1;
static const char *_Atomic log_name;
static _Atomic bool log_live;

void log_set_level(enum log_level level)
{
	log_level = (int)level;
}

enum log_level log_get_level(void)
{
	return (enum log_level)log_level;
}

bool log_in_detail(void)
{
	return log_level >= LOG_DEBUG || log_file_fd >= 0;
}

void log_set_name(const char *name)
{
	log_name = name;
}

void log_set_live(bool live)
{
	log_live = live;
}

int log_open_file(const char *path, struct error *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_errno(err, errno, "cannot open the log file %s", path);
	fd = atomic_exchange(&log_file_fd, fd);
	if (fd >= 0)
		close(fd);
	return 0;
}

static void log_put(int fd, const char *line, size_t length)
{
	ssize_t n;

	do {
		n = write(fd, line, length);
	} while (n < 0 && errno == EINTR);
}

void log_write(enum log_level level, const char *fmt, ...)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	char text[LOG_LINE_MAX], line[LOG_LINE_MAX + 128];
	int saved = errno, fd = log_file_fd, n;
	const char *name = log_name;
	va_list ap;

	if ((int)level > log_level && fd < 0)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* What a peer or a program said may be in it: one line stays one line, and no terminal obeys it. */
	error_tidy(text);
	if ((int)level <= log_level) {
		n = snprintf(line, sizeof(line), "%sphaul%s%s: %s%s\n", log_live ? "\r\033[K" : "", name ? " " : "",
			     name ? name : "", level == LOG_WARNING ? "warning: " : "", text);
		log_put(STDERR_FILENO, line, MIN((size_t)n, sizeof(line) - 1));
	}
	if (fd >= 0) {
		struct timespec now;
		struct tm tm;
		char stamp[32];

		clock_gettime(CLOCK_REALTIME, &now);
		gmtime_r(&now.tv_sec, &tm);
		strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
		n = snprintf(line, sizeof(line), "%s.%06ldZ %d %s %s%s%s\n", stamp, now.tv_nsec / 1000, (int)getpid(),
			     names[level], name ? name : "", name ? ": " : "", text);
		log_put(fd, line, MIN((size_t)n, sizeof(line) - 1));
	}
	errno = saved;
}
