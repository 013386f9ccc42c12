/*
 * Unit tests of frames: the exact bytes of every type, round trips, every limit from both sides, inputs of every
 * length, and headers that are not ours. Messages have test-message.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "wire/frame.h"

/* "50 48 4c 31": the bytes of a frame as one reads them in a dump. */
static size_t from_hex(const char *hex, uint8_t *out)
{
	size_t n = 0;

	for (; *hex; hex += hex[2] ? 3 : 2) {
		unsigned int byte;

		assert_int_equal(sscanf(hex, "%2x", &byte), 1);
		out[n++] = (uint8_t)byte;
	}
	return n;
}

static void assert_bytes(const uint8_t *bytes, size_t length, const char *hex)
{
	uint8_t expected[256];

	assert_int_equal(from_hex(hex, expected), length);
	assert_memory_equal(bytes, expected, length);
}

static void assert_refused(int r, const struct error *err, const char *words)
{
	assert_int_equal(r, -EPROTO);
	assert_int_equal(err->number, EPROTO);
	if (!strstr(err->text, words))
		fail_msg("\"%s\" does not say \"%s\"", err->text, words);
}

static const struct {
	const char *header; /* of a body of `min` bytes */
	enum frame_type type;
	uint32_t min, max;
} types[] = {
	{ "50 48 4c 31 01 00 01 00 01 00 00 00 00 00 00 00", FRAME_CONTROL, 1, 16 << 20 },
	{ "50 48 4c 31 01 00 02 00 08 00 00 00 00 00 00 00", FRAME_CHANNEL, 8, 8 },
	{ "50 48 4c 31 01 00 03 00 18 00 00 00 00 00 00 00", FRAME_PAGES, 24, 24 + (1 << 20) },
	{ "50 48 4c 31 01 00 04 00 08 00 00 00 00 00 00 00", FRAME_BARRIER, 8, 8 },
	{ "50 48 4c 31 01 00 05 00 09 00 00 00 00 00 00 00", FRAME_IMAGE_BEGIN, 9, 8 + 128 },
	{ "50 48 4c 31 01 00 06 00 09 00 00 00 00 00 00 00", FRAME_IMAGE_DATA, 9, 8 + (1 << 20) },
	{ "50 48 4c 31 01 00 07 00 28 00 00 00 00 00 00 00", FRAME_IMAGE_REFERENCES, 40, 8 + (1 << 20) },
	{ "50 48 4c 31 01 00 08 00 00 00 00 00 00 00 00 00", FRAME_STREAM, 0, 256 << 10 },
	{ "50 48 4c 31 01 00 09 00 00 00 00 00 00 00 00 00", FRAME_WANT, 0, 64 << 10 },
};

static int decode_length(enum frame_type type, uint32_t length, struct frame_header *ret, struct error *err)
{
	uint8_t bytes[FRAME_HEADER_BYTES];

	frame_encode_header(bytes, type, length);
	return frame_decode_header(bytes, ret, err);
}

static void test_header_limits(void **state)
{
	struct frame_header h;
	struct error err = { 0 };
	uint8_t bytes[FRAME_HEADER_BYTES];

	(void)state;
	assert_int_equal(ARRAY_SIZE(types), FRAME_TYPE_MAX - 1);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		frame_encode_header(bytes, types[i].type, types[i].min);
		assert_bytes(bytes, sizeof(bytes), types[i].header);
		assert_int_equal(decode_length(types[i].type, types[i].min, &h, &err), 0);
		assert_int_equal(h.type, types[i].type);
		assert_int_equal(h.length, types[i].min);
		assert_int_equal(decode_length(types[i].type, types[i].max, &h, &err), 0);
		assert_int_equal(h.length, types[i].max);
		assert_refused(decode_length(types[i].type, types[i].max + 1, &h, &err), &err, "outside its limits");
		assert_refused(decode_length(types[i].type, UINT32_MAX, &h, &err), &err, "outside its limits");
		if (types[i].min)
			assert_refused(decode_length(types[i].type, types[i].min - 1, &h, &err), &err,
				       "outside its limits");
		/* What failed left the output alone. */
		assert_int_equal(h.length, types[i].max);
	}
}

