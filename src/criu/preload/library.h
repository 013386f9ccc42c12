/*
 * What the files of libphaul-criu.so share:
 *
 *   libphaul-criu.c   the start, and ioctl(PAGEMAP_SCAN): pages that CRIU need not see
 *   mappings.c        openat() of /proc/PID/smaps: answered without the kernel's walk over all pages
 *   copy.c            memcpy() of long untouched memory: not copied
 *   limits.c          prlimit64 of another user's task
 */
#pragma once

#include <limits.h>
#include <stdbool.h>

#define EXPORTED __attribute__((visibility("default")))

extern struct library {
	bool active;	   /* this is a CRIU that phaul started */
	bool hide, limits; /* what it may do */
	char hide_path[PATH_MAX], status_path[PATH_MAX];
	char flags_path[PATH_MAX + 16]; /* empty: smaps is left alone */
} library;

/* Lets the writer of the flags go on if smaps was not asked for. */
void library_skip_flags(void);

/* Appends `what` to the status file, unless *once. */
void library_say(bool *once, const char *what);
