/*
 * The file system channel: see stream.h. One thread per pass.
 *
 * Invariants: no byte of one pass can be taken for the next one's, because a pass is over only when both ends have sent and seen
 * the empty frame. The local socket is never waited for while the channel has something to say: rsync fills both directions at
 * once, and two pumps that each wait for the other's reader would stand still for ever; so what arrives is queued (up to
 * QUEUE_BYTES, far more than rsync sends unasked). For the same reason nothing is written to the channel before it is writable: a
 * pump that waits inside of a write does not read.
 *
 * rsync may say nothing for minutes while it compares files, so silence alone does not tell whether the peer is still there: until a side
 * has sent its end, its pump, which never waits for rsync, says "still here" (a BARRIER of round 0) when it had nothing else to send.
 */
#include "migration/stream.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "wire/frame.h"

/* A frame that fits whenever poll(2) calls a socket writable: a third of a send buffer, at least, is free then. */
#define STREAM_BYTES (16U << 10)
#define QUEUE_BYTES (64U << 20)
#define STILL_HERE_MS 500

struct pump {
	struct channel *channel;
	int fd;
	bool out_open, in_open; /* local to peer, peer to local */
	bool out_ready;		/* the local socket has something, and the channel is to be writable first */
	bool alive_due;		/* the same for "still here" */
	uint64_t spoke_ns, heard_ns;
	uint8_t *bytes;	     /* FRAME_STREAM_MAX */
	struct buffer queue; /* arrived, not yet written to fd */
	size_t queue_done;
};

/* Local bytes to the peer. A read error is the end: the helper was killed, and its exit status says why. */
static int pump_out(struct pump *p, struct error *err)
{
	uint8_t header[FRAME_HEADER_BYTES];
	struct iovec iov[2] = { { header, sizeof(header) }, { p->bytes, 0 } };
	ssize_t n = recv(p->fd, p->bytes, STREAM_BYTES, MSG_DONTWAIT);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	n = MAX(n, (ssize_t)0);
	p->out_open = n > 0;
	frame_encode_header(header, FRAME_STREAM, (uint32_t)n);
	iov[1].iov_len = (size_t)n;
	p->spoke_ns = clock_now_ns();
	return channel_writev(p->channel, iov, n ? 2 : 1, err);
}

static int pump_still_here(struct pump *p, struct error *err)
{
	uint8_t frame[FRAME_HEADER_BYTES + FRAME_BARRIER_BYTES];

	frame_encode_barrier(frame, 0);
	p->spoke_ns = clock_now_ns();
	return channel_write(p->channel, frame, sizeof(frame), err);
}

/* As much of the queue as the socket takes; a broken socket swallows it. */
static void pump_queue(struct pump *p)
{
	while (p->queue_done < p->queue.length) {
		ssize_t n = send(p->fd, p->queue.data + p->queue_done, p->queue.length - p->queue_done,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0 && errno != EINTR)
			n = (ssize_t)(p->queue.length - p->queue_done);
		p->queue_done += (size_t)MAX(n, (ssize_t)0);
	}
	p->queue.length = p->queue_done = 0;
	if (!p->in_open)
		shutdown(p->fd, SHUT_WR);
}

static int pump_in(struct pump *p, struct error *err)
{
	uint8_t header[FRAME_HEADER_BYTES];
	struct frame_header h;
	uint32_t round = 0;
	int r = channel_read(p->channel, header, sizeof(header), err);

	if (!r)
		r = frame_decode_header(header, &h, err);
	if (r < 0)
		return r;
	p->heard_ns = clock_now_ns();
	if (h.type == FRAME_BARRIER) {
		r = channel_read(p->channel, p->bytes, h.length, err);
		if (!r)
			r = frame_decode_barrier(p->bytes, h.length, &round, err);
		if (r < 0 || !round)
			return r;
	}
	if (h.type != FRAME_STREAM)
		return error_set(err, EPROTO, "%s sent a frame of type %d on the file channel",
				 channel_peer(p->channel), (int)h.type);
	r = channel_read(p->channel, p->bytes, h.length, err);
	if (!r && buffer_append(&p->queue, p->bytes, h.length) < 0)
		r = error_set(err, ENOMEM, "no memory for the file channel");
	if (r < 0)
		return r;
	p->in_open = h.length > 0;
	pump_queue(p);
	return 0;
}

/* How long to sleep until "still here" is due here, or was at the other side. */
static int pump_sleep_ms(struct pump *p, bool listen, uint64_t silence_ns)
{
	uint64_t now = clock_now_ns(), until = UINT64_MAX;

	if (!listen)
		p->heard_ns = now; /* what has come lies unread: no silence */
	if (p->in_open && silence_ns < UINT64_MAX)
		until = p->heard_ns + silence_ns;
	if (p->out_open) {
		p->alive_due = p->alive_due || now >= p->spoke_ns + STILL_HERE_MS * NS_PER_MS;
		until = MIN(until, p->alive_due ? UINT64_MAX : p->spoke_ns + STILL_HERE_MS * NS_PER_MS);
	}
	return until == UINT64_MAX ? -1 : deadline_poll_ms(until);
}

