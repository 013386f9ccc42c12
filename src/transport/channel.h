/*
 * A channel: a two-way stream of bytes to the peer, encrypted and authenticated below this interface.
 *
 * Blocking calls with a deadline of silence and a cancel descriptor. A call that fails before anything of it has
 * moved (-ETIMEDOUT, -ECANCELED) may be repeated; one that fails in the middle of its bytes leaves that direction
 * failed (-ECONNRESET from then on), so that nobody goes on in the middle of a message. SIGPIPE is never raised.
 * A channel is used by one thread at a time (TLS state is not shared); channel_shutdown() and the counters may be
 * used from any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

struct channel;

#define _cleanup_channel_ _cleanup_(channel_freep)

/* A channel over plain descriptors (unix socket, ssh's stdio). They may be the same; both are taken over.
 * name is what errors call the peer. */
int channel_new_plain(int read_fd, int write_fd, const char *name, struct channel **ret, struct error *err);

/* Exactly `length` bytes. -ECONNRESET (the peer closed or the link broke), -ETIMEDOUT (silence longer
 * than the timeout), -ECANCELED (the cancel descriptor became readable); err names the peer. */
int channel_read(struct channel *c, void *data, size_t length, struct error *err);

/* At least 1 and at most `length` bytes, or 0 when the peer has ended its direction cleanly. */
ssize_t channel_read_some(struct channel *c, void *data, size_t length, struct error *err);

/* All bytes of all vectors. Errors as channel_read(). The vectors are not changed. */
int channel_writev(struct channel *c, const struct iovec *iov, int n_iov, struct error *err);
int channel_write(struct channel *c, const void *data, size_t length, struct error *err);

/* Milliseconds of silence after which a read or write gives up; negative: never (the default). */
void channel_set_timeout(struct channel *c, int64_t ms);

/* A blocking call ends with -ECANCELED once this descriptor is readable; -1: none. Not owned. */
void channel_set_cancel_fd(struct channel *c, int fd);

/* Writes wait their turn with this pacer, which several channels may share; NULL: none. Not owned. */
struct pacer;
void channel_set_pacer(struct channel *c, struct pacer *pacer);

/* Whether bytes wait to be read without blocking; waits until the deadline. 1, 0 or a negative errno. */
int channel_wait_readable(struct channel *c, uint64_t deadline_ns);

/* The descriptor to poll for reading, for loops that watch more than one thing. Bytes may already wait
 * inside TLS: ask channel_has_pending() before polling. */
int channel_poll_fd(const struct channel *c);
bool channel_has_pending(const struct channel *c);

/* Ends our direction: the peer's read_some() gives 0. Whoever frees a channel without it breaks the link for the
 * peer (-ECONNRESET under TLS); after the last message, finish and read until 0, or it may be lost. */
int channel_finish(struct channel *c, struct error *err);

/* Breaks the link: any blocked call ends with -ECONNRESET. From any thread. */
void channel_shutdown(struct channel *c);

/* Bytes that went over the descriptors so far, encryption included. */
uint64_t channel_bytes_out(const struct channel *c);
uint64_t channel_bytes_in(const struct channel *c);

/* The peer as a person would name it: "beta (10.77.0.2:7433)"; the certificate's name where there is one. */
const char *channel_peer(const struct channel *c);

/* The name in the peer's certificate, "" for plain channels. */
const char *channel_peer_identity(const struct channel *c);

void channel_free(struct channel *c);
static inline void channel_freep(struct channel **c)
{
	channel_free(*c);
}