/* Every bit of the fixed fields matters. */
static void test_header_of_others(void **state)
{
	static const struct {
		const char *header, *words;
	} bad[] = {
		{ "50 48 4c 32 01 00 04 00 08 00 00 00 00 00 00 00", "magic" },
		{ "31 4c 48 50 01 00 04 00 08 00 00 00 00 00 00 00", "magic" },
		{ "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", "magic" },
		{ "47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a", "magic" },
		{ "50 48 4c 31 00 00 04 00 08 00 00 00 00 00 00 00", "version 0" },
		{ "50 48 4c 31 02 00 04 00 08 00 00 00 00 00 00 00", "version 2" },
		{ "50 48 4c 31 00 01 04 00 08 00 00 00 00 00 00 00", "version 256" },
		{ "50 48 4c 31 01 00 00 00 08 00 00 00 00 00 00 00", "unknown type 0" },
		{ "50 48 4c 31 01 00 0a 00 08 00 00 00 00 00 00 00", "unknown type 10" },
		{ "50 48 4c 31 01 00 04 01 08 00 00 00 00 00 00 00", "unknown type 260" },
		{ "50 48 4c 31 01 00 ff ff 08 00 00 00 00 00 00 00", "unknown type 65535" },
		{ "50 48 4c 31 01 00 04 00 08 00 00 00 01 00 00 00", "reserved" },
		{ "50 48 4c 31 01 00 04 00 08 00 00 00 00 00 00 80", "reserved" },
	};
	uint8_t good[FRAME_HEADER_BYTES], bytes[FRAME_HEADER_BYTES];
	struct frame_header h;
	struct error err = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(from_hex(bad[i].header, bytes), sizeof(bytes));
		assert_refused(frame_decode_header(bytes, &h, &err), &err, bad[i].words);
	}
	frame_encode_header(good, FRAME_BARRIER, FRAME_BARRIER_BYTES);
	for (size_t bit = 0; bit < sizeof(good) * 8; bit++) {
		memcpy(bytes, good, sizeof(bytes));
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(frame_decode_header(bytes, &h, &err), -EPROTO);
	}
}

static void test_pages_bytes(void **state)
{
	static const struct frame_pages raw = {
		.space = 0x0304, .pages = 2, .address = 0x7ffffffde000, .encoding = 2, .round = 0x0a0b0c0d
	};
	uint8_t head[FRAME_PAGES_HEAD_BYTES];
	struct frame_pages p = { 0 };
	struct error err = { 0 };

	(void)state;
	frame_encode_pages(head, &raw, 8192);
	assert_bytes(head, sizeof(head),
		     "50 48 4c 31 01 00 03 00 18 20 00 00 00 00 00 00 "
		     "04 03 00 00 02 00 00 00 00 e0 fd ff ff 7f 00 00 02 00 00 00 0d 0c 0b 0a");
	assert_int_equal(frame_decode_pages(head + FRAME_HEADER_BYTES, FRAME_PAGES_BYTES + 8192, &p, &err), 0);
	assert_memory_equal(&p, &raw, sizeof(p));
}

#define TOP FRAME_ADDRESS_MAX
static const struct {
	uint32_t space, pages;
	uint64_t address;
	uint32_t encoding, payload;
	bool fine;
} places[] = {
	{ 0, 1, 0, 1, 0, false },
	{ 1, 1, 0, 1, 0, true },
	{ 65536, 1, 0, 1, 0, true },
	{ 65537, 1, 0, 1, 0, false },
	{ UINT32_MAX, 1, 0, 1, 0, false },
	{ 1, 0, 0, 1, 0, false },
	{ 1, UINT32_MAX, 0, 1, 0, true },
	{ 1, 1, 1, 1, 0, false },
	{ 1, 1, 4095, 1, 0, false },
	{ 1, 1, 4097, 1, 0, false },
	{ 1, 1, TOP - 4096, 1, 0, true },
	{ 1, 2, TOP - 4096, 1, 0, false },
	{ 1, 1, TOP, 1, 0, false },
	{ 1, 1, UINT64_MAX &PAGE_MASK, 1, 0, false },
	{ 1, UINT32_MAX, TOP - (uint64_t)UINT32_MAX * 4096, 1, 0, true },
	{ 1, UINT32_MAX, TOP - (uint64_t)UINT32_MAX * 4096 + 4096, 1, 0, false },
	/* zero */
	{ 1, 1, 0, 1, 1, false },
	{ 1, 1, 0, 1, 4096, false },
	/* raw */
	{ 1, 1, 0, 2, 0, false },
	{ 1, 1, 0, 2, 4095, false },
	{ 1, 1, 0, 2, 4096, true },
	{ 1, 1, 0, 2, 4097, false },
	{ 1, 256, 0, 2, 256 * 4096, true },
	{ 1, 257, 0, 2, 257 * 4096, false },
	{ 1, 1 << 20, 0, 2, 0, false }, /* 2^20 * 4096 is 0 in 32 bits */
	/* lz4 */
	{ 1, 1, 0, 3, 0, false },
	{ 1, 1, 0, 3, 1, true },
	{ 1, 1, 0, 3, 4095, true },
	{ 1, 1, 0, 3, 4096, false },
	{ 1, 256, 0, 3, 256 * 4096 - 1, true },
	{ 1, 257, 0, 3, 1, false },
	/* unknown */
	{ 1, 1, 0, 0, 0, false },
	{ 1, 1, 0, 4, 4096, false },
	{ 1, 1, 0, UINT32_MAX, 0, false },
};

