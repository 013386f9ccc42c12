/*
 * File descriptors: whole reads and writes, small files, passing descriptors, directories.
 * All return 0 (or a count) or a negative errno, restart on EINTR and create with O_CLOEXEC.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"

/* Exactly `length` bytes, or -EPIPE when the file ended before. */
int fd_read_full(int fd, void *data, size_t length);
int fd_write_full(int fd, const void *data, size_t length);

/* Exactly `length` bytes at `offset`, or -EIO when the file ends before. */
int fd_pread_full(int fd, void *data, size_t length, uint64_t offset);

/* Waits for `events` of poll(2); 1 ready, 0 the deadline passed, or a negative errno. */
int fd_wait(int fd, short events, uint64_t deadline_ns);

/* Appends a whole file to b; -EFBIG when it is longer than `limit` bytes. dir_fd as in openat(2). */
int fd_read_file(int dir_fd, const char *path, size_t limit, struct buffer *b);

/* What one read(2) of a small file gives, of /proc mostly, as a string of at most size - 1 bytes. Its length or a negative errno, and "" then. */
ssize_t fd_read_head(int dir_fd, const char *path, char *text, size_t size);

/* Replaces a file by rename(2), fsynced with its directory. */
int fd_write_file(int dir_fd, const char *path, const void *data, size_t length, mode_t mode);

/* Opens a path that a peer named: never outside dir_fd, no symbolic links, no magic links (openat2(2)). */
int fd_open_beneath(int dir_fd, const char *path, int flags, mode_t mode);

/* The soft limit on descriptors becomes the hard one; what is started afterwards inherits it. */
void fd_raise_limit(void);

/*
 * Makes room in the kernel's table for a few thousand descriptors (as many as the soft limit allows). Before there are threads: a table that
 * grows while several share it waits for an RCU grace period each time it doubles, 5 to 10 ms.
 */
void fd_reserve_table(void);

/* One message with up to 16 descriptors beside `length` >= 1 bytes over a unix socket. */
int fd_send_fds(int socket_fd, const void *data, size_t length, const int *fds, size_t n_fds);

/* Receives such a message: the number of bytes (0: the peer closed), descriptors CLOEXEC in fds;
 * *ret_n_fds <= n_fds. More descriptors than that: all are closed and -E2BIG. */
ssize_t fd_recv_fds(int socket_fd, void *data, size_t length, int *fds, size_t n_fds, size_t *ret_n_fds);

/* mkdir -p with this mode for what is new. */
int dir_make(const char *path, mode_t mode);

/* Removes a directory and all below it, on its own file system only; a missing one is fine. */
int dir_remove(const char *path);

/* Free bytes for root on the file system that holds path. */
int dir_free_bytes(const char *path, uint64_t *ret_bytes);
