/*
 * What one process has open and mapped, as /proc shows it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/error.h"

#define SCAN_TARGET_MAX 4096

struct scan_fd {
	pid_t pid;
	int fd;
	char target[SCAN_TARGET_MAX]; /* of the link: a path, "pipe:[N]", "anon_inode:[...]" */
	struct stat st;		      /* of what is behind it */
	unsigned int flags;	      /* O_ACCMODE, O_DIRECT, ... as open(2) has them */
	int tty_index;		      /* of a pseudo-terminal's master; -1: none */
};

struct scan_mapping {
	pid_t pid;
	uint64_t start, end;
	char permissions[5]; /* "rw-p" */
	char path[SCAN_TARGET_MAX];
};

/* Called for each; a negative value ends the scan and is returned. */
typedef int scan_fd_fn(void *context, const struct scan_fd *fd);
typedef int scan_mapping_fn(void *context, const struct scan_mapping *m);

/* Descriptors of a process. One closed meanwhile is left out; a process that ended has none. */
int scan_fds(pid_t pid, scan_fd_fn *fn, void *context);

/* Mappings that have a name ("/path", "[heap]", "[uprobes]"), in order of addresses. */
int scan_mappings(pid_t pid, scan_mapping_fn *fn, void *context);

/* A copy of a descriptor of another process (pidfd_getfd(2)), or a negative errno. */
int scan_take_fd(pid_t pid, int fd);

/* Whether a link's text ends in " (deleted)". */
bool scan_deleted(const char *target);
