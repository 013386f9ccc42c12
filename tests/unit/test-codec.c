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
#include "memory/link-meter.h"

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
	assert_int_equal(codec_new(ENCODINGS_PACKED, &c, NULL), 0);
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
		uint32_t allowed;
		uint64_t rate;
		enum content content;
		enum page_encoding expected;
	} cases[] = {
		{ ENCODING_BIT(ENCODING_LZ4), 1000000, CONTENT_TEXT, ENCODING_LZ4 },
		{ ENCODING_BIT(ENCODING_ZSTD), 1000000, CONTENT_TEXT, ENCODING_ZSTD },
		{ ENCODINGS_PACKED, 1000000, CONTENT_RANDOM, ENCODING_RAW },
		{ ENCODINGS_PACKED, UINT64_MAX, CONTENT_TEXT, ENCODING_RAW },
		{ 0, 1000000, CONTENT_TEXT, ENCODING_RAW },
		{ ENCODINGS_ALL & ~ENCODINGS_PACKED, 1000000, CONTENT_TEXT, ENCODING_RAW },
		{ ENCODINGS_PACKED, 1000000, CONTENT_ZERO, ENCODING_ZERO },
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

#define RAW CODEC_WAYS
enum { LZ4, ZSTD };

/* Samples of lz4 and of zstd, and what is chosen, from raw. */
static void test_policy_table(void **state)
{
	static const struct {
		struct codec_sample samples[CODEC_WAYS];
		uint64_t rate;
		size_t current, chosen;
	} cases[] = {
		/* nothing known */
		{ { { 0 } }, 0, RAW, RAW },
		/* 1 s per GB to pack, half the size: at 1 GB/s, and at 125 MB/s */
		{ { { 1000000, 500000, 1000000 } }, 1000000000, RAW, RAW },
		{ { { 1000000, 500000, 1000000 } }, 125000000, RAW, LZ4 },
		{ { { 1000000, 500000, 1000000 } }, 0, RAW, LZ4 },
		/* just below and just above a tenth better than raw; once it is in use, than a tenth worse */
		{ { { 1000000, 500000, 1000000 } }, 770000000, RAW, LZ4 },
		{ { { 1000000, 500000, 1000000 } }, 780000000, RAW, RAW },
		{ { { 1000000, 500000, 1000000 } }, 980000000, LZ4, LZ4 },
		{ { { 1000000, 500000, 1000000 } }, 990000000, LZ4, RAW },
		/* nothing gained */
		{ { { 1000000, 1000000, 1 }, { 1000000, 1000000, 1 } }, 1, RAW, RAW },
		{ { { 1000000, 1100000, 1 }, { 1000000, 1000000, 1 } }, 1, LZ4, RAW },
		/* a slow machine on a slow link */
		{ { { 1000000, 900000, 100000000 } }, 125000000, RAW, RAW },
		/* zstd packs twice as well and takes four times as long: on a link of 1 Gbit/s and on one of 10 */
		{ { { 1000000, 500000, 1000000 }, { 1000000, 250000, 4000000 } }, 12500000, LZ4, ZSTD },
		{ { { 1000000, 500000, 1000000 }, { 1000000, 250000, 4000000 } }, 125000000, LZ4, LZ4 },
		{ { { 1000000, 500000, 1000000 }, { 1000000, 250000, 2000000 } }, 62500000, LZ4, ZSTD },
		{ { { 1000000, 500000, 1000000 }, { 1000000, 250000, 2000000 } }, 400000000, ZSTD, LZ4 },
		{ { { 1000000, 500000, 1000000 }, { 1000000, 250000, 2000000 } }, UINT64_MAX, ZSTD, RAW },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(codec_choose(cases[i].samples, cases[i].rate, cases[i].current), cases[i].chosen);
}

/* A sample forgets: after enough bytes of another kind the decision turns. */
static void test_policy_forgets(void **state)
{
	struct codec_sample s[CODEC_WAYS] = { 0 };
	int pieces = 0;

	(void)state;
	for (int i = 0; i < 1000; i++)
		codec_sample_add(&s[LZ4], 1 << 20, 1 << 20, 1000000);
	assert_int_equal(codec_choose(s, 125000000, RAW), RAW);
	while (codec_choose(s, 125000000, RAW) == RAW) {
		codec_sample_add(&s[LZ4], 1 << 20, 1 << 14, 1000000);
		assert_true(++pieces < 64);
	}
}

static void write_mib(struct link_meter *m, int n, uint64_t *now, bool waited, uint64_t make_ns, uint64_t write_ns)
{
	for (int i = 0; i < n; i++) {
		struct link_write w = { .bytes = 1 << 20, .waited = waited, .before_cpu_ns = *now / 4 };

		w.before_ns = *now += make_ns;
		w.after_ns = *now += write_ns;
		w.before_cpu_ns += make_ns / 4; /* others have three quarters of the processor */
		w.after_cpu_ns = w.before_cpu_ns + write_ns / 4;
		link_meter_add(m, &w);
	}
}

/* A link that is waited for carries what went in all the time; one that is not carries more than that. */
static void test_link_meter(void **state)
{
	struct link_meter m = { 0 };
	uint64_t now = 1000;

	(void)state;
	/* 1 MiB every 10 ms, of which 5 are spent in writing: 105 MB/s, not 210 */
	write_mib(&m, 40, &now, true, 5000000, 5000000);
	assert_in_range(m.rate, 100000000, 115000000);
	assert_true(m.wait > 3.9 && m.wait < 4.1);
	assert_in_range(link_meter_rate(&m), 400000000, 450000000);
	/* a pause does not count */
	now += 5000000000;
	link_meter_begin(&m);
	write_mib(&m, 40, &now, true, 5000000, 5000000);
	assert_in_range(m.rate, 100000000, 115000000);
	/* 10 ms of packing, 0.1 of writing: raised step by step, */
	write_mib(&m, 20, &now, false, 10000000, 100000);
	assert_in_range(m.rate, 120000000, 200000000);
	/* up to what writing alone would carry */
	write_mib(&m, 400, &now, false, 10000000, 100000);
	assert_in_range(m.rate, 9000000000, 11000000000);
	/* and one that became narrow is known at once: a sample may be half of each */
	write_mib(&m, 40, &now, true, 1000000, 9000000);
	assert_in_range(m.rate, 100000000, 115000000);
	/* the first sample is what writing costs */
	m = (struct link_meter){ 0 };
	write_mib(&m, 2, &now, false, 5000000, 1000000);
	assert_in_range(m.rate, 1000000000, 1100000000);
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

	assert_int_equal(codec_decode(ENCODING_DELTA, page, PAGE_BYTES, 1, out), -EBADMSG);
	assert_int_equal(codec_decode(ENCODING_DUPLICATE, page, PAGE_BYTES, 1, out), -EBADMSG);

	fill_page(page, CONTENT_TEXT, &seed);
	for (enum page_encoding way = ENCODING_LZ4; way <= ENCODING_ZSTD; way++) {
		assert_int_equal(codec_new(ENCODING_BIT(way), &c, NULL), 0);
		codec_set_link_rate(c, 1000000);
		assert_int_equal(codec_encode(c, page, 1, &segment), 1);
		assert_int_equal(segment.encoding, way);
		assert_true(segment.payload_bytes < sizeof(payload));
		/* The right block for another number of pages, cut short, or with bytes behind it. */
		assert_int_equal(codec_decode(way, segment.payload, segment.payload_bytes, 2, out), -EBADMSG);
		for (uint32_t n = 0; n < segment.payload_bytes; n++)
			assert_int_equal(codec_decode(way, segment.payload, n, 1, out), -EBADMSG);
		memcpy(payload, segment.payload, segment.payload_bytes);
		for (int i = 0; i < 20000; i++) {
			payload[(uint32_t)rand_r(&seed) % segment.payload_bytes] = (uint8_t)rand_r(&seed);
			/* Any answer, but within bounds: the sanitizer and valgrind runs watch. */
			codec_decode(way, payload, segment.payload_bytes, 1, out);
		}
		codec_free(c);
	}
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
		cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_choice),
		cmocka_unit_test(test_policy_table), cmocka_unit_test(test_policy_forgets),
		cmocka_unit_test(test_link_meter),   cmocka_unit_test(test_hostile_payloads),
		cmocka_unit_test(test_is_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
