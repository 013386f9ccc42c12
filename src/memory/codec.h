/*
 * The codec: a piece of up to CODEC_PIECE_PAGES pages becomes segments that are zero, raw, or packed with lz4 or zstd.
 *
 * Pure; any thread with its own struct codec. One encoder per encoding behind a small ops table.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/page.h"

#define CODEC_PIECE_PAGES 256 /* 1 MiB: the longest payload of one frame */

enum page_encoding {
	ENCODING_INVALID,
	ENCODING_ZERO,	    /* no payload: the pages read as zeros */
	ENCODING_RAW,	    /* pages * 4096 bytes */
	ENCODING_LZ4,	    /* one LZ4 block (not frame) of the pages */
	ENCODING_ZSTD,	    /* one zstd frame of the pages */
	ENCODING_DELTA,	    /* what changed since the version that was sent last: delta.h */
	ENCODING_DUPLICATE, /* where the target has the same bytes: duplicates.h */
	ENCODING_MAX,
};

/* Sets of encodings. Zero and raw are always in. */
#define ENCODING_BIT(encoding) (1U << (encoding))
#define ENCODINGS_PACKED (ENCODING_BIT(ENCODING_LZ4) | ENCODING_BIT(ENCODING_ZSTD))
#define ENCODINGS_ALL (ENCODINGS_PACKED | ENCODING_BIT(ENCODING_DELTA) | ENCODING_BIT(ENCODING_DUPLICATE))

/* "zero", "raw", "lz4", ...; NULL: none of them. */
const char *encoding_name(enum page_encoding encoding);

/* How many pages went in one, and how many bytes that took. */
struct encoding_count {
	uint64_t pages, bytes;
};

struct page_segment {
	enum page_encoding encoding;
	uint32_t first; /* page within the piece */
	uint32_t pages;
	const uint8_t *payload; /* into the input or into the codec's scratch; valid until the next encode */
	uint32_t payload_bytes;
};

/* The link's rate where none was measured: 1 Gbit/s. */
#define CODEC_RATE_ASSUMED 125000000ULL

struct codec;

/* encodings: those of ENCODINGS_PACKED that may be used; others are not looked at. */
int codec_new(uint32_t encodings, struct codec **ret, struct error *err);
void codec_free(struct codec *c);

/* The link's rate as last measured, in bytes per second; 0 unknown, and nothing is packed. A way to pack is used while sampling shows that packing
 * and sending takes less time than sending raw (memory.md, Reading and sending). */
void codec_set_link_rate(struct codec *c, uint64_t bytes_per_second);

/* Splits `pages` pages at data into segments (at most CODEC_PIECE_PAGES of them). Returns their number. */
int codec_encode(struct codec *c, const uint8_t *data, uint32_t pages, struct page_segment *ret_segments);

/* Decodes a payload from a peer into exactly pages * 4096 bytes at out. -EBADMSG for anything malformed, and for encodings that do not
 * stand alone. ENCODING_ZERO is not decoded here: the store makes a hole. */
int codec_decode(enum page_encoding encoding, const uint8_t *payload, size_t payload_bytes, uint32_t pages,
		 uint8_t *out);

/* Whether `length` bytes (a multiple of 32, 32-byte aligned) are all zero. Fast. */
bool codec_is_zero(const void *data, size_t length);
