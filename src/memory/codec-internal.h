/*
 * Inside the codec: the ops table of the ways to pack, and the decision which of them pays.
 */
#pragma once

#include <stdlib.h>

#include "memory/codec.h"

/* Pages that one raw or packed segment may hold in all: the payload of one frame. */
#define CODEC_PIECE_BYTES ((size_t)CODEC_PIECE_PAGES * PAGE_BYTES)

struct encoding_ops {
	enum page_encoding encoding;
	/* What encode() works with; NULL: no memory. */
	void *(*begin)(void);
	void (*end)(void *context);
	/* Packs `length` bytes into out (`room` bytes). The number of bytes, or 0 when they do not get smaller. */
	size_t (*encode)(const uint8_t *data, size_t length, uint8_t *out, size_t room, void *context);
	/* Exactly `length` bytes to out, or -EBADMSG. */
	int (*decode)(const uint8_t *payload, size_t payload_bytes, uint8_t *out, size_t length);
};

extern const struct encoding_ops codec_lz4_ops, codec_zstd_ops;

/* Ways to pack, the lightest first. */
#define CODEC_WAYS 2

/* Every so many pieces the ways that are not in use are tried on a part of one, to notice a change: so many pages of it. */
#define CODEC_SAMPLE_EVERY 64
#define CODEC_SAMPLE_PAGES 16U

/* What packing lately did: sums that fade by half when they grow old. */
struct codec_sample {
	uint64_t raw_bytes, packed_bytes, ns;
};

void codec_sample_add(struct codec_sample *s, uint64_t raw_bytes, uint64_t packed_bytes, uint64_t ns);

/* ns per raw byte, to pack it and to send what it becomes. Without a sample: to send it as it is. Pure. */
double codec_cost(const struct codec_sample *s, uint64_t link_rate);

/* The way that costs least, CODEC_WAYS: raw. One that was not used last (`current`) must be better by a tenth, or it would be changed to and
 * fro. Pure. */
size_t codec_choose(const struct codec_sample samples[CODEC_WAYS], uint64_t link_rate, size_t current);
