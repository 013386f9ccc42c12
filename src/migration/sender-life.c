/*
 * The sender's beginning and end, and what is between two links: its threads end, its channels go, others come (sender.h).
 *
 * Invariant: between sender_stop() and sender_rejoin() there is no thread, and only the caller touches anything.
 * Threads: the caller's.
 */
#include <errno.h>
#include <stdlib.h>

#include "migration/sender-internal.h"

/* A frame of deltas is the longest that refers to what the target has. */
#define PAYLOAD_BYTES (FRAME_DIGEST_BYTES + CODEC_PIECE_PAGES * (FRAME_DELTA_LENGTH_BYTES + DELTA_PAGE_MAX))

static int thread_start(struct sender_thread *t, struct error *err)
{
	uint32_t encodings = t->sender->encodings;
	int r = codec_new(encodings, &t->codec, err);

	if (r < 0)
		return r;
	t->started_at = t->sender->turn;
	t->pages = aligned_alloc(PAGE_BYTES, CODEC_PIECE_PAGES * PAGE_BYTES);
	t->gather = malloc(GATHER_BYTES);
	t->payload = encodings & ~ENCODINGS_PACKED ? malloc(PAYLOAD_BYTES) : NULL;
	if (!t->pages || !t->gather || (encodings & ~ENCODINGS_PACKED && !t->payload))
		return error_set(err, ENOMEM, "no memory for a data channel");
	r = pthread_create(&t->thread, NULL, sender_thread_main, t);
	if (r)
		return error_errno(err, r, "cannot start a thread for a data channel");
	t->started = true;
	return 0;
}

int sender_new(struct channel **channels, size_t n, struct dedup_index *dedup, uint32_t encodings, struct sender **ret,
	       struct error *err)
{
	struct sender *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;
	int r = 0;

	if (s)
		s->threads = calloc(n, sizeof(*s->threads));
	if (!s || !s->threads) {
		free(s);
		return error_set(err, ENOMEM, "no memory for the data channels");
	}
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->work, &attr);
	pthread_cond_init(&s->done, &attr);
	pthread_condattr_destroy(&attr);
	s->dedup = dedup;
	s->encodings = encodings;
	s->n_threads = n;
	for (size_t i = 0; i < n; i++) {
		s->threads[i].sender = s;
		s->threads[i].channel = TAKE_PTR(channels[i]);
	}
	if (encodings & ENCODING_BIT(ENCODING_DUPLICATE) && duplicates_new(&s->duplicates) < 0)
		r = error_set(err, ENOMEM, "no memory for the index of what was sent");
	for (size_t i = 0; i < n && !r; i++)
		r = thread_start(&s->threads[i], err);
	if (r < 0) {
		sender_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void sender_stop(struct sender *s)
{
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->lock);
	s->bytes_before = sender_bytes_out(s);
	for (size_t i = 0; i < s->n_threads; i++) {
		struct sender_thread *t = &s->threads[i];

		if (t->channel)
			channel_shutdown(t->channel);
		if (t->started)
			pthread_join(t->thread, NULL);
		t->started = false;
		channel_free(TAKE_PTR(t->channel));
		codec_free(TAKE_PTR(t->codec));
		free(TAKE_PTR(t->pages));
		free(TAKE_PTR(t->gather));
		free(TAKE_PTR(t->payload));
	}
	sender_encode_forget(s);
}

const struct page_runs *sender_sent(const struct sender *s, size_t channel)
{
	return &s->threads[channel].sent;
}

int sender_rejoin(struct sender *s, struct channel **channels, struct error *err)
{
	int r = 0;

	s->stop = false;
	s->busy = 0;
	s->failure = (struct error){ 0 };
	for (size_t i = 0; i < s->n_threads; i++) {
		s->threads[i].channel = TAKE_PTR(channels[i]);
		s->threads[i].gathered = 0;
		s->threads[i].meter = (struct link_meter){ 0 };
	}
	for (size_t i = 0; i < s->n_threads && !r; i++)
		r = thread_start(&s->threads[i], err);
	return r;
}

void sender_free(struct sender *s)
{
	if (!s)
		return;
	sender_stop(s);
	for (size_t i = 0; i < s->n_threads; i++)
		page_runs_free(&s->threads[i].sent);
	duplicates_free(s->duplicates);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->work);
	pthread_cond_destroy(&s->done);
	free(s->threads);
	free(s);
}
