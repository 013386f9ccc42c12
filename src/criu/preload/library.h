/*
 * What the files of libphaul-criu.so share:
 *
 *   libphaul-criu.c   the start, and ioctl(PAGEMAP_SCAN): pages that CRIU need not see
 *   mappings.c        openat() of /proc/PID/smaps: answered without the kernel's walk over all pages
 *   copy.c            memcpy() of long untouched memory: not copied
 *   run-id.c          uuid_unparse(): by which name the network is locked
 *   limits.c          prlimit64 of another user's task
 *   conntrack.c       sendmsg() of the question for all tracked connections: not asked where there are none
 *   tmpfs.c           execvp() of tar: the content of a small tmpfs, made and unpacked in the process (archive.c, unarchive.c)
 */
#pragma once

#include <limits.h>
#include <stdbool.h>

#define EXPORTED __attribute__((visibility("default")))

extern struct library {
	bool active;	   /* this is a CRIU that phaul started */
	bool hide, limits; /* what it may do */
	int client;	   /* phaul's pid */
	char hide_path[PATH_MAX], status_path[PATH_MAX];
	char flags_path[PATH_MAX + 16]; /* empty: smaps is left alone */
} library;

/*
 * Opens one of phaul's pipes when phaul has something to say, or will not: waits for that. -1: the phaul that started this CRIU is gone, or there
 * is no pipe. A plain open(2) would wait for ever for a phaul that was killed just before, with all tasks stopped.
 */
int library_open_pipe(const char *path);

/* Lets the writer of the flags go on if smaps was not asked for. */
void library_skip_flags(void);

/* Appends `what` to the status file, unless *once. */
void library_say(bool *once, const char *what);
