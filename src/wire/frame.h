/*
 * Frames: what goes over a channel. No I/O here: encode, decode, limits.
 *
 * Every frame is a 16-byte header and `length` bytes of body, little-endian:
 *
 *     0  u32 magic "PHL1"      4  u16 version     6  u16 type     8  u32 length     12  u32 channel-wide zero
 *
 *     CONTROL            one protobuf Control message (proto/control.proto)        control channel, blocks channel
 *     CHANNEL            { u32 kind, u32 index }: the first frame of a further channel
 *     PAGES              { u32 space, u32 pages, u64 address, u32 encoding, u32 round } payload     data channels
 *     BARRIER            { u32 round, u32 zero }: everything of that round went before   data channels
 *     IMAGE_BEGIN        { u64 size } name                                         control channel
 *     IMAGE_DATA         { u64 offset } bytes                                      control channel
 *     IMAGE_REFERENCES   { u64 offset } n * { u64 address, u64 low, u64 high, u32 space, u32 zero }
 *     STREAM             bytes of the file system stream; length 0: its end        fs channel
 *     WANT               n * { u32 space, u32 pages, u64 address }: pages that stayed at the source; length 0: end of a list   page channels
 *
 * Everything from the peer goes through frame_decode_*(), which check magic, version, type, length, alignment and bounds;
 * what they return can be used without further checks of form.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/page.h"

#define FRAME_MAGIC 0x314c4850U
#define FRAME_VERSION 1
#define FRAME_HEADER_BYTES 16
#define FRAME_PAGES_BYTES 24 /* the fixed part of a PAGES body */
#define FRAME_BARRIER_BYTES 8
#define FRAME_CHANNEL_BYTES 8
#define FRAME_OFFSET_BYTES 8 /* the fixed part of IMAGE_* bodies */
#define FRAME_REFERENCE_BYTES 32
#define FRAME_WANT_BYTES 16 /* one place */
#define FRAME_WANT_MAX 4096 /* places in one frame */
#define FRAME_PIECE_PAGES 256
#define FRAME_CONTROL_MAX (16U << 20)
#define FRAME_CHUNK_MAX (1U << 20)
#define FRAME_STREAM_MAX (256U << 10)
#define FRAME_NAME_MAX 128
#define FRAME_IMAGE_MAX (1ULL << 40)
#define FRAME_SPACE_MAX 65536U
#define FRAME_ADDRESS_MAX (1ULL << 56)

enum frame_type {
	FRAME_INVALID,
	FRAME_CONTROL,
	FRAME_CHANNEL,
	FRAME_PAGES,
	FRAME_BARRIER,
	FRAME_IMAGE_BEGIN,
	FRAME_IMAGE_DATA,
	FRAME_IMAGE_REFERENCES,
	FRAME_STREAM,
	FRAME_WANT,
	FRAME_TYPE_MAX,
};

enum frame_channel_kind {
	CHANNEL_KIND_INVALID,
	CHANNEL_KIND_DATA,
	CHANNEL_KIND_FS,
	CHANNEL_KIND_CONTROL, /* in the place of one that broke */
	CHANNEL_KIND_PAGES,   /* post-copy; index 0: pages that faults wait for, 1: the others */
	CHANNEL_KIND_BLOCKS,  /* of large files; CONTROL frames both ways */
	CHANNEL_KIND_MAX,
};

struct frame_header {
	enum frame_type type;
	uint32_t length; /* of the body */
};

struct frame_pages {
	uint32_t space;	   /* 1 .. FRAME_SPACE_MAX */
	uint32_t pages;	   /* 1 .. FRAME_PIECE_PAGES; zeros: up to UINT32_MAX */
	uint64_t address;  /* page aligned, address + pages within FRAME_ADDRESS_MAX */
	uint32_t encoding; /* 1 zero, 2 raw, 3 lz4, 4 zstd, 5 delta, 6 duplicate: memory/codec.h */
	uint32_t round;
};

struct frame_reference {
	uint64_t address;   /* page aligned */
	uint64_t low, high; /* XXH3-128 of the page */
	uint32_t space;
};

void frame_encode_header(uint8_t out[FRAME_HEADER_BYTES], enum frame_type type, uint32_t length);

/* -EPROTO: not ours, another version, an unknown type, or longer than that type may be; err says which. */
int frame_decode_header(const uint8_t in[FRAME_HEADER_BYTES], struct frame_header *ret, struct error *err);

/* Header and fixed part of a PAGES frame with payload_bytes behind it: 40 bytes. */
#define FRAME_PAGES_HEAD_BYTES (FRAME_HEADER_BYTES + FRAME_PAGES_BYTES)
void frame_encode_pages(uint8_t out[FRAME_PAGES_HEAD_BYTES], const struct frame_pages *pages, uint32_t payload_bytes);

