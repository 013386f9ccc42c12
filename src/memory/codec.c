/*
 * The codec: see codec.h. Pure but for the clock; any thread with its own struct codec.
 *
 * A piece is cut where zero pages begin and end; what lies between goes raw (the payload points into the
 * input) or packed (into scratch). Invariant: the segments of a piece are ascending, adjacent and cover it.
 *
 * Payloads to decode come from a peer: every length is checked before use.
 */
#include "memory/codec.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "memory/codec-internal.h"

static const struct encoding_ops *const ways[CODEC_WAYS] = { &codec_lz4_ops, &codec_zstd_ops };

struct codec {
	void *contexts[CODEC_WAYS]; /* NULL: not allowed */
	struct codec_sample samples[CODEC_WAYS];
	size_t way; /* in use; CODEC_WAYS: raw */
	uint64_t link_rate;
	uint64_t pieces; /* with something to pack, since the ways were last tried */
	uint8_t *scratch;
	size_t scratch_bytes, scratch_used;
};

const char *encoding_name(enum page_encoding encoding)
{
	static const char *const names[ENCODING_MAX] = {
		[ENCODING_ZERO] = "zero", [ENCODING_RAW] = "raw",     [ENCODING_LZ4] = "lz4",
		[ENCODING_ZSTD] = "zstd", [ENCODING_DELTA] = "delta", [ENCODING_DUPLICATE] = "duplicate"
	};

	return encoding < ENCODING_MAX ? names[encoding] : NULL;
}

static int make_contexts(struct codec *c, uint32_t encodings)
{
	for (size_t i = 0; i < CODEC_WAYS; i++) {
		if (!(encodings & ENCODING_BIT(ways[i]->encoding)))
			continue;
		c->contexts[i] = ways[i]->begin();
		if (!c->contexts[i])
			return -ENOMEM;
	}
	return 0;
}

int codec_new(uint32_t encodings, struct codec **ret, struct error *err)
{
	struct codec *c = calloc(1, sizeof(*c));

	if (!c)
		return error_set(err, ENOMEM, "no memory for the page codec");
	c->way = CODEC_WAYS;
	c->pieces = CODEC_SAMPLE_EVERY;
	/* Only what got smaller is stored, so a piece never needs more than its own length. */
	c->scratch_bytes = CODEC_PIECE_BYTES;
	c->scratch = encodings & ENCODINGS_PACKED ? malloc(c->scratch_bytes) : NULL;
	if ((encodings & ENCODINGS_PACKED && !c->scratch) || make_contexts(c, encodings) < 0) {
		codec_free(c);
		return error_set(err, ENOMEM, "no memory for the page codec's buffer");
	}
	*ret = c;
	return 0;
}

void codec_free(struct codec *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < CODEC_WAYS; i++)
		if (c->contexts[i])
			ways[i]->end(c->contexts[i]);
	free(c->scratch);
	free(c);
}

void codec_set_link_rate(struct codec *c, uint64_t bytes_per_second)
{
	c->link_rate = bytes_per_second;
}

/* Packs in one way. The sample counts as `weight` times as much; in processor time, because a thread that loses the processor in the
 * middle would tell nonsense. 0: it did not get smaller. */
static size_t pack(struct codec *c, size_t way, const uint8_t *data, size_t length, uint64_t weight)
{
	uint8_t *out = c->scratch + c->scratch_used;
	uint64_t start = clock_thread_ns();
	size_t n = ways[way]->encode(data, length, out, c->scratch_bytes - c->scratch_used, c->contexts[way]);

	codec_sample_add(&c->samples[way], length * weight, (n ? n : length) * weight,
			 (clock_thread_ns() - start) * weight);
	return n;
}

/* Now and then the ways that are not in use are tried on a few pages, for which the whole piece is taken. */
static void try_ways(struct codec *c, const uint8_t *data, uint32_t pages)
{
	uint32_t some = MIN(pages, CODEC_SAMPLE_PAGES);

	if (!c->scratch || ++c->pieces < CODEC_SAMPLE_EVERY)
		return;
	c->pieces = 0;
	for (size_t i = 0; i < CODEC_WAYS; i++) {
		if (i == c->way || !c->contexts[i])
			continue;
		/* The first time its memory is touched as well, which does not count. */
		if (!c->samples[i].raw_bytes)
			pack(c, i, data, some * PAGE_BYTES, 1);
		c->samples[i] = (struct codec_sample){ 0 };
		pack(c, i, data, some * PAGE_BYTES, (pages + some - 1) / some);
	}
}

static void encode_data(struct codec *c, const uint8_t *data, struct page_segment *s)
{
	size_t length = s->pages * PAGE_BYTES, packed = 0;

	if (c->link_rate) {
		try_ways(c, data, s->pages);
		c->way = codec_choose(c->samples, c->link_rate, c->way);
	}
	if (c->way < CODEC_WAYS)
		packed = pack(c, c->way, data, length, 1);
	if (packed) {
		s->encoding = ways[c->way]->encoding;
		s->payload = c->scratch + c->scratch_used;
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
			encode_data(c, data + first * PAGE_BYTES, s);
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
	case ENCODING_ZSTD:
		return codec_zstd_ops.decode(payload, payload_bytes, out, length);
	case ENCODING_ZERO:
	case ENCODING_DELTA:
	case ENCODING_DUPLICATE:
	case ENCODING_INVALID:
	case ENCODING_MAX:
	default:
		return -EBADMSG;
	}
}
