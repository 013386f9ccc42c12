/*
 * Makes the seeds of fuzzing: seeds DIRECTORY writes DIRECTORY/wire/seed-* and DIRECTORY/codec/seed-*. The same bytes each time.
 */
#include <fcntl.h>
#include <lz4.h>
#include <stdarg.h>
#include <string.h>
#include <zstd.h>

#include "base/fd.h"
#include "memory/codec.h"
#include "memory/delta.h"
#include "unit/wire-sample.h"
#include "wire/frame.h"

enum { READ_STREAM, READ_BODY, READ_MESSAGE }; /* as in fuzz-wire.c */

static const char *directory;
static int failures;

static void save(const struct buffer *b, const char *fmt, ...)
{
	char path[4096];
	int n = snprintf(path, sizeof(path), "%s/", directory), r;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path + n, sizeof(path) - (size_t)n, fmt, ap);
	va_end(ap);
	r = fd_write_file(AT_FDCWD, path, b->data, b->length, 0644);
	if (r < 0) {
		fprintf(stderr, "seeds: cannot write %s: %s\n", path, strerror(-r));
		failures++;
	}
}

static void add_byte(struct buffer *b, unsigned int byte)
{
	uint8_t one = (uint8_t)byte;

	failures += buffer_append(b, &one, 1) < 0;
}

static void add_frame(struct buffer *b, enum frame_type type, const struct buffer *body)
{
	uint8_t header[FRAME_HEADER_BYTES];

	frame_encode_header(header, type, (uint32_t)body->length);
	failures += buffer_append(b, header, sizeof(header)) < 0;
	failures += buffer_append(b, body->data, body->length) < 0;
}

static void make_messages(struct buffer *stream)
{
	for (int kind = 1; kind <= WIRE_SAMPLE_KINDS; kind++) {
		_cleanup_buffer_ struct buffer packed = { 0 }, seed = { 0 };
		struct wire_sample sample;

		wire_sample_init(&sample, (Phaul__Wire__Control__KindCase)kind);
		failures += message_encode(&sample.control, &packed, NULL) < 0;
		add_byte(&seed, READ_MESSAGE);
		failures += buffer_append(&seed, packed.data, packed.length) < 0;
		save(&seed, "wire/seed-message-%s", message_name(sample.control.kind_case));
		add_frame(stream, FRAME_CONTROL, &packed);
	}
}

/* One body each, alone and in the stream. */
static void make_body(struct buffer *stream, enum frame_type type, const char *name, const struct buffer *body)
{
	_cleanup_buffer_ struct buffer seed = { 0 };

	add_byte(&seed, READ_BODY);
	add_byte(&seed, type);
	failures += buffer_append(&seed, body->data, body->length) < 0;
	save(&seed, "wire/seed-body-%s", name);
	add_frame(stream, type, body);
}

static void make_pages(struct buffer *stream, uint32_t pages, uint32_t encoding, uint32_t payload)
{
	struct frame_pages p = {
		.space = 7, .pages = pages, .address = 0x7f0000000000, .encoding = encoding, .round = 3
	};
	_cleanup_buffer_ struct buffer body = { 0 };
	uint8_t head[FRAME_PAGES_HEAD_BYTES];
	char name[32];

	frame_encode_pages(head, &p, payload);
	failures += buffer_append(&body, head + FRAME_HEADER_BYTES, FRAME_PAGES_BYTES) < 0;
	failures += buffer_reserve(&body, payload) < 0;
	memset(body.data + body.length, 0x33, payload);
	body.length += payload;
	snprintf(name, sizeof(name), "pages-%u-%u", encoding, pages);
	make_body(stream, FRAME_PAGES, name, &body);
}

static void make_duplicates(struct buffer *stream)
{
	struct frame_pages p = { .space = 7, .pages = 9, .address = 0x7f0000000000, .encoding = 6, .round = 3 };
	static const struct frame_copy copies[] = { { 0x400000, 0, 1, 4, 0, false }, { 0x7000, 77, 2, 5, 1, true } };
	uint8_t head[FRAME_PAGES_HEAD_BYTES], copy[FRAME_COPY_BYTES], digest[FRAME_DIGEST_BYTES] = { 1, 2, 3 };
	_cleanup_buffer_ struct buffer body = { 0 };

	frame_encode_pages(head, &p, FRAME_DIGEST_BYTES + 2 * FRAME_COPY_BYTES);
	failures += buffer_append(&body, head + FRAME_HEADER_BYTES, FRAME_PAGES_BYTES) < 0;
	failures += buffer_append(&body, digest, sizeof(digest)) < 0;
	for (size_t i = 0; i < ARRAY_SIZE(copies); i++) {
		frame_encode_copy(copy, &copies[i]);
		failures += buffer_append(&body, copy, sizeof(copy)) < 0;
	}
	make_body(stream, FRAME_PAGES, "pages-duplicates", &body);
}

static void make_images(struct buffer *stream)
{
	static const char name[] = "pages-1.img";
	_cleanup_buffer_ struct buffer begin = { 0 }, data = { 0 }, references = { 0 };
	struct frame_reference reference = { .address = 0x400000, .low = 11, .high = 22, .space = 1 };
	uint8_t fixed[FRAME_OFFSET_BYTES], wire[FRAME_REFERENCE_BYTES];

	frame_encode_u64(fixed, 4 * PAGE_BYTES);
	failures += buffer_append(&begin, fixed, sizeof(fixed)) < 0 || buffer_append(&begin, name, strlen(name)) < 0;
	make_body(stream, FRAME_IMAGE_BEGIN, "image-begin", &begin);
	frame_encode_u64(fixed, 0);
	failures += buffer_append(&data, fixed, sizeof(fixed)) < 0 || buffer_append(&data, "CRIU", 4) < 0;
	make_body(stream, FRAME_IMAGE_DATA, "image-data", &data);
	frame_encode_u64(fixed, 2 * PAGE_BYTES);
	failures += buffer_append(&references, fixed, sizeof(fixed)) < 0;
	for (int i = 0; i < 2; i++, reference.address += PAGE_BYTES) {
		frame_encode_reference(wire, &reference);
		failures += buffer_append(&references, wire, sizeof(wire)) < 0;
	}
	make_body(stream, FRAME_IMAGE_REFERENCES, "image-references", &references);
}

