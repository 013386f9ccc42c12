/*
 * The file system channel: bytes between a local socket (one end of rsync's socketpair) and the peer.
 */
#pragma once

#include "transport/channel.h"

/*
 * Joins the socket and the channel until both directions have ended (each side says so with an empty STREAM frame). Blocks; uses
 * the channel from this thread only. The channel can carry the next pass afterwards. -ECANCELED: cancel_fd (-1: none) became
 * readable.
 */
int stream_pump(struct channel *channel, int socket_fd, int cancel_fd, struct error *err);
