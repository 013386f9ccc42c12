/*
 * The codec: see codec.h. Pure but for the clock; any thread with its own struct codec.
 *
 * A piece is cut where zero pages begin and end; what lies between goes raw (the payload points into the
 * input) or as lz4 (into scratch). Invariant: the segments of a piece are ascending, adjacent and cover it.
 *
 * Payloads to decode come from a peer: every length is checked before use.
 */
#include "memory/codec.h"

#include <errno.h>
#include <lz4.h>
#include <string.h>

#include "base/clock.h"
#include "memory/codec-internal.h"

struct codec {
	bool lz4_allowed;
	uint64_t link_rate;
	struct codec_sample sample;
	uint64_t pieces_skipped; /* since lz4 was last tried */
	uint8_t *scratch;
	size_t scratch_bytes, scratch_used;
};

int codec_new(bool lz4_allowed, struct codec **ret, struct error *err)
{
	struct codec *c = calloc(1, sizeof(*c));

	if (!c)
		return error_set(err, ENOMEM, "no memory for the page codec");
	c->lz4_allowed = lz4_allowed;
	/* lz4 only stores what got smaller, so a piece never needs more than its own length. */
	c->scratch_bytes = CODEC_PIECE_BYTES;
	c->scratch = lz4_allowed ? malloc(c->scratch_bytes) : NULL;
	if (lz4_allowed && !c->scratch) {
		free(c);
		return error_set(err, ENOMEM, "no memory for the page codec's buffer");
	}
	*ret = c;
	return 0;
}

void codec_free(struct codec *c)
{
	if (!c)
		return;
	free(c->scratch);
	free(c);
}

void codec_set_link_rate(struct codec *c, uint64_t bytes_per_second)
{
	c->link_rate = bytes_per_second;
}

/* Whether this piece is to be packed: because it pays, or to find out. */
static bool codec_wants_lz4(struct codec *c)
{
	if (!c->lz4_allowed)
		return false;
	if (codec_lz4_pays(&c->sample, c->link_rate) || ++c->pieces_skipped >= CODEC_SAMPLE_EVERY) {
		c->pieces_skipped = 0;
		return true;
	}
	return false;
}

static void encode_data(struct codec *c, const uint8_t *data, bool pack, struct page_segment *s)
{
	size_t length = s->pages * PAGE_BYTES, packed = 0;
	uint8_t *out = c->scratch + c->scratch_used;

	if (pack) {
		uint64_t start = clock_now_ns();

		packed = codec_lz4_ops.encode(data, length, out, c->scratch_bytes - c->scratch_used);
		codec_sample_add(&c->sample, length, packed ? packed : length, clock_now_ns() - start);
	}
	if (packed) {
		s->encoding = ENCODING_LZ4;
		s->payload = out;
		s->payload_bytes = (uint32_t)packed;
		c->scratch_used += packed;
	} else {
		s->encoding = ENCODING_RAW;
		s->payload = data;
		s->payload_bytes = (uint32_t)length;
	}
}

int codec_encode(struct codec *c, const uint8_t *data, uint32_t pages, struct page_segment *ret_segments)
{
	bool pack = codec_wants_lz4(c);
	uint32_t first = 0;
	int n = 0;

	if (pages > CODEC_PIECE_PAGES)
		return -EINVAL;
	c->scratch_used = 0;
	while (first < pages) {
		bool zero = codec_is_zero(data + first * PAGE_BYTES, PAGE_BYTES);
		uint32_t end = first + 1;
		struct page_segment *s = &ret_segments[n++];

		while (end < pages && codec_is_zero(data + end * PAGE_BYTES, PAGE_BYTES) == zero)
			end++;
		*s = (struct page_segment){ .encoding = ENCODING_ZERO, .first = first, .pages = end - first };
		if (!zero)
			encode_data(c, data + first * PAGE_BYTES, pack, s);
		first = end;
	}
	return n;
}

int codec_decode(enum page_encoding encoding, const uint8_t *payload, size_t payload_bytes, uint32_t pages,
		 uint8_t *out)
{
	size_t length = pages * PAGE_BYTES;

	if (!pages || pages > CODEC_PIECE_PAGES || payload_bytes > length)
		return -EBADMSG;
	switch (encoding) {
	case ENCODING_RAW:
		if (payload_bytes != length)
			return -EBADMSG;
		memcpy(out, payload, length);
		return 0;
	case ENCODING_LZ4:
		return codec_lz4_ops.decode(payload, payload_bytes, out, length);
	case ENCODING_ZERO:
	case ENCODING_INVALID:
	case ENCODING_MAX:
	default:
		return -EBADMSG;
	}
}