static void test_pages_limits(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		struct frame_pages in = { places[i].space, places[i].pages, places[i].address, places[i].encoding, 1 };
		struct frame_pages out = { 0 }, none = { 0 };
		uint8_t head[FRAME_PAGES_HEAD_BYTES];
		struct error err = { 0 };
		int r;

		frame_encode_pages(head, &in, places[i].payload);
		r = frame_decode_pages(head + FRAME_HEADER_BYTES, FRAME_PAGES_BYTES + places[i].payload, &out, &err);
		if ((r == 0) != places[i].fine)
			fail_msg("row %zu: %d %s", i, r, err.text);
		assert_memory_equal(&out, places[i].fine ? &in : &none, sizeof(out));
		if (!places[i].fine)
			assert_refused(r, &err, "pages");
	}
}

/* A body shorter than the fixed part, by what its header says. */
static void test_pages_short(void **state)
{
	struct frame_pages in = { .space = 1, .pages = 1, .encoding = 1 }, out;
	uint8_t head[FRAME_PAGES_HEAD_BYTES];
	struct error err = { 0 };

	(void)state;
	frame_encode_pages(head, &in, 0);
	for (uint32_t length = 0; length < FRAME_PAGES_BYTES; length++)
		assert_refused(frame_decode_pages(head + FRAME_HEADER_BYTES, length, &out, &err), &err, "pages");
	assert_int_equal(frame_decode_pages(head + FRAME_HEADER_BYTES, FRAME_PAGES_BYTES, &out, &err), 0);
}

static void test_barrier(void **state)
{
	uint8_t frame[FRAME_HEADER_BYTES + FRAME_BARRIER_BYTES];
	uint8_t *body = frame + FRAME_HEADER_BYTES;
	struct error err = { 0 };
	uint32_t round = 0;

	(void)state;
	frame_encode_barrier(frame, 0xfedcba98);
	assert_bytes(frame, sizeof(frame), "50 48 4c 31 01 00 04 00 08 00 00 00 00 00 00 00 98 ba dc fe 00 00 00 00");
	assert_int_equal(frame_decode_barrier(body, FRAME_BARRIER_BYTES, &round, &err), 0);
	assert_int_equal(round, 0xfedcba98);
	for (uint32_t length = 0; length < 2 * FRAME_BARRIER_BYTES; length++)
		if (length != FRAME_BARRIER_BYTES)
			assert_refused(frame_decode_barrier(body, length, &round, &err), &err, "barrier");
	body[7] = 1;
	assert_refused(frame_decode_barrier(body, FRAME_BARRIER_BYTES, &round, &err), &err, "barrier");
}