/* What goes to the peer when the channel takes it: rsync's bytes, which also say that we are here. */
static int pump_speak(struct pump *p, struct error *err)
{
	bool bytes = p->out_ready;

	p->out_ready = p->alive_due = false;
	return bytes ? pump_out(p, err) : p->out_open ? pump_still_here(p, err) : 0;
}

static int pump_run(struct pump *p, int cancel_fd, int64_t silence_ms, struct error *err)
{
	uint64_t silence_ns = silence_ms < 0 ? UINT64_MAX : (uint64_t)silence_ms * NS_PER_MS;

	p->spoke_ns = p->heard_ns = clock_now_ns();
	while (p->out_open || p->in_open || p->queue.length) {
		bool listen = p->in_open && p->queue.length - p->queue_done < QUEUE_BYTES;
		bool pending = listen && channel_has_pending(p->channel);
		bool local_in = p->out_open && !p->out_ready;
		int sleep_ms = pump_sleep_ms(p, listen, silence_ns);
		bool speak = p->out_ready || p->alive_due;
		struct pollfd fds[3] = {
			{ .fd = local_in || p->queue.length ? p->fd : -1,
			  .events = (short)((local_in ? POLLIN : 0) | (p->queue.length ? POLLOUT : 0)) },
			{ .fd = listen || speak ? channel_poll_fd(p->channel) : -1,
			  .events = (short)((listen ? POLLIN : 0) | (speak ? POLLOUT : 0)) },
			{ .fd = cancel_fd, .events = POLLIN },
		};
		int r = 0;

		if (poll(fds, 3, pending ? 0 : sleep_ms) < 0 && errno != EINTR)
			return error_errno(err, errno, "cannot wait for the file channel");
		if (fds[2].revents)
			return error_set(err, ECANCELED, "canceled while files were copied");
		if (p->queue.length && (fds[0].revents & (POLLOUT | POLLERR | POLLHUP)))
			pump_queue(p);
		if (speak && (fds[1].revents & (POLLOUT | POLLERR | POLLHUP)))
			r = pump_speak(p, err);
		else if (local_in && (fds[0].revents & (POLLIN | POLLERR | POLLHUP)))
			p->out_ready = true;
		if (r >= 0 && (pending || (listen && (fds[1].revents & (POLLIN | POLLERR | POLLHUP)))))
			r = pump_in(p, err);
		else if (!r && listen && silence_ns < UINT64_MAX && clock_now_ns() >= p->heard_ns + silence_ns)
			r = error_set(err, ETIMEDOUT, "%s was silent for %.1f s while files were copied",
				      channel_peer(p->channel), (double)silence_ms / 1000);
		if (r < 0)
			return r;
	}
	return 0;
}

int stream_pump(struct channel *channel, int socket_fd, int cancel_fd, int64_t silence_ms, struct error *err)
{
	struct pump p = { .channel = channel, .fd = socket_fd, .out_open = true, .in_open = true };
	int r;

	p.bytes = malloc(FRAME_STREAM_MAX);
	if (!p.bytes)
		return error_set(err, ENOMEM, "no memory for the file channel");
	r = pump_run(&p, cancel_fd, silence_ms, err);
	free(p.bytes);
	buffer_free(&p.queue);
	return r;
}

struct stream_thread {
	pthread_t thread;
	struct channel *channel;
	int fd, cancel_fd, result;
	int64_t silence_ms;
	struct error err;
};

static void *stream_thread_main(void *arg)
{
	struct stream_thread *t = arg;

	t->result = stream_pump(t->channel, t->fd, t->cancel_fd, t->silence_ms, &t->err);
	/* rsync would wait for ever for the other half. */
	if (t->result < 0)
		shutdown(t->fd, SHUT_RDWR);
	return NULL;
}

int stream_thread_start(struct channel *channel, int socket_fd, int cancel_fd, int64_t silence_ms,
			struct stream_thread **ret, struct error *err)
{
	struct stream_thread *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return error_set(err, ENOMEM, "no memory for the file channel");
	*t = (struct stream_thread){
		.channel = channel, .fd = socket_fd, .cancel_fd = cancel_fd, .silence_ms = silence_ms
	};
	r = pthread_create(&t->thread, NULL, stream_thread_main, t);
	if (r) {
		free(t);
		return error_errno(err, r, "cannot start a thread for the file channel");
	}
	*ret = t;
	return 0;
}

int stream_thread_join(struct stream_thread *t, struct error *err)
{
	int r;

	pthread_join(t->thread, NULL);
	r = t->result;
	if (r < 0 && err)
		*err = t->err;
	free(t);
	return r;
}
