/*
 * Unit tests of the codec: round trips of mixed pieces, hostile payloads, zero detection, and the lz4 policy as a table.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "memory/codec-internal.h"

enum content { CONTENT_ZERO, CONTENT_TEXT, CONTENT_RANDOM };

static void fill_page(uint8_t *page, enum content content, unsigned int *seed)
{
	for (size_t i = 0; i < PAGE_BYTES; i++)
		page[i] = content == CONTENT_ZERO   ? 0
			  : content == CONTENT_TEXT ? (uint8_t) "the quick brown fox "[i % 20]
						    : (uint8_t)rand_r(seed);
	if (content == CONTENT_RANDOM)
		page[0] |= 1;
}

/* What comes out of encode and decode is what went in; segments cover the piece; zero pages are never sent. */
static void test_round_trip(void **state)
{
	uint8_t *data = aligned_alloc(4096, CODEC_PIECE_BYTES), *out = aligned_alloc(4096, CODEC_PIECE_BYTES);
	static struct page_segment segments[CODEC_PIECE_PAGES];
	enum content contents[CODEC_PIECE_PAGES];
	unsigned int seed = 7;
	struct codec *c;

	(void)state;
	assert_int_equal(codec_new(true, &c, NULL), 0);
	for (int round = 0; round < 200; round++) {
		uint32_t pages = 1 + (uint32_t)rand_r(&seed) % CODEC_PIECE_PAGES, at = 0;
		uint32_t mix = (uint32_t)rand_r(&seed) % 5 + 1;
		int n;

		codec_set_link_rate(c, round % 2 ? 1000000 : UINT64_MAX);
		for (uint32_t i = 0; i < pages; i++) {
			if (!i || !((uint32_t)rand_r(&seed) % mix))
				contents[i] = (enum content)(rand_r(&seed) % 3);
			else
				contents[i] = contents[i - 1];
			fill_page(data + i * PAGE_BYTES, contents[i], &seed);
		}
		n = codec_encode(c, data, pages, segments);
		assert_true(n > 0 && (uint32_t)n <= pages);
		memset(out, 0xee, CODEC_PIECE_BYTES);
		for (int i = 0; i < n; i++) {
			struct page_segment *s = &segments[i];

			assert_int_equal(s->first, at);
			for (uint32_t p = s->first; p < s->first + s->pages; p++)
				assert_int_equal(contents[p] == CONTENT_ZERO, s->encoding == ENCODING_ZERO);
			if (s->encoding == ENCODING_ZERO)
				memset(out + at * PAGE_BYTES, 0, s->pages * PAGE_BYTES);
			else
				assert_int_equal(codec_decode(s->encoding, s->payload, s->payload_bytes, s->pages,
							      out + at * PAGE_BYTES),
						 0);
			at += s->pages;
		}
		assert_int_equal(at, pages);
		assert_memory_equal(data, out, pages * PAGE_BYTES);
	}
	assert_int_equal(codec_encode(c, data, CODEC_PIECE_PAGES + 1, segments), -EINVAL);
	codec_free(c);
	free(data);
	free(out);
}

/* On a slow link text is packed and random bytes are not; on a fast one nothing is; never when not allowed. */
static void test_choice(void **state)
{
	static const struct {
		bool allowed;
		uint64_t rate;
		enum content content;
		enum page_encoding expected;
	} cases[] = {
		{ true, 1000000, CONTENT_TEXT, ENCODING_LZ4 },	  { true, 1000000, CONTENT_RANDOM, ENCODING_RAW },
		{ true, UINT64_MAX, CONTENT_TEXT, ENCODING_RAW }, { false, 1000000, CONTENT_TEXT, ENCODING_RAW },
		{ true, 1000000, CONTENT_ZERO, ENCODING_ZERO },
	};
	uint8_t *data = aligned_alloc(4096, CODEC_PIECE_BYTES);
	static struct page_segment segments[CODEC_PIECE_PAGES];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned int seed = 3;
		struct codec *c;

		assert_int_equal(codec_new(cases[i].allowed, &c, NULL), 0);
		codec_set_link_rate(c, cases[i].rate);
		for (uint32_t p = 0; p < CODEC_PIECE_PAGES; p++)
			fill_page(data + p * PAGE_BYTES, cases[i].content, &seed);
		/* The first piece is the sample. */
		assert_int_equal(codec_encode(c, data, CODEC_PIECE_PAGES, segments), 1);
		assert_int_equal(codec_encode(c, data, CODEC_PIECE_PAGES, segments), 1);
		assert_int_equal(segments[0].encoding, cases[i].expected);
		codec_free(c);
	}
	free(data);
}