static void test_channel(void **state)
{
	uint8_t frame[FRAME_HEADER_BYTES + FRAME_CHANNEL_BYTES];
	uint8_t *body = frame + FRAME_HEADER_BYTES;
	enum frame_channel_kind kind;
	struct error err = { 0 };
	uint32_t index;

	(void)state;
	frame_encode_channel(frame, CHANNEL_KIND_FS, 63);
	assert_bytes(frame, sizeof(frame), "50 48 4c 31 01 00 02 00 08 00 00 00 00 00 00 00 02 00 00 00 3f 00 00 00");
	for (uint32_t k = 0; k < 7; k++) {
		int r;

		body[0] = (uint8_t)k;
		r = frame_decode_channel(body, FRAME_CHANNEL_BYTES, &kind, &index, &err);
		if (k >= 1 && k <= 5) {
			assert_int_equal(r, 0);
			assert_int_equal(kind, k);
			assert_int_equal(index, 63);
		} else {
			assert_refused(r, &err, "unknown kind");
		}
	}
	body[0] = 1;
	body[3] = 0x80;
	assert_refused(frame_decode_channel(body, FRAME_CHANNEL_BYTES, &kind, &index, &err), &err, "unknown kind");
	for (uint32_t length = 0; length < 2 * FRAME_CHANNEL_BYTES; length++)
		if (length != FRAME_CHANNEL_BYTES)
			assert_refused(frame_decode_channel(body, length, &kind, &index, &err), &err, "malformed");
}

static int decode_begin(uint64_t size, const char *name, size_t length, uint64_t *ret_size, char *ret_name)
{
	uint8_t body[FRAME_OFFSET_BYTES + 256] = { 0 };
	struct error err = { 0 };
	int r;

	frame_encode_u64(body, size);
	memcpy(body + FRAME_OFFSET_BYTES, name, length);
	r = frame_decode_image_begin(body, (uint32_t)(FRAME_OFFSET_BYTES + length), ret_size, ret_name, &err);
	if (r < 0)
		assert_refused(r, &err, "image");
	return r;
}

static void test_image_begin(void **state)
{
	static const char *const bad[] = { ".",	  "..",	  ".hidden",  "a/b", "/etc/passwd", "../x",  "a b",
					   "a\n", "a\\b", "\xc3\xa4", "a:b", "a*",	    "a\x7f", "pages-1.img/" };
	char longest[FRAME_NAME_MAX + 2], name[FRAME_NAME_MAX + 1] = "kept";
	uint8_t body[FRAME_OFFSET_BYTES];
	struct error err = { 0 };
	uint64_t size = 0;

	(void)state;
	frame_encode_u64(body, 0x0102030405060708);
	assert_bytes(body, sizeof(body), "08 07 06 05 04 03 02 01");
	memset(longest, 'a', sizeof(longest));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(decode_begin(1, bad[i], strlen(bad[i]), &size, name), -EPROTO);
	assert_int_equal(decode_begin(1, "a\0b", 3, &size, name), -EPROTO);
	assert_int_equal(decode_begin(1, "a", 0, &size, name), -EPROTO);
	assert_int_equal(decode_begin(1, longest, FRAME_NAME_MAX + 1, &size, name), -EPROTO);
	assert_int_equal(decode_begin(FRAME_IMAGE_MAX + 1, "a", 1, &size, name), -EPROTO);
	assert_string_equal(name, "kept");
	for (uint32_t length = 0; length <= FRAME_OFFSET_BYTES; length++)
		assert_refused(frame_decode_image_begin(body, length, &size, name, &err), &err, "usable name");
	assert_int_equal(decode_begin(FRAME_IMAGE_MAX, longest, FRAME_NAME_MAX, &size, name), 0);
	assert_int_equal(size, FRAME_IMAGE_MAX);
	assert_int_equal(strlen(name), FRAME_NAME_MAX);
	assert_int_equal(decode_begin(0, "pages-1.img", 11, &size, name), 0);
	assert_int_equal(size, 0);
	assert_string_equal(name, "pages-1.img");
	assert_int_equal(decode_begin(0, "Core_4711..img", 14, &size, name), 0);
}

static void test_image_data(void **state)
{
	static const struct {
		uint64_t offset;
		uint32_t bytes;
		uint64_t image;
		bool fine;
	} pieces[] = {
		{ 0, 1, 1, true },
		{ 0, 1, 0, false },
		{ 0, 2, 1, false },
		{ 1, 1, 1, false },
		{ 1, 1, 2, true },
		{ 99, 1, 100, true },
		{ 99, 2, 100, false },
		{ 100, 1, 100, false },
		{ 101, 1, 100, false },
		{ 0, 0, 100, false },
		{ UINT64_MAX, 1, 100, false },
		{ UINT64_MAX - 1, 2, 100, false },
		{ 1ULL << 40, 1, 1ULL << 40, false },
		{ (1ULL << 40) - 1, 1, 1ULL << 40, true },
	};
	uint8_t body[FRAME_OFFSET_BYTES + 2] = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		uint64_t offset = 77;
		uint32_t n = 88;
		struct error err = { 0 };
		int r;

		frame_encode_u64(body, pieces[i].offset);
		r = frame_decode_image_data(body, FRAME_OFFSET_BYTES + pieces[i].bytes, pieces[i].image, &offset, &n,
					    &err);
		if ((r == 0) != pieces[i].fine)
			fail_msg("row %zu: %d %s", i, r, err.text);
		assert_int_equal(offset, r ? 77 : pieces[i].offset);
		assert_int_equal(n, r ? 88 : pieces[i].bytes);
	}
}

