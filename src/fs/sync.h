/*
 * Bringing a tree over: rsync's own protocol through a stream that phaul owns.
 *
 * The source runs `rsync -aHAXS --numeric-ids --delete [--inplace] -e HELPER PATH/ phaul:PATH/`, where HELPER is this program again
 * (hidden verb `phaul rsync-stream FD`) joining rsync's stdio to an inherited descriptor; the target starts `rsync --server`
 * confined to the agreed directory. What goes between is bytes on `stream_fd`, one end of a socketpair (AF_UNIX, SOCK_STREAM) whose other
 * end migration/ pumps over a channel.
 *
 * stream_fd stays the caller's; it is shut down in both directions when the half has ended, so that the pump sees the end of file. Every
 * program that calls sync_send_start() must hand argv to sync_stream_main() when argv[1] is "rsync-stream".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/process.h"

struct sync_stats {
	uint64_t files;	      /* transferred; the source knows, at the target only ms is filled */
	uint64_t bytes_total; /* size of all files */
	uint64_t bytes_sent;
	uint64_t ms;
};

struct sync;

/* Source: starts one pass over `path` (a directory or a file, absolute). */
int sync_send_start(const char *path, int stream_fd, struct sync **ret, struct error *err);

/* Target: the server half for the same path; rsync itself starts inside of sync_finish(), when the source has spoken. Makes missing parents. `path` comes from a peer: it must be absolute, normalised,
 * and one of those the plan agreed on (the caller checks that; this checks the form). */
int sync_receive_start(const char *path, int stream_fd, struct sync **ret, struct error *err);

/* Waits for the end of that half. err quotes rsync. cancel_fd as in channels, or -1. ret may be NULL. Files that vanished meanwhile are no
 * failure. After a failure the child is gone. */
int sync_finish(struct sync *s, int cancel_fd, uint64_t deadline_ns, struct sync_stats *ret, struct error *err);
void sync_free(struct sync *s); /* kills it if it still runs */

/* The main function of `phaul rsync-stream`: argv as rsync's -e gives it. */
int sync_stream_main(int argc, char **argv);

/* Whether rsync is installed: 0 or -ENOENT with a sentence. */
int sync_check(struct error *err);
