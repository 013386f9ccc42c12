/*
 * Inside the codec: the ops table of the encodings, and the decision whether lz4 pays.
 */
#pragma once

#include "memory/codec.h"

/* Pages that one raw/lz4 segment may hold in all: the payload of one frame. */
#define CODEC_PIECE_BYTES ((size_t)CODEC_PIECE_PAGES * PAGE_BYTES)

struct encoding_ops {
	/* Packs `length` bytes into out (`room` bytes). The number of bytes, or 0 when they do not get smaller. */
	size_t (*encode)(const uint8_t *data, size_t length, uint8_t *out, size_t room);
	/* Exactly `length` bytes to out, or -EBADMSG. */
	int (*decode)(const uint8_t *payload, size_t payload_bytes, uint8_t *out, size_t length);
};

extern const struct encoding_ops codec_lz4_ops;

/* The link's rate that is assumed while none was measured: 1 Gbit/s. */
#define CODEC_RATE_ASSUMED 125000000ULL

/* After lz4 was found not to pay, every so many pieces one is packed all the same, to notice a change. */
#define CODEC_SAMPLE_EVERY 64

/* What packing lately did: sums that fade by half when they grow old. */
struct codec_sample {
	uint64_t raw_bytes, packed_bytes, ns;
};

void codec_sample_add(struct codec_sample *s, uint64_t raw_bytes, uint64_t packed_bytes, uint64_t ns);

/* Whether packing and sending the packed bytes takes less time than sending the raw ones. Pure. A sample without
 * bytes says yes: there must be a first time. */
bool codec_lz4_pays(const struct codec_sample *s, uint64_t link_rate);
