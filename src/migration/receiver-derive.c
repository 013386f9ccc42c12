/*
 * Pages that are said in terms of others: copies of what the target has, and what changed since the last version.
 *
 * What they become is hashed and compared with what the source says before it is stored, so that no mistake about what is here, on either
 * side, gets any further: the migration fails, and nothing was resumed. A copy of a page that comes in this round over another channel
 * waits until that one has brought it (memory/duplicates.h says why this ends).
 *
 * Threads: the receiver's. `lock` for the wait: whoever stores pages looks whether somebody waits after it has counted them, whoever waits says
 * so before it looks at the count.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "memory/delta.h"
#include "migration/receiver-internal.h"

void receiver_count(struct receiver_thread *t, uint32_t pages)
{
	atomic_fetch_add(&t->pages, pages);
	if (!atomic_load(&t->receiver->waiting))
		return;
	pthread_mutex_lock(&t->receiver->lock);
	pthread_cond_broadcast(&t->receiver->changed);
	pthread_mutex_unlock(&t->receiver->lock);
}

/* Whether the channel has brought its page number `position` of the round. Under the lock. */
static bool has_come(const struct receiver *r, uint32_t channel, uint32_t round, uint64_t position)
{
	for (size_t i = 0; i < r->n_threads; i++)
		if (r->threads[i].index == channel)
			return r->threads[i].round >= round || r->threads[i].pages >= position;
	return false;
}

static int await_page(struct receiver_thread *t, uint32_t round, const struct frame_copy *copy, struct error *err)
{
	struct receiver *r = t->receiver;
	int result = 0;

	if (!copy->position)
		return 0;
	if (copy->channel == t->index)
		return copy->position <= t->pages
			       ? 0
			       : error_set(err, EPROTO, "%s sent a page as a copy of one that comes after it",
					   channel_peer(t->channel));
	pthread_mutex_lock(&r->lock);
	atomic_fetch_add(&r->waiting, 1);
	while (!has_come(r, copy->channel, round, copy->position) && !r->stopping && !r->failure.number)
		pthread_cond_wait(&r->changed, &r->lock);
	atomic_fetch_sub(&r->waiting, 1);
	if (!has_come(r, copy->channel, round, copy->position))
		result = error_set(err, ECONNRESET, "data channel %u ended before it brought a page that another needs",
				   copy->channel);
	pthread_mutex_unlock(&r->lock);
	return result;
}

static int take_copies(struct receiver_thread *t, const struct frame_pages *p, uint32_t payload, struct error *err)
{
	uint32_t n = (payload - FRAME_DIGEST_BYTES) / FRAME_COPY_BYTES, done = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint8_t *out = t->derived + done * PAGE_BYTES;
		struct frame_copy copy;
		int r = frame_decode_copy(t->scratch + FRAME_DIGEST_BYTES + i * FRAME_COPY_BYTES, &copy, err);

		if (!r && copy.pages > p->pages - done)
			r = error_set(err, EPROTO, "%s sent copies of more pages than it says",
				      channel_peer(t->channel));
		if (!r)
			r = await_page(t, p->round, &copy, err);
		if (!r)
			r = store_get(t->receiver->store, copy.space, copy.address, copy.repeat ? 1 : copy.pages, out,
				      err);
		if (r < 0)
			return r;
		for (uint32_t k = 1; copy.repeat && k < copy.pages; k++)
			memcpy(out + k * PAGE_BYTES, out, PAGE_BYTES);
		done += copy.pages;
	}
	return done == p->pages
		       ? 0
		       : error_set(err, EPROTO, "%s sent copies of fewer pages than it says", channel_peer(t->channel));
}

static int take_deltas(struct receiver_thread *t, const struct frame_pages *p, uint32_t payload, struct error *err)
{
	const uint8_t *at = t->scratch + FRAME_DIGEST_BYTES, *end = t->scratch + payload;
	int r = store_get(t->receiver->store, p->space, p->address, p->pages, t->derived, err);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < p->pages && !r; i++) {
		uint32_t bytes = 0;

		if (end - at < FRAME_DELTA_LENGTH_BYTES)
			r = -EBADMSG;
		else
			bytes = frame_decode_delta_length(at);
		if (!r && bytes > end - at - FRAME_DELTA_LENGTH_BYTES)
			r = -EBADMSG;
		if (!r)
			r = delta_apply(t->derived + i * PAGE_BYTES, at + FRAME_DELTA_LENGTH_BYTES, bytes);
		at += FRAME_DELTA_LENGTH_BYTES + bytes;
	}
	return !r && at == end ? 0
			       : error_set(err, EBADMSG, "%s sent changes of %u pages of space %u that are malformed",
					   channel_peer(t->channel), p->pages, p->space);
}

static int check_digest(const struct receiver_thread *t, const struct frame_pages *p, struct error *err)
{
	XXH128_hash_t hash = XXH3_128bits(t->derived, p->pages * PAGE_BYTES);
	struct frame_digest digest;

	frame_decode_digest(t->scratch, &digest);
	if (hash.low64 == digest.low && hash.high64 == digest.high)
		return 0;
	return error_set(err, EBADMSG,
			 "%u pages at %llx of space %u did not become here what they are at the source; nothing was "
			 "resumed, and --compress lz4,zstd does without such pages",
			 p->pages, (unsigned long long)p->address, p->space);
}

int receiver_derive(struct receiver_thread *t, const struct frame_pages *pages, uint32_t payload, struct error *err)
{
	int r;

	if (!t->derived)
		t->derived = malloc(CODEC_PIECE_PAGES * PAGE_BYTES);
	if (!t->derived)
		return error_set(err, ENOMEM, "no memory to put pages together");
	r = pages->encoding == ENCODING_DELTA ? take_deltas(t, pages, payload, err)
					      : take_copies(t, pages, payload, err);
	if (!r)
		r = check_digest(t, pages, err);
	if (!r)
		r = store_put(t->receiver->store, pages->space, pages->address, pages->pages, ENCODING_RAW, t->derived,
			      pages->pages * PAGE_BYTES, err);
	return r;
}
