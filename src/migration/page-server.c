/*
 * The source's side of post-copy: see page-server.h.
 *
 * A page is claimed under the lock (sent) before it is read, so that it goes once over a link; while a request is at work the background
 * stream does not begin another piece. After a request it goes on behind the page that was asked for.
 *
 * Threads: one per channel, plus the caller. Under `lock`: sent, list, cursor, counters, the failure.
 */
#include "migration/page-server.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/array.h"
#include "base/log.h"
#include "memory/codec.h"
#include "memory/page-bits.h"
#include "memory/tracker.h"
#include "wire/frame.h"

#define PIECE_PAGES 32 /* of the background stream: what a request waits for at the most before it is looked at */
#define CHANNELS 2

struct lane {
	struct page_server *server;
	struct channel *channel;
	struct codec *codec;
	pthread_t thread;
	bool started;
	uint8_t *pages; /* PIECE_PAGES */
};

struct page_server {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool released, stop;
	uint32_t encodings;
	uint32_t urgent; /* requests at work */
	struct page_server_space *spaces;
	size_t n_spaces;
	struct page_bits *sent;	 /* over this link */
	struct frame_want *list; /* what the target lacks, ascending */
	size_t n_list, n_allocated, cursor;
	uint64_t skip; /* pages of list[cursor] */
	struct error failure;
	struct page_server_counters counters;
	struct lane lanes[CHANNELS];
};

int page_server_new(uint32_t encodings, struct page_server **ret, struct error *err)
{
	struct page_server *s = calloc(1, sizeof(*s));

	if (!s)
		return error_set(err, ENOMEM, "no memory for post-copy");
	s->encodings = encodings;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	*ret = s;
	return 0;
}

int page_server_set_spaces(struct page_server *s, const struct page_server_space *spaces, size_t n)
{
	s->spaces = calloc(n + 1, sizeof(*spaces));
	if (!s->spaces)
		return -ENOMEM;
	memcpy(s->spaces, spaces, n * sizeof(*spaces));
	s->n_spaces = n;
	return 0;
}

static pid_t pid_of(const struct page_server *s, uint32_t space)
{
	for (size_t i = 0; i < s->n_spaces; i++)
		if (s->spaces[i].space == space)
			return s->spaces[i].pid;
	return 0;
}

static int send_segment(struct lane *l, const struct frame_want *w, const struct page_segment *segment,
			struct error *err)
{
	uint8_t head[FRAME_PAGES_HEAD_BYTES];
	struct frame_pages p = { .space = w->space,
				 .pages = segment->pages,
				 .address = w->address + ((uint64_t)segment->first << PAGE_SHIFT),
				 .encoding = segment->encoding };
	struct iovec iov[2] = { { head, sizeof(head) }, { (void *)segment->payload, segment->payload_bytes } };

	frame_encode_pages(head, &p, segment->payload_bytes);
	return channel_writev(l->channel, iov, segment->payload_bytes ? 2 : 1, err);
}

/* At most PIECE_PAGES pages that stand together. */
static int send_pages(struct lane *l, const struct frame_want *w, struct error *err)
{
	struct range range = { w->address, w->address + ((uint64_t)w->pages << PAGE_SHIFT) };
	struct page_segment segments[CODEC_PIECE_PAGES];
	pid_t pid = pid_of(l->server, w->space);
	int n, r;

	if (!pid)
		return error_set(err, EPROTO, "%s wants pages of space %u, which is not a process",
				 channel_peer(l->channel), w->space);
	r = reader_read(pid, &range, 1, l->pages, NULL, err);
	if (r > 0)
		r = error_set(err, EFAULT, "%d pages of process %d at %#llx are gone, although it is stopped", r, pid,
			      (unsigned long long)w->address);
	if (r < 0)
		return r;
	n = codec_encode(l->codec, l->pages, w->pages, segments);
	if (n < 0)
		return error_errno(err, -n, "cannot encode pages");
	for (int i = 0; i < n && !r; i++)
		r = send_segment(l, w, &segments[i], err);
	return r;
}

/* Takes the first part of *w that is not sent yet; *w is shortened by what was looked at. False: nothing is left of it. */
static bool claim(struct page_server *s, struct frame_want *w, struct frame_want *ret)
{
	while (w->pages) {
		bool sent;
		uint64_t n = page_bits_part(s->sent, w->space, w->address, MIN(w->pages, (uint32_t)PIECE_PAGES), &sent);

		*ret = (struct frame_want){ w->space, (uint32_t)n, w->address };
		w->address += n << PAGE_SHIFT;
		w->pages -= (uint32_t)n;
		if (!sent && page_bits_set(s->sent, ret->space, ret->address, n) == 0)
			return true;
	}
	return false;
}

