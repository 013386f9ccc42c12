/*
 * Fuzzing of memory/codec and memory/delta: payloads of a peer are refused or fill exactly the pages they claim, and what is encoded here decodes
 * to the same bytes.
 *
 * Input: one byte of how, one of how many pages, then the payload. Payload and output lie in blocks of exactly their
 * length. A broken promise aborts.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "memory/codec.h"
#include "memory/delta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Which promise was broken, whatever the compiler made of the abort(). */
static void must_at(bool promise, int line)
{
	if (promise)
		return;
	fprintf(stderr, "fuzz-codec.c:%d: a promise is broken\n", line);
	abort();
}
#define must(promise) must_at(promise, __LINE__)

static void fuzz_decode(enum page_encoding encoding, uint32_t pages, const uint8_t *data, size_t size)
{
	_cleanup_free_ uint8_t *payload = malloc(size + !size), *out = malloc(pages * PAGE_BYTES + !pages);
	_cleanup_free_ uint8_t *again = malloc(pages * PAGE_BYTES + !pages);
	int r;

	must(payload && out && again);
	memcpy(payload, data, size);
	memset(out, 0x5a, pages * PAGE_BYTES);
	memset(again, 0xa5, pages * PAGE_BYTES);
	r = codec_decode(encoding, payload, size, pages, out);
	must(r == 0 || r == -EBADMSG);
	must(r < 0 || (encoding >= ENCODING_RAW && encoding <= ENCODING_ZSTD));
	must(codec_decode(encoding, payload, size, pages, again) == r);
	/* Every byte was written: none shows what was there before. */
	must(r < 0 || !memcmp(out, again, pages * PAGE_BYTES));
}

/* Onto two versions of a page: accepted for both or for none, and the words that it has are the same in both then. */
static void fuzz_delta(const uint8_t *data, size_t size)
{
	_cleanup_free_ uint8_t *delta = malloc(size + !size), *one = malloc(PAGE_BYTES), *two = malloc(PAGE_BYTES);
	uint8_t back[DELTA_PAGE_MAX], zeros[PAGE_BYTES] = { 0 };
	int r, n;

	must(delta && one && two);
	memcpy(delta, data, size);
	memset(one, 0, PAGE_BYTES);
	memset(two, 0xa5, PAGE_BYTES);
	r = delta_apply(one, delta, size);
	must(r == 0 || r == -EBADMSG);
	must(delta_apply(two, delta, size) == r);
	for (size_t i = 0; i < PAGE_BYTES && !r; i++)
		must(two[i] == one[i] || (two[i] == 0xa5 && one[i] == 0));
	/* What changed says it all. */
	n = delta_encode(zeros, one, back);
	if (r < 0 || n < 0)
		return;
	must(delta_apply(zeros, back, (size_t)n) == 0 && !memcmp(zeros, one, PAGE_BYTES));
}

static void check_segment(const struct page_segment *s, uint8_t *out)
{
	if (s->encoding == ENCODING_ZERO)
		memset(out + s->first * PAGE_BYTES, 0, s->pages * PAGE_BYTES);
	else
		must(codec_decode(s->encoding, s->payload, s->payload_bytes, s->pages, out + s->first * PAGE_BYTES) ==
		     0);
}

/* The payload, repeated or followed by zeros, as the pages of a workload. */
static void fuzz_round_trip(bool repeat, uint32_t pages, const uint8_t *data, size_t size)
{
	size_t length = pages * PAGE_BYTES;
	_cleanup_free_ uint8_t *in = calloc(1, length), *out = malloc(length);
	struct page_segment segments[CODEC_PIECE_PAGES];
	struct codec *codec = NULL;
	uint32_t next = 0;
	int n;

	must(in && out && codec_new(ENCODINGS_PACKED, &codec, NULL) == 0);
	for (size_t at = 0; at < length && size && (repeat || !at); at += size)
		memcpy(in + at, data, MIN(size, length - at));
	memset(out, 0x5a, length);
	codec_set_link_rate(codec, 1000000); /* narrow: packing pays */
	n = codec_encode(codec, in, pages, segments);
	must(n >= 1 && n <= (int)pages);
	for (int i = 0; i < n; i++) {
		must(segments[i].first == next && segments[i].pages >= 1);
		next += segments[i].pages;
		must(next <= pages);
		check_segment(&segments[i], out);
	}
	must(next == pages && !memcmp(in, out, length));
	codec_free(codec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t pages;

	if (size < 2)
		return 0;
	/* Few pages are as good as many, and much faster; 0 and 257 are out of bounds. */
	pages = data[1] == 255 ? CODEC_PIECE_PAGES + 1 : data[1] == 254 ? CODEC_PIECE_PAGES : data[1] % 5;
	if (data[0] == 127)
		fuzz_delta(data + 2, size - 2);
	else if (data[0] < 128)
		fuzz_decode((enum page_encoding)(data[0] % (ENCODING_MAX + 1)), pages, data + 2, size - 2);
	else if (pages >= 1 && pages <= CODEC_PIECE_PAGES)
		fuzz_round_trip(data[0] & 1, pages, data + 2, size - 2);
	return 0;
}
