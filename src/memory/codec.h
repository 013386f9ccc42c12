/*
 * The codec: a piece of up to CODEC_PIECE_PAGES pages becomes segments that are zero, raw or lz4.
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
	ENCODING_ZERO, /* no payload: the pages read as zeros */
	ENCODING_RAW,  /* pages * 4096 bytes */
	ENCODING_LZ4,  /* one LZ4 block (not frame) of the pages */
	ENCODING_MAX,
};

struct page_segment {
	enum page_encoding encoding;
	uint32_t first; /* page within the piece */
	uint32_t pages;
	const uint8_t *payload; /* into the input or into the codec's scratch; valid until the next encode */
	uint32_t payload_bytes;
};

struct codec;

/* lz4_allowed: false sends raw. */
int codec_new(bool lz4_allowed, struct codec **ret, struct error *err);
void codec_free(struct codec *c);

/* The link's rate as last measured, in bytes per second; 0 unknown. lz4 is used while sampling shows that compressing
 * and sending takes less time than sending raw (memory.md, Reading and sending). */
void codec_set_link_rate(struct codec *c, uint64_t bytes_per_second);

/* Splits `pages` pages at data into segments (at most CODEC_PIECE_PAGES of them). Returns their number. */
int codec_encode(struct codec *c, const uint8_t *data, uint32_t pages, struct page_segment *ret_segments);

/* Decodes a payload from a peer into exactly pages * 4096 bytes at out. -EBADMSG for anything malformed. ENCODING_ZERO
 * is not decoded here: the store makes a hole. */
int codec_decode(enum page_encoding encoding, const uint8_t *payload, size_t payload_bytes, uint32_t pages,
		 uint8_t *out);

/* Whether `length` bytes (a multiple of 32, 32-byte aligned) are all zero. Fast. */
bool codec_is_zero(const void *data, size_t length);