/* The stream goes on behind what was asked for. Under the lock. */
static void move_cursor(struct page_server *s, const struct frame_want *w)
{
	uint64_t next = w->address + ((uint64_t)w->pages << PAGE_SHIFT);
	size_t low = 0, high = s->n_list;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct frame_want *m = &s->list[middle];

		if (m->space > w->space ||
		    (m->space == w->space && m->address + ((uint64_t)m->pages << PAGE_SHIFT) > next))
			high = middle;
		else
			low = middle + 1;
	}
	s->cursor = low;
	s->skip = low < s->n_list && s->list[low].space == w->space && s->list[low].address < next
			  ? (next - s->list[low].address) >> PAGE_SHIFT
			  : 0;
}

static int answer(struct lane *l, struct frame_want w, struct error *err)
{
	struct page_server *s = l->server;
	int r = 0;

	while (!r) {
		struct frame_want part;
		bool found;

		pthread_mutex_lock(&s->lock);
		found = claim(s, &w, &part);
		if (found) {
			s->counters.pages += part.pages;
			s->counters.pages_urgent += part.pages;
			move_cursor(s, &part);
		}
		pthread_mutex_unlock(&s->lock);
		if (!found)
			break;
		r = send_pages(l, &part, err);
	}
	return r;
}

static int read_wants(struct lane *l, uint8_t body[FRAME_WANT_MAX * FRAME_WANT_BYTES], uint32_t *ret_length,
		      struct error *err)
{
	uint8_t bytes[FRAME_HEADER_BYTES];
	struct frame_header header;
	int r = channel_read(l->channel, bytes, sizeof(bytes), err);

	if (!r)
		r = frame_decode_header(bytes, &header, err);
	if (!r && header.type != FRAME_WANT)
		r = error_set(err, EPROTO, "%s sent a frame of type %d on a page channel", channel_peer(l->channel),
			      (int)header.type);
	if (r < 0)
		return r;
	*ret_length = header.length;
	return header.length ? channel_read(l->channel, body, header.length, err) : 0;
}

