/*
 * Bringing a tree over: rsync's own protocol through a stream that phaul owns.
 *
 * The source runs rsync with this program again as its remote shell (hidden verb `phaul rsync-stream FD`), joining rsync's stdio to an
 * inherited descriptor; the target starts `rsync --server` confined to the agreed directory, whose path is the target's own
 * affair. What goes between is bytes on `stream_fd`, one end of a socketpair (AF_UNIX, SOCK_STREAM) whose other
 * end migration/ pumps over a channel.
 *
 * A pass is whole, or by a list of names (changes.h): then both halves start at once and wait for sync_feed().
 *
 * stream_fd stays the caller's; when the half has ended, or a moment later, it has been shut down, so that the pump sees the end of file. Every
 * program that calls sync_send_start() must hand argv to sync_stream_main() when argv[1] is "rsync-stream".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/process.h"

/* What the source brings over. */
struct sync_tree {
	const char *path; /* a directory or a file, absolute */
	const char *const *
		excludes; /* paths below it that stay as they are on either side, relative, NULL-terminated; NULL: none */
};

/* Whether a path, relative to the tree, is excluded or lies in what is. */
bool sync_tree_excludes(const struct sync_tree *tree, const char *path);

struct sync_stats {
	uint64_t files;	      /* transferred; the source knows, at the target only ms is filled */
	uint64_t bytes_total; /* size of all files */
	uint64_t bytes_sent;
	uint64_t ms;
};

struct sync;

/* Source: starts one pass. listed: for directories, to be fed before sync_finish(). */
int sync_send_start(const struct sync_tree *tree, bool listed, int stream_fd, struct sync **ret, struct error *err);

/* The names that a listed pass is about. The list is taken over, and empty afterwards. */
void sync_feed(struct sync *s, struct buffer *list);

/* Target: the server half, for a path of its own; rsync itself starts inside of sync_finish(), when the source has spoken. Makes missing parents.
 * `path` may come from a peer: it must be absolute, normalised, and one of those the plan agreed on (the caller checks that; this checks the
 * form). stay_apart: the mounts that it is on may be taken away meanwhile (apart.h). */
int sync_receive_start(const char *path, bool stay_apart, int stream_fd, struct sync **ret, struct error *err);

/* Waits for the end of that half. At the source it says that the target has everything in place: the target's last words, after its files
 * and directories are closed, come before rsync's end here. err quotes rsync. cancel_fd as in channels, or -1. ret may be NULL. Files that vanished meanwhile are no
 * failure. After a failure the child is gone. */
int sync_finish(struct sync *s, int cancel_fd, uint64_t deadline_ns, struct sync_stats *ret, struct error *err);
void sync_free(struct sync *s); /* kills it if it still runs */

/* The main function of `phaul rsync-stream`: argv as rsync's -e gives it. */
int sync_stream_main(int argc, char **argv);

/* Whether rsync is installed: 0 or -ENOENT with a sentence. */
int sync_check(struct error *err);
