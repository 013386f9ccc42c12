/*
 * The file system channel: bytes between a local socket (one end of rsync's socketpair) and the peer.
 */
#pragma once

#include "transport/channel.h"

/*
 * Joins the socket and the channel until both directions have ended (each side says so with an empty STREAM frame). Blocks; uses
 * the channel from this thread only. The channel can carry the next pass afterwards. -ECANCELED: cancel_fd (-1: none) became
 * readable. -ETIMEDOUT: nothing, not even "still here", came from the peer for silence_ms (-1: any time).
 */
int stream_pump(struct channel *channel, int socket_fd, int cancel_fd, int64_t silence_ms, struct error *err);

/* The same in a thread of its own, because rsync is waited for meanwhile. The channel is that thread's until the join. When it fails, the
 * socket is shut down, which ends rsync. */
struct stream_thread;

int stream_thread_start(struct channel *channel, int socket_fd, int cancel_fd, int64_t silence_ms,
			struct stream_thread **ret, struct error *err);

/* Waits for stream_pump()'s end and gives its result. Frees t. */
int stream_thread_join(struct stream_thread *t, struct error *err);
