/*
 * The target's side of post-copy: see fetch.h.
 *
 * Threads: one per channel, plus the caller. They share the pager, whose calls for them are thread-safe, and nothing else; the
 * caller alone makes and joins them.
 */
#include "migration/fetch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "wire/frame.h"

#define CHANNELS 2
#define REQUESTS_MAX 256

struct link {
	struct fetch *fetch;
	struct channel *channel;
	pthread_t thread;
	uint32_t index;
	uint8_t payload[CODEC_PIECE_PAGES * PAGE_BYTES], scratch[CODEC_PIECE_PAGES * PAGE_BYTES];
};

struct fetch {
	struct pager *pager;
	struct link *links[CHANNELS];
};

static int receive_pages(struct link *l, struct error *err)
{
	uint8_t bytes[FRAME_HEADER_BYTES], fixed[FRAME_PAGES_BYTES];
	struct frame_header header = { 0 };
	struct frame_pages p = { 0 };
	struct pager_pages pages;
	int r = channel_read(l->channel, bytes, sizeof(bytes), err);

	if (!r)
		r = frame_decode_header(bytes, &header, err);
	if (!r && header.type != FRAME_PAGES)
		r = error_set(err, EPROTO, "%s sent a frame of type %d on a page channel", channel_peer(l->channel),
			      (int)header.type);
	if (!r)
		r = channel_read(l->channel, fixed, sizeof(fixed), err);
	if (!r)
		r = frame_decode_pages(fixed, header.length, &p, err);
	if (!r)
		r = channel_read(l->channel, l->payload, header.length - FRAME_PAGES_BYTES, err);
	pages = (struct pager_pages){ .place = { p.space, p.address, p.pages },
				      .encoding = (enum page_encoding)p.encoding,
				      .payload = l->payload,
				      .payload_bytes = header.length - FRAME_PAGES_BYTES };
	return r < 0 ? r : pager_put(l->fetch->pager, &pages, l->scratch, err);
}

static int send_places(struct link *l, const struct pager_place *places, size_t n, struct error *err)
{
	uint8_t frame[FRAME_HEADER_BYTES + REQUESTS_MAX * FRAME_WANT_BYTES];

	frame_encode_header(frame, FRAME_WANT, (uint32_t)(n * FRAME_WANT_BYTES));
	for (size_t i = 0; i < n; i++)
		frame_encode_want(
			frame + FRAME_HEADER_BYTES + i * FRAME_WANT_BYTES,
			&(struct frame_want){ places[i].space, (uint32_t)places[i].pages, places[i].address });
	return channel_write(l->channel, frame, FRAME_HEADER_BYTES + n * FRAME_WANT_BYTES, err);
}

/* What is still missing, and an empty frame behind it. */
static int send_list(struct link *l, struct error *err)
{
	struct pager_place places[REQUESTS_MAX], at = { 0 };
	size_t n = 0;
	int r = 0;

	while (!r && pager_missing_from(l->fetch->pager, &at, &places[n])) {
		at = places[n++];
		if (n == REQUESTS_MAX) {
			r = send_places(l, places, n, err);
			n = 0;
		}
	}
	if (!r && n)
		r = send_places(l, places, n, err);
	return r < 0 ? r : send_places(l, NULL, 0, err);
}

static int serve_urgent(struct link *l, struct error *err)
{
	struct pager *pager = l->fetch->pager;
	int r = 0;

	pager_relink(pager);
	while (!r) {
		struct pollfd p[2] = { { .fd = pager_request_fd(pager), .events = POLLIN },
				       { .fd = channel_poll_fd(l->channel), .events = POLLIN } };
		bool pending = channel_has_pending(l->channel);

		if (poll(p, 2, pending ? 0 : -1) < 0 && errno != EINTR)
			return error_errno(err, errno, "cannot wait for page faults");
		if (p[0].revents & POLLIN) {
			struct pager_place places[REQUESTS_MAX];
			size_t n = pager_requests(pager, places, REQUESTS_MAX);

			r = n ? send_places(l, places, n, err) : 0;
		}
		if (!r && (pending || p[1].revents))
			r = receive_pages(l, err);
	}
	return r;
}

static int serve_others(struct link *l, struct error *err)
{
	int r = send_list(l, err);

	while (!r)
		r = receive_pages(l, err);
	return r;
}

static void *thread_main(void *arg)
{
	struct link *l = arg;
	struct error err = { 0 };
	int r = l->index ? serve_others(l, &err) : serve_urgent(l, &err);

	/* The source hears of it, and opens both anew. */
	if (r < 0 && pager_missing(l->fetch->pager))
		log_warning("pages that are still at the source cannot come: %s", err.text);
	channel_shutdown(l->channel);
	return NULL;
}

int fetch_new(struct pager *pager, struct fetch **ret, struct error *err)
{
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return error_set(err, ENOMEM, "no memory for post-copy");
	(*ret)->pager = pager;
	return 0;
}

static void end_link(struct link *l)
{
	if (!l)
		return;
	channel_shutdown(l->channel);
	pthread_join(l->thread, NULL);
	channel_free(l->channel);
	free(l);
}

int fetch_attach(struct fetch *f, uint32_t index, struct channel *channel, struct error *err)
{
	struct link *l;
	int r;

	if (index >= CHANNELS) {
		channel_free(channel);
		return error_set(err, EPROTO, "the peer opened page channel number %u", index);
	}
	end_link(TAKE_PTR(f->links[index]));
	l = calloc(1, sizeof(*l));
	r = l ? 0 : ENOMEM;
	if (!r) {
		*l = (struct link){ .fetch = f, .channel = channel, .index = index };
		r = pthread_create(&l->thread, NULL, thread_main, l);
	}
	if (r) {
		channel_free(channel);
		free(l);
		return error_errno(err, r, "cannot start a thread for a page channel");
	}
	f->links[index] = l;
	return 0;
}

void fetch_free(struct fetch *f)
{
	if (!f)
		return;
	for (uint32_t i = 0; i < CHANNELS; i++)
		end_link(f->links[i]);
	free(f);
}