static void make_small(struct buffer *stream)
{
	uint8_t frame[FRAME_HEADER_BYTES + FRAME_WANT_BYTES];
	struct buffer body = { .data = frame + FRAME_HEADER_BYTES, .length = FRAME_CHANNEL_BYTES };
	struct buffer empty = { .data = frame };

	frame_encode_want(frame + FRAME_HEADER_BYTES, &(struct frame_want){ 1, 2, 4 * PAGE_BYTES });
	body.length = FRAME_WANT_BYTES;
	make_body(stream, FRAME_WANT, "want", &body);
	body.length = FRAME_CHANNEL_BYTES;
	frame_encode_barrier(frame, 3);
	make_body(stream, FRAME_BARRIER, "barrier", &body);
	frame_encode_channel(frame, CHANNEL_KIND_DATA, 1);
	make_body(stream, FRAME_CHANNEL, "channel-data", &body);
	frame_encode_channel(frame, CHANNEL_KIND_FS, 0);
	make_body(stream, FRAME_CHANNEL, "channel-fs", &body);
	make_body(stream, FRAME_STREAM, "stream", &body);
	add_frame(stream, FRAME_STREAM, &empty);
}

static void make_wire(void)
{
	_cleanup_buffer_ struct buffer stream = { 0 };

	add_byte(&stream, READ_STREAM);
	make_messages(&stream);
	make_pages(&stream, 1U << 20, 1, 0);
	make_pages(&stream, 1, 2, PAGE_BYTES);
	make_pages(&stream, 2, 3, 40);
	make_pages(&stream, 2, 4, 40);
	make_pages(&stream, 2, 5, FRAME_DIGEST_BYTES + 2 * 14);
	make_duplicates(&stream);
	make_images(&stream);
	make_small(&stream);
	save(&stream, "wire/seed-stream");
}

/* data: pages of it, made by `step`: 0 is constant, others count. */
static void make_codec(const char *name, uint32_t pages, unsigned int step)
{
	static uint8_t data[4 * PAGE_BYTES], packed[5 * PAGE_BYTES];
	_cleanup_buffer_ struct buffer lz4 = { 0 }, zstd = { 0 }, round_trip = { 0 };
	int n;

	for (size_t i = 0; i < pages * PAGE_BYTES; i++)
		data[i] = (uint8_t)(1 + i / 64 * step);
	n = LZ4_compress_default((const char *)data, (char *)packed, (int)(pages * PAGE_BYTES), sizeof(packed));
	add_byte(&lz4, ENCODING_LZ4);
	add_byte(&lz4, pages);
	failures += n <= 0 || buffer_append(&lz4, packed, (size_t)n) < 0;
	save(&lz4, "codec/seed-lz4-%s", name);
	n = (int)ZSTD_compress(packed, sizeof(packed), data, pages * PAGE_BYTES, 1);
	add_byte(&zstd, ENCODING_ZSTD);
	add_byte(&zstd, pages);
	failures += ZSTD_isError((size_t)n) || buffer_append(&zstd, packed, (size_t)n) < 0;
	save(&zstd, "codec/seed-zstd-%s", name);
	add_byte(&round_trip, 129);
	add_byte(&round_trip, pages);
	failures += buffer_append(&round_trip, data, 100 * pages) < 0;
	save(&round_trip, "codec/seed-round-trip-%s", name);
}

static void make_delta(void)
{
	_cleanup_buffer_ struct buffer delta = { 0 };
	static uint8_t before[PAGE_BYTES], now[PAGE_BYTES];
	uint8_t out[DELTA_PAGE_MAX];
	int n;

	memset(now + 8, 0x11, 20);
	memset(now + 4000, 0x22, 96);
	n = delta_encode(before, now, out);
	add_byte(&delta, 127);
	add_byte(&delta, 1);
	failures += n <= 0 || buffer_append(&delta, out, (size_t)n) < 0;
	save(&delta, "codec/seed-delta");
}

static void make_raw(void)
{
	_cleanup_buffer_ struct buffer raw = { 0 };

	add_byte(&raw, ENCODING_RAW);
	add_byte(&raw, 1);
	failures += buffer_reserve(&raw, PAGE_BYTES) < 0;
	memset(raw.data + raw.length, 0x11, PAGE_BYTES);
	raw.length += PAGE_BYTES;
	save(&raw, "codec/seed-raw");
}

int main(int argc, char **argv)
{
	static const char *const parts[] = { "wire", "codec" };
	char path[4096];

	if (argc != 2) {
		fprintf(stderr, "usage: seeds DIRECTORY\n");
		return 2;
	}
	directory = argv[1];
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		snprintf(path, sizeof(path), "%s/%s", directory, parts[i]);
		failures += dir_make(path, 0755) < 0;
	}
	make_wire();
	make_codec("constant", 1, 0);
	make_codec("lines", 2, 1);
	make_codec("rough", 4, 7);
	make_raw();
	make_delta();
	return failures ? 1 : 0;
}
