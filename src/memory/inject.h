/*
 * Making another process open a userfaultfd, and fetching it. See inject.c for how and what stays untouched.
 */
#pragma once

#include <sys/types.h>

#include "base/error.h"
#include "memory/maps.h"

/*
 * pid: the process, tid: the thread to use (preferred; others of the process are tried when it does not stop), pidfd: of the
 * process, maps: its mappings. The thread is stopped for most of the time it takes; gives up on a thread that
 * does not stop within some 200 ms. *ret_fd is ours, CLOEXEC; the process keeps nothing. Fails with -EPERM,
 * -ETIMEDOUT, -ESRCH, -EOPNOTSUPP (not a 64-bit task, another architecture) or what userfaultfd(2) says.
 */
int inject_userfaultfd(pid_t pid, pid_t tid, int pidfd, const struct maps *maps, int *ret_fd, struct error *err);

/* The address of a system call instruction in that memory. -ENOENT: none. */
int inject_find_syscall(pid_t pid, const struct maps *maps, uint64_t *ret);