static void count_urgent(struct page_server *s, int by)
{
	pthread_mutex_lock(&s->lock);
	s->urgent = (uint32_t)((int)s->urgent + by);
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static int serve_urgent(struct lane *l, uint8_t *body, struct error *err)
{
	int r = 0;

	while (!r) {
		uint32_t length;

		r = read_wants(l, body, &length, err);
		if (r < 0)
			break;
		count_urgent(l->server, 1);
		for (uint32_t i = 0; i < length / FRAME_WANT_BYTES && !r; i++) {
			struct frame_want w;

			r = frame_decode_want(body, length, i, &w, err);
			if (!r)
				r = answer(l, w, err);
		}
		count_urgent(l->server, -1);
	}
	return r;
}

/* The target's list of what it lacks. */
static int read_list(struct lane *l, uint8_t *body, struct error *err)
{
	struct page_server *s = l->server;
	uint32_t length = 1;
	int r = 0;

	while (!r && length) {
		r = read_wants(l, body, &length, err);
		pthread_mutex_lock(&s->lock);
		for (uint32_t i = 0; i < length / FRAME_WANT_BYTES && !r; i++) {
			if (array_grow(&s->list, s->n_list, &s->n_allocated, 1024, sizeof(*s->list)) < 0)
				r = error_set(err, ENOMEM, "no memory for the list of pages");
			else
				r = frame_decode_want(body, length, i, &s->list[s->n_list], err);
			s->n_list += !r;
		}
		pthread_mutex_unlock(&s->lock);
	}
	return r;
}

/* The next piece of the list, from the cursor around; waits while requests are at work. False: all was sent, or it is over. */
static bool next_piece(struct page_server *s, struct frame_want *ret)
{
	bool found = false;

	pthread_mutex_lock(&s->lock);
	while (!s->stop && (s->urgent || !s->released))
		pthread_cond_wait(&s->changed, &s->lock);
	for (size_t looked = 0; !s->stop && !found && looked <= s->n_list && s->n_list;) {
		struct frame_want w;

		if (s->cursor >= s->n_list)
			s->cursor = s->skip = 0;
		w = s->list[s->cursor];
		w.address += s->skip << PAGE_SHIFT;
		w.pages -= (uint32_t)s->skip;
		found = claim(s, &w, ret);
		s->skip = (w.address - s->list[s->cursor].address) >> PAGE_SHIFT;
		if (!w.pages) {
			s->cursor++;
			s->skip = 0;
			looked++;
		}
	}
	if (found)
		s->counters.pages += ret->pages;
	pthread_mutex_unlock(&s->lock);
	return found;
}

static int serve_others(struct lane *l, uint8_t *body, struct error *err)
{
	struct frame_want piece;
	uint32_t length;
	int r = read_list(l, body, err);

	while (!r && next_piece(l->server, &piece))
		r = send_pages(l, &piece, err);
	/* Nothing more is due from here; the end of the channel is the end of the link. */
	return r < 0 ? r : read_wants(l, body, &length, err);
}

static void *thread_main(void *arg)
{
	struct lane *l = arg;
	struct page_server *s = l->server;
	uint8_t *body = malloc(FRAME_WANT_MAX * FRAME_WANT_BYTES);
	struct error err = { 0 };

	if (!body)
		error_set(&err, ENOMEM, "no memory for post-copy");
	else if (l == &s->lanes[0])
		serve_urgent(l, body, &err);
	else
		serve_others(l, body, &err);
	free(body);
	pthread_mutex_lock(&s->lock);
	if (!err.number)
		error_set(&err, EPROTO, "%s sent more than its list", channel_peer(l->channel));
	if (!s->failure.number)
		s->failure = err;
	pthread_mutex_unlock(&s->lock);
	/* One link, two channels. */
	for (size_t i = 0; i < CHANNELS; i++)
		if (s->lanes[i].channel)
			channel_shutdown(s->lanes[i].channel);
	return NULL;
}

static void end_lanes(struct page_server *s)
{
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	for (size_t i = 0; i < CHANNELS; i++)
		if (s->lanes[i].channel)
			channel_shutdown(s->lanes[i].channel);
	for (size_t i = 0; i < CHANNELS; i++)
		if (s->lanes[i].started)
			pthread_join(s->lanes[i].thread, NULL);
	for (size_t i = 0; i < CHANNELS; i++) {
		struct lane *l = &s->lanes[i];

		if (l->channel)
			s->counters.bytes_out += channel_bytes_out(l->channel);
		channel_free(TAKE_PTR(l->channel));
		codec_free(TAKE_PTR(l->codec));
		free(TAKE_PTR(l->pages));
		l->started = false;
	}
	page_bits_free(TAKE_PTR(s->sent));
	s->n_list = s->cursor = 0;
	s->skip = 0;
	s->urgent = 0;
	s->failure = (struct error){ 0 };
	s->stop = false;
}

int page_server_attach(struct page_server *s, struct channel *urgent, struct channel *others, uint32_t window_bytes,
		       struct error *err)
{
	int window = (int)MIN(window_bytes, 64U << 20) / 2, r; /* the kernel doubles it (socket(7)) */

	end_lanes(s);
	/* As much as may wait in the socket: over ssh there is none, and the pipe's size does the same. */
	(void)setsockopt(channel_poll_fd(others), SOL_SOCKET, SO_SNDBUF, &window, sizeof(window));
	s->lanes[0].channel = urgent;
	s->lanes[1].channel = others;
	r = page_bits_new(&s->sent) < 0 ? error_set(err, ENOMEM, "no memory for post-copy") : 0;
	for (size_t i = 0; i < CHANNELS && !r; i++) {
		struct lane *l = &s->lanes[i];

		l->server = s;
		l->pages = aligned_alloc(PAGE_BYTES, PIECE_PAGES * PAGE_BYTES);
		r = l->pages ? codec_new(i ? s->encodings : 0, &l->codec, err)
			     : error_set(err, ENOMEM, "no memory for post-copy");
		if (!r)
			codec_set_link_rate(l->codec, CODEC_RATE_ASSUMED);
	}
	for (size_t i = 0; i < CHANNELS && !r; i++) {
		r = pthread_create(&s->lanes[i].thread, NULL, thread_main, &s->lanes[i]);
		s->lanes[i].started = !r;
		if (r)
			r = error_errno(err, r, "cannot start a thread for a page channel");
	}
	if (r < 0)
		end_lanes(s);
	return r;
}

void page_server_release(struct page_server *s)
{
	pthread_mutex_lock(&s->lock);
	s->released = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

int page_server_failure(struct page_server *s, struct error *err)
{
	int number;

	pthread_mutex_lock(&s->lock);
	number = s->failure.number;
	if (number && err)
		*err = s->failure;
	if (!number && !s->lanes[0].channel)
		number = -error_set(err, ENOTCONN, "there is no link to the target");
	pthread_mutex_unlock(&s->lock);
	return -number;
}

void page_server_progress(struct page_server *s, struct page_server_counters *ret)
{
	pthread_mutex_lock(&s->lock);
	*ret = s->counters;
	for (size_t i = 0; i < CHANNELS; i++)
		if (s->lanes[i].channel)
			ret->bytes_out += channel_bytes_out(s->lanes[i].channel);
	pthread_mutex_unlock(&s->lock);
}

void page_server_free(struct page_server *s)
{
	if (!s)
		return;
	end_lanes(s);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s->list);
	free(s->spaces);
	free(s);
}