static void test_policy_table(void **state)
{
	static const struct {
		struct codec_sample sample;
		uint64_t rate;
		bool pays;
	} cases[] = {
		/* nothing known yet: try */
		{ { 0, 0, 0 }, 0, true },
		/* 1 GB/s, half the size: saves 0.5 s per GB at 1 GB/s and costs 1 s */
		{ { 1000000, 500000, 1000000 }, 1000000000, false },
		/* the same at 125 MB/s saves 4 s per GB */
		{ { 1000000, 500000, 1000000 }, 125000000, true },
		{ { 1000000, 500000, 1000000 }, 0, true },
		/* just below and just above: (1 - ratio) / rate against 1 s per GB */
		{ { 1000000, 500000, 1000000 }, 499000000, true },
		{ { 1000000, 500000, 1000000 }, 501000000, false },
		/* nothing gained */
		{ { 1000000, 1000000, 1 }, 1, false },
		{ { 1000000, 1100000, 1 }, 1, false },
		/* a slow machine on a slow link */
		{ { 1000000, 900000, 100000000 }, 125000000, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(codec_lz4_pays(&cases[i].sample, cases[i].rate), cases[i].pays);
}

/* A sample forgets: after enough bytes of another kind the decision turns. */
static void test_policy_forgets(void **state)
{
	struct codec_sample s = { 0 };
	int pieces = 0;

	(void)state;
	for (int i = 0; i < 1000; i++)
		codec_sample_add(&s, 1 << 20, 1 << 20, 1000000);
	assert_false(codec_lz4_pays(&s, 125000000));
	while (!codec_lz4_pays(&s, 125000000)) {
		codec_sample_add(&s, 1 << 20, 1 << 14, 1000000);
		assert_true(++pieces < 64);
	}
}

static void test_hostile_payloads(void **state)
{
	uint8_t *out = malloc(CODEC_PIECE_BYTES), payload[600];
	static uint8_t page[PAGE_BYTES];
	struct page_segment segment;
	unsigned int seed = 11;
	struct codec *c;

	(void)state;
	assert_int_equal(codec_decode(ENCODING_RAW, page, PAGE_BYTES, 1, out), 0);
	assert_int_equal(codec_decode(ENCODING_RAW, page, PAGE_BYTES - 1, 1, out), -EBADMSG);
	assert_int_equal(codec_decode(ENCODING_RAW, page, PAGE_BYTES, 0, out), -EBADMSG);
	assert_int_equal(codec_decode(ENCODING_RAW, page, PAGE_BYTES, 2, out), -EBADMSG);
	assert_int_equal(codec_decode(ENCODING_LZ4, page, 0, 1, out), -EBADMSG);
	assert_int_equal(codec_decode(ENCODING_LZ4, page, PAGE_BYTES, CODEC_PIECE_PAGES + 1, out), -EBADMSG);
	assert_int_equal(codec_decode(ENCODING_ZERO, page, 0, 1, out), -EBADMSG);
	assert_int_equal(codec_decode(ENCODING_INVALID, page, PAGE_BYTES, 1, out), -EBADMSG);
	assert_int_equal(codec_decode((enum page_encoding)77, page, PAGE_BYTES, 1, out), -EBADMSG);

	fill_page(page, CONTENT_TEXT, &seed);
	assert_int_equal(codec_new(true, &c, NULL), 0);
	codec_set_link_rate(c, 1000000);
	assert_int_equal(codec_encode(c, page, 1, &segment), 1);
	assert_int_equal(segment.encoding, ENCODING_LZ4);
	assert_true(segment.payload_bytes < sizeof(payload));
	/* The right block for another number of pages, cut short, or with bytes behind it. */
	assert_int_equal(codec_decode(ENCODING_LZ4, segment.payload, segment.payload_bytes, 2, out), -EBADMSG);
	for (uint32_t n = 0; n < segment.payload_bytes; n++)
		assert_int_equal(codec_decode(ENCODING_LZ4, segment.payload, n, 1, out), -EBADMSG);
	memcpy(payload, segment.payload, segment.payload_bytes);
	for (int i = 0; i < 20000; i++) {
		payload[(uint32_t)rand_r(&seed) % segment.payload_bytes] = (uint8_t)rand_r(&seed);
		/* Any answer, but within bounds: the sanitizer and valgrind runs watch. */
		codec_decode(ENCODING_LZ4, payload, segment.payload_bytes, 1, out);
	}
	codec_free(c);
	free(out);
}

/* One byte anywhere makes it not zero, for every length in steps of 32. */
static void test_is_zero(void **state)
{
	uint8_t *data = aligned_alloc(4096, 8192);

	(void)state;
	memset(data, 0, 8192);
	data[PAGE_BYTES] = 1;
	for (size_t length = 0; length <= PAGE_BYTES; length += 32)
		assert_true(codec_is_zero(data, length));
	for (size_t length = 32; length <= PAGE_BYTES; length += 32 * 31)
		for (size_t at = 0; at < length; at++) {
			data[at] = 0x80;
			assert_false(codec_is_zero(data, length));
			data[at] = 0;
		}
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),	 cmocka_unit_test(test_choice),
		cmocka_unit_test(test_policy_table),	 cmocka_unit_test(test_policy_forgets),
		cmocka_unit_test(test_hostile_payloads), cmocka_unit_test(test_is_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
