/*
 * The inside of a channel, for the files of transport/ only.
 *
 * Descriptors are never waited on inside read(2) or write(2): ops try, -EAGAIN says that they would block, and
 * channel_await() is the one place that sleeps. So a timeout, the cancel descriptor and channel_shutdown() reach
 * every blocked call, whatever is below (TCP, unix sockets, pipes).
 */
#pragma once

#include <stdatomic.h>

#include "base/clock.h"
#include "transport/channel.h"
#include "transport/pacer.h"

#define CHANNEL_PEER_MAX 400
#define CHANNEL_IDENTITY_MAX 64

/* What a side that speaks over ssh says first, and how a TCP preamble begins. */
#define PHAUL_GREETING "PHAUL/1\n"
#define PHAUL_GREETING_BYTES 8

struct tls;
struct ssh_child;

struct channel_ops {
	/* What is there: > 0; 0 the peer's direction ended; -EAGAIN nothing yet (err untouched); or an error. */
	ssize_t (*read)(struct channel *c, void *data, size_t length, struct error *err);
	/* Everything, waiting where needed. */
	int (*write)(struct channel *c, const struct iovec *iov, int n_iov, struct error *err);
	/* Whether read() would not say -EAGAIN; `readable`: the descriptor itself was seen to be readable. */
	bool (*pending)(struct channel *c, bool readable);
	int (*finish)(struct channel *c, struct error *err);
	void (*release)(struct channel *c); /* the op's own state, before the descriptors are closed */
};

struct channel {
	const struct channel_ops *ops;
	int read_fd;
	int write_fd; /* may be read_fd; -1 once a pipe's direction is finished */
	int wake_fd;  /* eventfd, readable from channel_shutdown() on */
	int hold_fd;  /* only closed with the channel, for somebody who waits for that; -1: none */
	int cancel_fd;
	bool read_is_socket;
	bool write_is_socket;
	bool read_cut;	/* a read stopped between two bytes of what was asked: the place in the stream is lost */
	bool write_cut; /* the same for writes */
	bool finished;
	int64_t timeout_ms;
	uint64_t deadline_ns; /* while a channel is being made: for all of it, however much progress there is */
	atomic_bool broken;
	atomic_uint_fast64_t bytes_in;
	atomic_uint_fast64_t bytes_out;
	struct pacer *pacer; /* NULL: writes are not held back */
	struct tls *tls;
	struct ssh_child *ssh;
	char peer[CHANNEL_PEER_MAX];
	char identity[CHANNEL_IDENTITY_MAX];
};

/* One attempt on the descriptors: bytes, 0 (end), -EAGAIN or another negative errno. Counts, never raises SIGPIPE. */
ssize_t channel_receive_raw(struct channel *c, void *data, size_t length);
ssize_t channel_send_raw(struct channel *c, const struct iovec *iov, int n_iov);

/* Sleeps until `events` (POLLIN or POLLOUT) on the channel's descriptor. 0, -ETIMEDOUT, -ECANCELED, -ECONNRESET. */
int channel_await(struct channel *c, short events, struct error *err);

/* A failed descriptor in words; returns -ECONNRESET for all that means a broken link. */
int channel_link_error(struct channel *c, int number, struct error *err);

/* The ops of plain descriptors, for those that build on them. */
ssize_t channel_plain_read(struct channel *c, void *data, size_t length, struct error *err);
int channel_plain_write(struct channel *c, const struct iovec *iov, int n_iov, struct error *err);
bool channel_plain_pending(struct channel *c, bool readable);
int channel_plain_finish(struct channel *c, struct error *err);
