/*
 * File passes in the background: see pass.h.
 *
 * Two threads: the pump's (stream.c), and one that waits for rsync. Both end when stop_fd is readable. Invariant: result, err and stats
 * belong to the waiting thread until done_fd is readable; placed_fd is from the end of rsync on.
 */
#include "migration/pass.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "migration/stream.h"

struct pass {
	struct sync *sync;
	struct stream_thread *pump;
	int pair[2]; /* the pump's end, rsync's end */
	int stop_fd, placed_fd, done_fd;
	pthread_t waiter;
	bool waiting;
	int placed; /* how rsync ended */
	int result;
	struct error err;
	struct sync_stats stats;
};

static void *waiter_main(void *arg)
{
	struct pass *p = arg;
	struct error pumped = { 0 };
	int r;

	p->result = sync_finish(p->sync, p->stop_fd, DEADLINE_NEVER, &p->stats, &p->err);
	p->placed = p->result;
	eventfd_write(p->placed_fd, 1);
	r = stream_thread_join(TAKE_PTR(p->pump), &pumped);
	/* A broken channel is the cause, rsync's end what followed. */
	if (r < 0) {
		p->result = r;
		p->err = pumped;
	}
	eventfd_write(p->done_fd, 1);
	return NULL;
}

static int start_waiter(struct pass *p, struct error *err)
{
	int r = pthread_create(&p->waiter, NULL, waiter_main, p);

	if (r)
		return error_errno(err, r, "cannot start a thread for the file pass");
	p->waiting = true;
	return 0;
}

static int pass_new(struct pass **ret, struct error *err)
{
	struct pass *p = calloc(1, sizeof(*p));

	if (!p)
		return error_set(err, ENOMEM, "no memory for the file pass");
	p->pair[0] = p->pair[1] = -1;
	p->stop_fd = eventfd(0, EFD_CLOEXEC);
	p->placed_fd = eventfd(0, EFD_CLOEXEC);
	p->done_fd = eventfd(0, EFD_CLOEXEC);
	if (p->stop_fd < 0 || p->placed_fd < 0 || p->done_fd < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p->pair) < 0) {
		int r = error_errno(err, errno, "cannot make a socket pair for rsync");

		pass_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

int pass_send(const struct sync_tree *tree, bool listed, struct channel *channel, int64_t silence_ms, struct pass **ret,
	      struct error *err)
{
	struct pass *p;
	int r = pass_new(&p, err);

	if (r < 0)
		return r;
	r = sync_send_start(tree, listed, p->pair[1], &p->sync, err);
	if (!r)
		r = stream_thread_start(channel, p->pair[0], p->stop_fd, silence_ms, &p->pump, err);
	if (!r && !listed)
		r = start_waiter(p, err);
	if (r < 0) {
		pass_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

int pass_feed(struct pass *p, struct buffer *list, struct error *err)
{
	sync_feed(p->sync, list);
	return start_waiter(p, err);
}

int pass_receive(const char *path, bool stay_apart, struct channel *channel, int64_t silence_ms, struct pass **ret,
		 struct error *err)
{
	struct pass *p;
	int r = pass_new(&p, err);

	if (r < 0)
		return r;
	r = sync_receive_start(path, stay_apart, p->pair[1], &p->sync, err);
	if (!r)
		r = stream_thread_start(channel, p->pair[0], p->stop_fd, silence_ms, &p->pump, err);
	if (!r)
		r = start_waiter(p, err);
	if (r < 0) {
		pass_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

static int wait_for(int event_fd, int cancel_fd, uint64_t deadline_ns, struct error *err)
{
	struct pollfd fds[2] = { { .fd = event_fd, .events = POLLIN }, { .fd = cancel_fd, .events = POLLIN } };
	int n = poll(fds, 2, deadline_poll_ms(deadline_ns));

	if (n < 0 && errno != EINTR)
		return error_errno(err, errno, "cannot wait for the file pass");
	if (n > 0 && fds[1].revents)
		return error_set(err, ECANCELED, "canceled while files were copied");
	return n > 0;
}

int pass_wait(struct pass *p, int cancel_fd, uint64_t deadline_ns, struct error *err)
{
	return wait_for(p->done_fd, cancel_fd, deadline_ns, err);
}

int pass_wait_placed(struct pass *p, int cancel_fd, uint64_t deadline_ns, struct error *err)
{
	int r = wait_for(p->placed_fd, cancel_fd, deadline_ns, err);

	return r > 0 && p->placed < 0 ? error_set(err, EIO, "rsync failed") : r;
}

static void release(struct pass *p)
{
	sync_free(p->sync);
	for (int i = 0; i < 2; i++)
		close_fd(&p->pair[i]);
	close_fd(&p->stop_fd);
	close_fd(&p->placed_fd);
	close_fd(&p->done_fd);
	free(p);
}

int pass_end(struct pass *p, struct sync_stats *ret, struct error *err)
{
	int r;

	pthread_join(p->waiter, NULL);
	r = p->result;
	if (r < 0 && err)
		*err = p->err;
	if (r >= 0 && ret)
		*ret = p->stats;
	release(p);
	return r;
}

void pass_free(struct pass *p)
{
	if (!p)
		return;
	if (p->stop_fd >= 0)
		eventfd_write(p->stop_fd, 1);
	if (p->waiting)
		pthread_join(p->waiter, NULL);
	if (p->pump)
		stream_thread_join(p->pump, NULL);
	release(p);
}
