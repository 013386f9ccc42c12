/*
 * The log: lines on stderr, and in a file when one was asked for.
 *
 * The level is the only global state of the program. Lines of one call are written with one write(2), so
 * that processes may share a log file.
 */
#pragma once

#include <stdbool.h>

#include "base/error.h"

enum log_level {
	LOG_ERROR,
	LOG_WARNING,
	LOG_INFO,
	LOG_DEBUG,
};

/* What goes to stderr: everything up to this level. The file, if any, gets everything. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* Opens (creates, appends to) the log file. 0 or a negative errno. */
int log_open_file(const char *path, struct error *err);

/* Whether somebody reads every line: on stderr or in the file. */
bool log_in_detail(void);

/* A name in front of each line ("pager", "worker"); kept by reference. */
void log_set_name(const char *name);

/* A line on stderr is being redrawn (a terminal): each line of the log erases it first. */
void log_set_live(bool live);

void log_write(enum log_level level, const char *fmt, ...) _printf_(2, 3);

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
