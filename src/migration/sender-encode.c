/*
 * What becomes of a page that is to be sent: left to the codec (zero, raw, packed), or said in terms of what the target has: as a copy of
 * another page (memory/duplicates.h), or as what changed since it was sent last (memory/last-sent.h).
 *
 * Neighbouring pages of one kind make a frame. Both kinds carry the hash of the pages that they are to become, so that the target
 * goes no further with anything else. Where neither can be used a run goes to the codec as it is.
 *
 * Threads: the senders', each with its struct sender_thread; sender_encode_begin() and _forget() while none of them works.
 */
#include <errno.h>
#include <string.h>

#include <xxhash.h>

#include "migration/sender-internal.h"

/* Where more than so much goes through one channel per second, keeping what was sent costs more than it saves. */
#define LAST_SENT_RATE_MAX 500000000ULL
#define LAST_SENT_FIRST_ROUND 2 /* nothing can change before it was sent */
#define LAST_SENT_LOOKS 4096	/* so many in a round tell whether it is of use: */
#define LAST_SENT_PART 64	/* one in so many must find something */

/* Pages of one kind, from `first` of the run on. */
struct group {
	enum page_encoding kind; /* ENCODING_RAW: the codec's */
	uint32_t first, pages;
	uint32_t bytes;		/* of the payload */
	struct frame_copy copy; /* the last one, not yet in it */
};

/* What one page is. */
struct look {
	enum page_encoding kind;
	int delta_bytes;
	struct page_copy copy;
	uint8_t delta[DELTA_PAGE_MAX];
};

static struct frame_pages pages_of(const struct sender_thread *t, const struct page_run *run, uint32_t first,
				   uint32_t pages, enum page_encoding encoding)
{
	return (struct frame_pages){ .space = run->space,
				     .pages = pages,
				     .address = run->address + ((uint64_t)first << PAGE_SHIFT),
				     .encoding = encoding,
				     .round = t->sender->round };
}

