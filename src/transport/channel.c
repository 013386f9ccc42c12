/*
 * Channels: the waiting, the counting and the public calls; the ops of plain descriptors.
 *
 * Invariants: no call blocks anywhere but in channel_await(). Once part of what a call should move has moved and
 * the call failed, that direction stays failed (read_cut, write_cut), so that nobody goes on in the middle of a
 * message. SIGPIPE is never raised: MSG_NOSIGNAL on sockets, blocked around writes to pipes.
 * Threads: one at a time, except channel_shutdown() and the counters.
 */
#include "transport/channel.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "transport/channel-internal.h"

#define PIPE_BYTES (1 << 20)
#define IOV_PER_CALL 64

static const struct channel_ops plain_ops = {
	.read = channel_plain_read,
	.write = channel_plain_write,
	.pending = channel_plain_pending,
	.finish = channel_plain_finish,
};

/* Sockets are used with MSG_DONTWAIT; anything else has to be made non-blocking. Pipes are widened, as far as
 * the kernel lets us: 64 KiB would mean a context switch for each of them. */
static int prepare_fd(int fd, bool *ret_is_socket)
{
	struct stat st;
	int flags;

	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_is_socket = S_ISSOCK(st.st_mode);
	if (*ret_is_socket)
		return 0;
	if (S_ISFIFO(st.st_mode))
		(void)fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

int channel_new_plain(int read_fd, int write_fd, const char *name, struct channel **ret, struct error *err)
{
	_cleanup_channel_ struct channel *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		close(read_fd);
		if (write_fd != read_fd)
			close(write_fd);
		return error_set(err, ENOMEM, "no memory for a channel to %s", name);
	}
	c->ops = &plain_ops;
	c->read_fd = read_fd;
	c->write_fd = write_fd;
	c->hold_fd = c->cancel_fd = -1;
	c->timeout_ms = -1;
	c->deadline_ns = DEADLINE_NEVER;
	snprintf(c->peer, sizeof(c->peer), "%s", name);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = c->wake_fd < 0 ? -errno : prepare_fd(read_fd, &c->read_is_socket);
	if (!r)
		r = prepare_fd(write_fd, &c->write_is_socket);
	if (r < 0)
		return error_errno(err, -r, "cannot use the connection to %s", name);
	*ret = TAKE_PTR(c);
	return 0;
}

void channel_free(struct channel *c)
{
	if (!c)
		return;
	if (c->ops->release)
		c->ops->release(c);
	if (c->write_fd != c->read_fd)
		close_fd(&c->write_fd);
	close_fd(&c->read_fd);
	close_fd(&c->hold_fd);
	close_fd(&c->wake_fd);
	free(c);
}