/* body_length: of the whole body. The payload is body_length - FRAME_PAGES_BYTES bytes long: 0 for zeros, pages * 4096 for
 * raw, less than that for the others. */
int frame_decode_pages(const uint8_t in[FRAME_PAGES_BYTES], uint32_t body_length, struct frame_pages *ret,
		       struct error *err);

/* The payload of a delta or of duplicates begins with the XXH3-128 of all of the frame's pages as they are to be: 16 bytes. */
#define FRAME_DIGEST_BYTES 16
struct frame_digest {
	uint64_t low, high;
};
void frame_encode_digest(uint8_t out[FRAME_DIGEST_BYTES], const struct frame_digest *digest);
void frame_decode_digest(const uint8_t in[FRAME_DIGEST_BYTES], struct frame_digest *ret);

/* Duplicates: after the digest, one of these for pages that follow each other at both places, or that are all the same one. */
#define FRAME_COPY_BYTES 32
struct frame_copy {
	uint64_t address; /* page aligned */
	uint64_t
		position; /* the last of them came as so manieth page of the channel, in this round; 0: in an earlier one */
	uint32_t space;	  /* 1 .. FRAME_SPACE_MAX */
	uint32_t pages;	  /* 1 .. FRAME_PIECE_PAGES: of the frame's */
	uint32_t channel; /* 0 when position is 0 */
	bool repeat;	  /* one page, so many times */
};
void frame_encode_copy(uint8_t out[FRAME_COPY_BYTES], const struct frame_copy *copy);
int frame_decode_copy(const uint8_t in[FRAME_COPY_BYTES], struct frame_copy *ret, struct error *err);

/* Delta: after the digest, for each page the length of its delta (memory/delta.h), then that. */
#define FRAME_DELTA_LENGTH_BYTES 2
void frame_encode_delta_length(uint8_t out[FRAME_DELTA_LENGTH_BYTES], uint32_t bytes);
uint32_t frame_decode_delta_length(const uint8_t in[FRAME_DELTA_LENGTH_BYTES]);

/* Header and body: 24 bytes. */
void frame_encode_barrier(uint8_t out[FRAME_HEADER_BYTES + FRAME_BARRIER_BYTES], uint32_t round);
int frame_decode_barrier(const uint8_t *body, uint32_t length, uint32_t *ret_round, struct error *err);

struct frame_want {
	uint32_t space;	  /* 1 .. FRAME_SPACE_MAX */
	uint32_t pages;	  /* >= 1 */
	uint64_t address; /* page aligned, address + pages within FRAME_ADDRESS_MAX */
};

/* Place number i of a body of WANT; length / FRAME_WANT_BYTES of them. -EPROTO also when the length is not a multiple of that. */
void frame_encode_want(uint8_t out[FRAME_WANT_BYTES], const struct frame_want *want);
int frame_decode_want(const uint8_t *body, uint32_t length, uint32_t i, struct frame_want *ret, struct error *err);

void frame_encode_channel(uint8_t out[FRAME_HEADER_BYTES + FRAME_CHANNEL_BYTES], enum frame_channel_kind kind,
			  uint32_t index);
int frame_decode_channel(const uint8_t *body, uint32_t length, enum frame_channel_kind *ret_kind, uint32_t *ret_index,
			 struct error *err);

/* The fixed part of IMAGE_BEGIN (size), IMAGE_DATA and IMAGE_REFERENCES (offset). */
void frame_encode_u64(uint8_t out[8], uint64_t value);

/* name gets a file name without slash that does not begin with a dot: [A-Za-z0-9._-]. */
int frame_decode_image_begin(const uint8_t *body, uint32_t length, uint64_t *ret_size, char name[FRAME_NAME_MAX + 1],
			     struct error *err);

/* *ret_bytes: how many bytes stand behind the offset in the body; offset + them <= image_size. */
int frame_decode_image_data(const uint8_t *body, uint32_t length, uint64_t image_size, uint64_t *ret_offset,
			    uint32_t *ret_bytes, struct error *err);

/* *ret_n references, to be decoded with frame_decode_reference(body, i); offset page aligned, all within the image. */
int frame_decode_image_references(const uint8_t *body, uint32_t length, uint64_t image_size, uint64_t *ret_offset,
				  uint32_t *ret_n, struct error *err);
void frame_encode_reference(uint8_t out[FRAME_REFERENCE_BYTES], const struct frame_reference *reference);
int frame_decode_reference(const uint8_t *body, uint32_t i, struct frame_reference *ret, struct error *err);