static int send_by_codec(struct sender_thread *t, const struct page_run *run, uint32_t first, uint32_t pages,
			 const uint8_t *data, struct error *err)
{
	struct page_segment segments[CODEC_PIECE_PAGES];
	int n = codec_encode(t->codec, data + ((uint64_t)first << PAGE_SHIFT), pages, segments);

	if (n < 0)
		return error_errno(err, -n, "cannot encode pages");
	for (int i = 0; i < n; i++) {
		struct frame_pages frame =
			pages_of(t, run, first + segments[i].first, segments[i].pages, segments[i].encoding);
		int r = sender_send_frame(t, &frame, segments[i].payload, segments[i].payload_bytes, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static void put_copy(struct sender_thread *t, struct group *g)
{
	if (!g->copy.pages)
		return;
	frame_encode_copy(t->payload + g->bytes, &g->copy);
	g->bytes += FRAME_COPY_BYTES;
}

static int end_group(struct sender_thread *t, const struct page_run *run, struct group *g, const uint8_t *data,
		     struct error *err)
{
	struct frame_pages frame = pages_of(t, run, g->first, g->pages, g->kind);
	struct frame_digest digest;
	XXH128_hash_t hash;

	if (!g->pages)
		return 0;
	if (g->kind == ENCODING_RAW)
		return send_by_codec(t, run, g->first, g->pages, data, err);
	if (g->kind == ENCODING_DUPLICATE)
		put_copy(t, g);
	hash = XXH3_128bits(data + ((uint64_t)g->first << PAGE_SHIFT), g->pages * PAGE_BYTES);
	digest = (struct frame_digest){ hash.low64, hash.high64 };
	frame_encode_digest(t->payload, &digest);
	return sender_send_frame(t, &frame, t->payload, g->bytes, err);
}

/* One more copy: part of the last one where it follows it, or is the same page again. */
static void add_copy(struct sender_thread *t, struct group *g, const struct page_copy *from)
{
	struct frame_copy *c = &g->copy;
	bool alike =
		c->pages && c->space == from->space && c->channel == from->channel && !c->position == !from->position;

	if (alike && !c->repeat && from->address == c->address + ((uint64_t)c->pages << PAGE_SHIFT)) {
		c->pages++;
		c->position = MAX(c->position, from->position);
	} else if (alike && from->address == c->address && (c->repeat || c->pages == 1)) {
		c->pages++;
		c->repeat = true;
	} else {
		put_copy(t, g);
		*c = (struct frame_copy){ from->address, from->position, from->space, 1, from->channel, false };
	}
}

static void add_page(struct sender_thread *t, struct group *g, const struct look *look)
{
	g->pages++;
	if (g->kind == ENCODING_DUPLICATE)
		add_copy(t, g, &look->copy);
	if (g->kind != ENCODING_DELTA)
		return;
	frame_encode_delta_length(t->payload + g->bytes, (uint32_t)look->delta_bytes);
	memcpy(t->payload + g->bytes + FRAME_DELTA_LENGTH_BYTES, look->delta, (size_t)look->delta_bytes);
	g->bytes += FRAME_DELTA_LENGTH_BYTES + (uint32_t)look->delta_bytes;
}

/* What a page is, before it is known whether it packs. self: as which it goes; all: whether to look at pages that are not sampled. */
static void look_at(struct sender_thread *t, const uint8_t *page, const struct page_copy *self, bool all,
		    struct look *ret)
{
	struct sender *s = t->sender;

	ret->kind = ENCODING_RAW;
	if (codec_is_zero(page, PAGE_BYTES)) {
		if (s->last_sent)
			last_sent_forget(s->last_sent, self->space, self->address);
		return;
	}
	if (s->last_sent) {
		ret->delta_bytes =
			last_sent_exchange(s->last_sent, self->space, self->address, s->round, page, ret->delta);
		if (ret->delta_bytes >= 0)
			ret->kind = ENCODING_DELTA;
	}
	if (ret->kind == ENCODING_RAW && s->duplicates && (all || duplicates_sampled(page))) {
		bool found = duplicates_look(s->duplicates, page, self, &ret->copy);

		duplicates_search_add(&t->search, 1, found);
		if (found)
			ret->kind = ENCODING_DUPLICATE;
	}
}

static int send_by_kind(struct sender_thread *t, const struct page_run *run, uint64_t before, const uint8_t *data,
			struct error *err)
{
	bool all = duplicates_search_pays(&t->search, t->meter.rate);
	struct page_copy self = { .space = run->space, .channel = (uint32_t)(t - t->sender->threads) };
	struct group g = { 0 };
	struct look look;

	for (uint32_t i = 0; i < run->pages; i++) {
		self.address = run->address + ((uint64_t)i << PAGE_SHIFT);
		self.position = before + i + 1;
		look_at(t, data + ((uint64_t)i << PAGE_SHIFT), &self, all, &look);
		if (g.pages && look.kind != g.kind) {
			int r = end_group(t, run, &g, data, err);

			if (r < 0)
				return r;
			g = (struct group){ 0 };
		}
		if (!g.pages)
			g = (struct group){ .kind = look.kind, .first = i, .bytes = FRAME_DIGEST_BYTES };
		add_page(t, &g, &look);
	}
	return end_group(t, run, &g, data, err);
}

/* Pages that CRIU will write into its images again are remembered by content. */
static int note_content(struct sender_thread *t, const struct page_run *run, const uint8_t *data, struct error *err)
{
	if (!run->in_images) {
		/* What stood there before may have been remembered; a reference to it would now name other bytes. */
		dedup_forget(t->sender->dedup, run->space, run->address, run->pages);
		return 0;
	}
	for (uint64_t i = 0; i < run->pages; i++) {
		struct page_hash hash = page_hash_of(data + (i << PAGE_SHIFT));
		int r = dedup_note(t->sender->dedup, run->space, run->address + (i << PAGE_SHIFT), &hash);

		if (r < 0)
			return error_errno(err, -r, "cannot remember the contents of a page");
	}
	return 0;
}

int sender_send_run(struct sender_thread *t, const struct page_run *run, const uint8_t *data, struct error *err)
{
	uint64_t before = t->sent.pages;
	int r;

	if (page_runs_add(&t->sent, run) < 0)
		return error_set(err, ENOMEM, "no memory to note what was sent");
	r = t->sender->duplicates || t->sender->last_sent ? send_by_kind(t, run, before, data, err)
							  : send_by_codec(t, run, 0, (uint32_t)run->pages, data, err);
	return r < 0 ? r : note_content(t, run, data, err);
}

/* The rate of the channel that carries most; 0 where none was measured. */
static uint64_t highest_rate(const struct sender *s)
{
	uint64_t rate = 0;

	for (size_t i = 0; i < s->n_threads; i++)
		rate = MAX(rate, s->threads[i].meter.rate);
	return rate;
}

/* What changed since the last time is worth knowing from the second round on, and only where sending takes long. */
static void begin_last_sent(struct sender *s, const struct page_runs *runs, enum sender_turn turn, uint32_t round)
{
	uint64_t looked = 0, found = 0, rate = highest_rate(s);

	if (!(s->encodings & ENCODING_BIT(ENCODING_DELTA)) || turn != SENDER_ROUND || round < LAST_SENT_FIRST_ROUND ||
	    s->last_sent_over)
		return;
	if (!s->last_sent) {
		/* Without memory for it there is none. */
		if (rate && rate <= LAST_SENT_RATE_MAX && last_sent_new(runs->pages * 2, &s->last_sent) < 0)
			s->last_sent_over = true;
		return;
	}
	last_sent_count(s->last_sent, &looked, &found);
	if (round > LAST_SENT_FIRST_ROUND + 1 && looked >= LAST_SENT_LOOKS && found < looked / LAST_SENT_PART) {
		last_sent_free(TAKE_PTR(s->last_sent));
		s->last_sent_over = true;
	}
}

int sender_encode_begin(struct sender *s, const struct page_runs *runs, enum sender_turn turn, uint32_t round)
{
	begin_last_sent(s, runs, turn, round);
	return s->duplicates ? duplicates_begin(s->duplicates, runs, turn != SENDER_ROUND) : 0;
}

void sender_encode_forget(struct sender *s)
{
	last_sent_free(TAKE_PTR(s->last_sent));
	if (s->duplicates)
		duplicates_clear(s->duplicates);
}