ssize_t channel_receive_raw(struct channel *c, void *data, size_t length)
{
	ssize_t n;

	do {
		n = c->read_is_socket ? recv(c->read_fd, data, length, MSG_DONTWAIT) : read(c->read_fd, data, length);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	atomic_fetch_add_explicit(&c->bytes_in, (uint_fast64_t)n, memory_order_relaxed);
	return n;
}

/* writev(2) with SIGPIPE held back for this thread, and taken away when this very write raised it. */
static ssize_t writev_quietly(int fd, const struct iovec *iov, int n_iov)
{
	static const struct timespec now = { 0 };
	sigset_t pipe_only, before, waiting;
	ssize_t n;

	sigemptyset(&pipe_only);
	sigaddset(&pipe_only, SIGPIPE);
	sigpending(&waiting);
	pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
	n = writev(fd, iov, n_iov);
	if (n < 0)
		n = -errno;
	if (n == -EPIPE && !sigismember(&waiting, SIGPIPE))
		while (sigtimedwait(&pipe_only, NULL, &now) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return n;
}

ssize_t channel_send_raw(struct channel *c, const struct iovec *iov, int n_iov)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n_iov };
	ssize_t n;

	if (c->write_fd < 0)
		return -EPIPE;
	do {
		if (!c->write_is_socket) {
			n = writev_quietly(c->write_fd, iov, n_iov);
		} else {
			n = sendmsg(c->write_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
			n = n < 0 ? -errno : n;
		}
	} while (n == -EINTR);
	if (n > 0)
		atomic_fetch_add_explicit(&c->bytes_out, (uint_fast64_t)n, memory_order_relaxed);
	return n;
}

int channel_link_error(struct channel *c, int number, struct error *err)
{
	switch (number) {
	case 0:
		return error_set(err, ECONNRESET, "%s closed the connection", c->peer);
	case ECONNRESET:
	case EPIPE:
		return error_set(err, ECONNRESET, "the connection to %s was reset", c->peer);
	default:
		return error_set(err, ECONNRESET, "the connection to %s broke: %s", c->peer, strerror(number));
	}
}

static int shut_down_here(struct channel *c, struct error *err)
{
	return error_set(err, ECONNRESET, "the connection to %s was ended on this side", c->peer);
}

int channel_await(struct channel *c, short events, struct error *err)
{
	uint64_t begin = clock_now_ns();
	uint64_t deadline = MIN(deadline_in_ms(c->timeout_ms), c->deadline_ns);
	struct pollfd p[3] = {
		{ .fd = events & POLLOUT ? c->write_fd : c->read_fd, .events = events },
		{ .fd = c->wake_fd, .events = POLLIN },
		{ .fd = c->cancel_fd, .events = POLLIN },
	};

	for (;;) {
		int r = poll(p, ARRAY_SIZE(p), deadline_poll_ms(deadline));

		if (r < 0 && errno != EINTR)
			return error_errno(err, errno, "cannot wait for %s", c->peer);
		if (r > 0 && p[1].revents)
			return shut_down_here(c, err);
		if (r > 0 && p[2].revents)
			return error_set(err, ECANCELED, "canceled while waiting for %s", c->peer);
		if (r > 0)
			return 0;
		if (clock_now_ns() >= deadline)
			return error_set(err, ETIMEDOUT, "%s %s for %.1f s", c->peer,
					 events & POLLOUT ? "took no data" : "did not answer",
					 (double)(clock_now_ns() - begin) / NS_PER_S);
	}
}

/* Before anything is moved: has the channel been shut down or the work canceled? A stream that never makes us
 * wait would otherwise not notice. */
static int check_stop(struct channel *c, struct error *err)
{
	struct pollfd p = { .fd = c->cancel_fd, .events = POLLIN };

	if (atomic_load_explicit(&c->broken, memory_order_relaxed))
		return shut_down_here(c, err);
	if (c->cancel_fd >= 0 && poll(&p, 1, 0) > 0)
		return error_set(err, ECANCELED, "canceled while talking to %s", c->peer);
	return 0;
}

ssize_t channel_plain_read(struct channel *c, void *data, size_t length, struct error *err)
{
	ssize_t n = channel_receive_raw(c, data, length);

	return n >= 0 || n == -EAGAIN ? n : channel_link_error(c, (int)-n, err);
}

int channel_plain_write(struct channel *c, const struct iovec *iov, int n_iov, struct error *err)
{
	struct iovec some[IOV_PER_CALL];
	size_t skip = 0; /* bytes of iov[0] that have gone */
	ssize_t n;
	int r;

	while (n_iov > 0) {
		int count = MIN(n_iov, IOV_PER_CALL);

		if (skip >= iov->iov_len) {
			skip -= iov->iov_len;
			iov++;
			n_iov--;
			continue;
		}
		memcpy(some, iov, sizeof(*iov) * (size_t)count);
		some[0].iov_base = (uint8_t *)some[0].iov_base + skip;
		some[0].iov_len -= skip;
		n = channel_send_raw(c, some, count);
		if (n == -EAGAIN) {
			r = channel_await(c, POLLOUT, err);
			if (r < 0)
				return r;
			continue;
		}
		if (n < 0)
			return channel_link_error(c, (int)-n, err);
		skip += (size_t)n;
	}
	return 0;
}

bool channel_plain_pending(struct channel *c, bool readable)
{
	(void)c;
	return readable;
}

int channel_plain_finish(struct channel *c, struct error *err)
{
	if (!c->write_is_socket) {
		close_fd(&c->write_fd);
		return 0;
	}
	return shutdown(c->write_fd, SHUT_WR) < 0 ? channel_link_error(c, errno, err) : 0;
}

ssize_t channel_read_some(struct channel *c, void *data, size_t length, struct error *err)
{
	int r = check_stop(c, err);

	assert(length > 0);
	if (r < 0)
		return r;
	if (c->read_cut)
		return error_set(err, ECONNRESET, "an earlier read from %s was cut short", c->peer);
	for (;;) {
		ssize_t n = c->ops->read(c, data, MIN(length, (size_t)SSIZE_MAX), err);

		/* A shutdown from another thread may show as an end of the stream: say what it was. */
		if (n != -EAGAIN && n <= 0 && atomic_load(&c->broken))
			return shut_down_here(c, err);
		if (n != -EAGAIN)
			return n;
		r = channel_await(c, POLLIN, err);
		if (r < 0)
			return r;
	}
}

int channel_read(struct channel *c, void *data, size_t length, struct error *err)
{
	size_t done = 0;

	while (done < length) {
		ssize_t n = channel_read_some(c, (uint8_t *)data + done, length - done, err);

		if (n <= 0) {
			c->read_cut = c->read_cut || done > 0;
			return n < 0 ? (int)n : channel_link_error(c, 0, err);
		}
		done += (size_t)n;
	}
	return 0;
}

/* Waits until the pacer lets so many bytes go. */
static int await_turn(struct channel *c, const struct iovec *iov, int n_iov, struct error *err)
{
	struct pollfd p[2] = { { .fd = c->wake_fd, .events = POLLIN }, { .fd = c->cancel_fd, .events = POLLIN } };
	uint64_t bytes = 0, at;

	for (int i = 0; i < n_iov; i++)
		bytes += iov[i].iov_len;
	at = pacer_take(c->pacer, bytes);
	while (clock_now_ns() < at) {
		if (poll(p, ARRAY_SIZE(p), deadline_poll_ms(at)) > 0)
			return check_stop(c, err);
	}
	return 0;
}

int channel_writev(struct channel *c, const struct iovec *iov, int n_iov, struct error *err)
{
	int r = check_stop(c, err);

	if (!r && c->pacer)
		r = await_turn(c, iov, n_iov, err);
	if (r < 0)
		return r;
	if (c->write_cut || c->finished)
		return error_set(err, c->finished ? EPIPE : ECONNRESET, "%s %s",
				 c->finished ? "nothing more can be sent after the end of the stream to"
					     : "an earlier write was cut short to",
				 c->peer);
	r = c->ops->write(c, iov, n_iov, err);
	if (r < 0) {
		c->write_cut = true;
		if (atomic_load(&c->broken))
			return shut_down_here(c, err);
	}
	return r;
}

int channel_write(struct channel *c, const void *data, size_t length, struct error *err)
{
	struct iovec iov = { .iov_base = (void *)data, .iov_len = length };

	return channel_writev(c, &iov, 1, err);
}

void channel_set_timeout(struct channel *c, int64_t ms)
{
	c->timeout_ms = ms;
}

void channel_set_pacer(struct channel *c, struct pacer *pacer)
{
	c->pacer = pacer;
}

void channel_set_cancel_fd(struct channel *c, int fd)
{
	c->cancel_fd = fd;
}

int channel_wait_readable(struct channel *c, uint64_t deadline_ns)
{
	struct pollfd p[3] = {
		{ .fd = c->read_fd, .events = POLLIN },
		{ .fd = c->wake_fd, .events = POLLIN },
		{ .fd = c->cancel_fd, .events = POLLIN },
	};
	int r = check_stop(c, NULL);

	if (r < 0)
		return r;
	if (c->ops->pending(c, false))
		return 1;
	for (;;) {
		r = poll(p, ARRAY_SIZE(p), deadline_poll_ms(deadline_ns));
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0 && p[1].revents)
			return -ECONNRESET;
		if (r > 0 && p[2].revents)
			return -ECANCELED;
		if (r > 0 && c->ops->pending(c, true))
			return 1;
		if (clock_now_ns() >= deadline_ns)
			return 0;
	}
}

