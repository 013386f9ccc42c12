/*
 * The receiver: see receiver.h.
 *
 * Threads: one per channel, plus the caller. Under `lock`: the round each channel has finished, and the first failure. Two threads never
 * write the same page at once: the source hands a page out once per round, and starts the next only when all
 * barriers of the last have arrived.
 */
#include "migration/receiver.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "migration/receiver-internal.h"

static int receive_pages(struct receiver_thread *t, const struct frame_header *header, struct error *err)
{
	uint8_t fixed[FRAME_PAGES_BYTES];
	uint32_t payload = header->length - FRAME_PAGES_BYTES;
	struct frame_pages p;
	int r = channel_read(t->channel, fixed, sizeof(fixed), err);

	if (!r)
		r = frame_decode_pages(fixed, header->length, &p, err);
	if (r < 0)
		return r;
	/* Raw pages too go through a buffer: writing into a fresh memfd is several times faster than touching its pages first
	 * in a mapping (docs/memory-store.md). */
	if (payload)
		r = channel_read(t->channel, t->scratch, payload, err);
	if (r < 0)
		return r;
	if (p.encoding == ENCODING_ZERO)
		r = store_put_zero(t->receiver->store, p.space, p.address, p.pages, err);
	else if (p.encoding == ENCODING_DELTA || p.encoding == ENCODING_DUPLICATE)
		r = receiver_derive(t, &p, payload, err);
	else
		r = store_put(t->receiver->store, p.space, p.address, p.pages, (enum page_encoding)p.encoding,
			      t->scratch, payload, err);
	if (!r)
		receiver_count(t, p.pages);
	return r;
}

static int receive_barrier(struct receiver_thread *t, const struct frame_header *header, struct error *err)
{
	uint8_t body[FRAME_BARRIER_BYTES];
	uint32_t round;
	int r = channel_read(t->channel, body, sizeof(body), err);

	if (!r)
		r = frame_decode_barrier(body, header->length, &round, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&t->receiver->lock);
	t->round = round;
	t->pages = 0;
	pthread_cond_broadcast(&t->receiver->changed);
	pthread_mutex_unlock(&t->receiver->lock);
	return 0;
}

static int receive_frame(struct receiver_thread *t, struct error *err)
{
	uint8_t bytes[FRAME_HEADER_BYTES];
	struct frame_header header;
	int r = channel_read(t->channel, bytes, sizeof(bytes), err);

	if (!r)
		r = frame_decode_header(bytes, &header, err);
	if (r < 0)
		return r;
	gentle_look(&t->gentle);
	if (header.type == FRAME_PAGES)
		return receive_pages(t, &header, err);
	if (header.type == FRAME_BARRIER)
		return receive_barrier(t, &header, err);
	return error_set(err, EPROTO, "%s sent a frame of type %d on a data channel", channel_peer(t->channel),
			 (int)header.type);
}

static void *thread_main(void *arg)
{
	struct receiver_thread *t = arg;
	struct error err = { 0 };

	gentle_begin(&t->gentle);
	while (receive_frame(t, &err) == 0)
		;
	/* The source must not go on pouring into a channel that nobody reads. */
	channel_shutdown(t->channel);
	pthread_mutex_lock(&t->receiver->lock);
	if (!t->receiver->failure.number)
		t->receiver->failure = err;
	pthread_cond_broadcast(&t->receiver->changed);
	pthread_mutex_unlock(&t->receiver->lock);
	(void)eventfd_write(t->receiver->failure_fd, 1);
	return NULL;
}

int receiver_new(struct store *store, struct receiver **ret, struct error *err)
{
	struct receiver *r = calloc(1, sizeof(*r));
	pthread_condattr_t attr;

	if (!r)
		return error_set(err, ENOMEM, "no memory for the data channels");
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->changed, &attr);
	pthread_condattr_destroy(&attr);
	r->store = store;
	r->failure_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->failure_fd < 0) {
		int e = errno;

		receiver_free(r);
		return error_errno(err, e, "cannot watch the data channels");
	}
	*ret = r;
	return 0;
}

int receiver_failure_fd(const struct receiver *r)
{
	return r->failure_fd;
}