static void test_references(void **state)
{
	static const struct frame_reference reference = { 0x7ffffffde000, 0x1111222233334444, 0x5555666677778888,
							  65536 };
	uint8_t body[FRAME_OFFSET_BYTES + 2 * FRAME_REFERENCE_BYTES];
	uint8_t *second = body + FRAME_OFFSET_BYTES + FRAME_REFERENCE_BYTES;
	struct frame_reference out = { 0 };
	struct error err = { 0 };
	uint64_t offset;
	uint32_t n;

	(void)state;
	frame_encode_u64(body, 8192);
	frame_encode_reference(body + FRAME_OFFSET_BYTES, &reference);
	frame_encode_reference(second, &reference);
	assert_bytes(second, FRAME_REFERENCE_BYTES,
		     "00 e0 fd ff ff 7f 00 00 44 44 33 33 22 22 11 11 88 88 77 77 66 66 55 55 00 00 01 00 00 00 00 00");
	for (uint32_t length = 0; length <= sizeof(body); length++) {
		bool whole = length == 40 || length == 72;

		assert_int_equal(frame_decode_image_references(body, length, 16384, &offset, &n, &err) == 0, whole);
	}
	assert_int_equal(offset, 8192);
	assert_int_equal(n, 2);
	assert_int_equal(frame_decode_image_references(body, sizeof(body), 16383, &offset, &n, &err), -EPROTO);
	frame_encode_u64(body, 8191);
	assert_int_equal(frame_decode_image_references(body, sizeof(body), 1 << 20, &offset, &n, &err), -EPROTO);
	frame_encode_u64(body, UINT64_MAX & PAGE_MASK);
	assert_int_equal(frame_decode_image_references(body, sizeof(body), 1 << 20, &offset, &n, &err), -EPROTO);
	assert_int_equal(frame_decode_reference(body, 1, &out, &err), 0);
	assert_memory_equal(&out, &reference, sizeof(out));
}

static void test_reference_limits(void **state)
{
	static const struct {
		struct frame_reference reference;
		bool fine;
	} rows[] = {
		{ { 0, 0, 0, 1 }, true },
		{ { 0, 0, 0, 0 }, false },
		{ { 0, 0, 0, 65537 }, false },
		{ { 1, 0, 0, 1 }, false },
		{ { TOP - 4096, 0, 0, 1 }, true },
		{ { TOP, 0, 0, 1 }, false },
		{ { UINT64_MAX << 12, 0, 0, 1 }, false },
	};
	uint8_t body[FRAME_OFFSET_BYTES + FRAME_REFERENCE_BYTES] = { 0 };
	struct frame_reference out;
	struct error err = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		frame_encode_reference(body + FRAME_OFFSET_BYTES, &rows[i].reference);
		if ((frame_decode_reference(body, 0, &out, &err) == 0) != rows[i].fine)
			fail_msg("row %zu", i);
	}
	frame_encode_reference(body + FRAME_OFFSET_BYTES, &rows[0].reference);
	body[sizeof(body) - 4] = 1;
	assert_refused(frame_decode_reference(body, 0, &out, &err), &err, "impossible place");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header_limits),	 cmocka_unit_test(test_header_of_others),
		cmocka_unit_test(test_pages_bytes),	 cmocka_unit_test(test_pages_limits),
		cmocka_unit_test(test_pages_short),	 cmocka_unit_test(test_barrier),
		cmocka_unit_test(test_channel),		 cmocka_unit_test(test_image_begin),
		cmocka_unit_test(test_image_data),	 cmocka_unit_test(test_references),
		cmocka_unit_test(test_reference_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