int channel_poll_fd(const struct channel *c)
{
	return c->read_fd;
}

bool channel_has_pending(const struct channel *c)
{
	return c->ops->pending((struct channel *)c, false);
}

int channel_finish(struct channel *c, struct error *err)
{
	int r = check_stop(c, err);

	if (r < 0 || c->finished)
		return r;
	if (c->write_cut)
		return error_set(err, ECONNRESET, "an earlier write to %s was cut short", c->peer);
	c->finished = true;
	return c->ops->finish(c, err);
}

void channel_shutdown(struct channel *c)
{
	uint64_t one = 1;

	atomic_store(&c->broken, true);
	if (write(c->wake_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN); /* the counter is full: it is readable */
	if (c->read_is_socket)
		shutdown(c->read_fd, SHUT_RDWR);
	if (c->write_is_socket)
		shutdown(c->write_fd, SHUT_RDWR);
}

uint64_t channel_bytes_out(const struct channel *c)
{
	return atomic_load_explicit(&c->bytes_out, memory_order_relaxed);
}

uint64_t channel_bytes_in(const struct channel *c)
{
	return atomic_load_explicit(&c->bytes_in, memory_order_relaxed);
}

const char *channel_peer(const struct channel *c)
{
	return c->peer;
}

const char *channel_peer_identity(const struct channel *c)
{
	return c->identity;
}