int receiver_failure(struct receiver *r, struct error *err)
{
	int number;

	pthread_mutex_lock(&r->lock);
	number = r->failure.number;
	if (number && err)
		*err = r->failure;
	pthread_mutex_unlock(&r->lock);
	return -number;
}

int receiver_add(struct receiver *r, uint32_t index, struct channel *channel, struct error *err)
{
	struct receiver_thread *t = &r->threads[r->n_threads];
	int e;

	if (r->n_threads == CHANNELS_MAX) {
		channel_free(channel);
		return error_set(err, E2BIG, "the peer opened more than %d data channels", CHANNELS_MAX);
	}
	for (size_t i = 0; i < r->n_threads; i++)
		if (r->threads[i].index == index) {
			e = error_set(err, EPROTO, "%s opened data channel %u twice", channel_peer(channel), index);
			channel_free(channel);
			return e;
		}
	*t = (struct receiver_thread){ .receiver = r, .channel = channel, .index = index, .gentle.wanted = r->gentle };
	t->scratch = malloc(CODEC_PIECE_PAGES * PAGE_BYTES);
	e = t->scratch ? pthread_create(&t->thread, NULL, thread_main, t) : ENOMEM;
	if (e) {
		free(t->scratch);
		channel_free(channel);
		return error_errno(err, e, "cannot start a thread for a data channel");
	}
	pthread_mutex_lock(&r->lock);
	r->n_threads++;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	return 0;
}

static bool round_arrived(const struct receiver *r, uint32_t round)
{
	for (size_t i = 0; i < r->n_threads; i++)
		if (r->threads[i].round < round)
			return false;
	return r->n_threads > 0;
}

void receiver_set_gentle(struct receiver *r, bool gentle)
{
	r->gentle = gentle;
	for (size_t i = 0; i < r->n_threads; i++)
		gentle_set(&r->threads[i].gentle, gentle);
}

int receiver_wait(struct receiver *r, uint32_t round, uint64_t deadline_ns, struct error *err)
{
	struct timespec until = { .tv_sec = (time_t)(deadline_ns / NS_PER_S),
				  .tv_nsec = (long)(deadline_ns % NS_PER_S) };
	bool late = false;
	int result;

	pthread_mutex_lock(&r->lock);
	while (!round_arrived(r, round) && !r->failure.number && !late)
		late = deadline_ns == DEADLINE_NEVER
			       ? pthread_cond_wait(&r->changed, &r->lock) != 0
			       : pthread_cond_timedwait(&r->changed, &r->lock, &until) == ETIMEDOUT;
	if (round_arrived(r, round)) {
		result = 1;
	} else if (r->failure.number) {
		if (err)
			*err = r->failure;
		result = -r->failure.number;
	} else {
		result = 0;
	}
	pthread_mutex_unlock(&r->lock);
	return result;
}

void receiver_stop(struct receiver *r)
{
	eventfd_t raised;

	pthread_mutex_lock(&r->lock);
	r->stopping = true;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	for (size_t i = 0; i < r->n_threads; i++)
		channel_shutdown(r->threads[i].channel);
	for (size_t i = 0; i < r->n_threads; i++) {
		if (!r->threads[i].joined)
			pthread_join(r->threads[i].thread, NULL);
		r->threads[i].joined = true;
	}
	(void)eventfd_read(r->failure_fd, &raised); /* that they failed is known now */
}

size_t receiver_arrived(const struct receiver *r, struct receiver_arrived *ret, size_t max)
{
	size_t n = MIN(r->n_threads, max);

	for (size_t i = 0; i < n; i++)
		ret[i] = (struct receiver_arrived){ r->threads[i].index, r->threads[i].round, r->threads[i].pages };
	return n;
}

void receiver_reset(struct receiver *r)
{
	for (size_t i = 0; i < r->n_threads; i++) {
		channel_free(r->threads[i].channel);
		free(r->threads[i].scratch);
		free(r->threads[i].derived);
	}
	r->n_threads = 0;
	r->stopping = false;
	r->failure = (struct error){ 0 };
}

void receiver_free(struct receiver *r)
{
	if (!r)
		return;
	receiver_stop(r);
	receiver_reset(r);
	close_fd(&r->failure_fd);
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->changed);
	free(r);
}
