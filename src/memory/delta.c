/*
 * Differences of pages: see delta.h. Pure; any thread.
 *
 * A pair of counts is half as long as a word, so a run ends at the first word that did not change.
 */
#include "memory/delta.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define WORD_BYTES 8U
#define PAGE_WORDS ((uint32_t)(PAGE_BYTES / WORD_BYTES))
#define HEAD_BYTES 4U
#define STEP_WORDS 8U

static bool same_word(const uint8_t *a, const uint8_t *b, uint32_t i)
{
	return !memcmp(a + (size_t)i * WORD_BYTES, b + (size_t)i * WORD_BYTES, WORD_BYTES);
}

/* The first word from `at` on that differs. */
static uint32_t skip_same(const uint8_t *before, const uint8_t *now, uint32_t at)
{
	while (at < PAGE_WORDS) {
		size_t byte = (size_t)at * WORD_BYTES;

		if (at % STEP_WORDS == 0 && !memcmp(before + byte, now + byte, (size_t)STEP_WORDS * WORD_BYTES))
			at += STEP_WORDS;
		else if (same_word(before, now, at))
			at++;
		else
			break;
	}
	return at;
}

static void put16(uint8_t *p, uint32_t value)
{
	uint16_t v = htole16((uint16_t)value);

	memcpy(p, &v, sizeof(v));
}

static uint32_t get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

int delta_encode(const uint8_t *before, const uint8_t *now, uint8_t out[DELTA_PAGE_MAX])
{
	uint32_t at = 0, done = 0;
	size_t n = 0;

	for (;;) {
		uint32_t start = skip_same(before, now, at), words = 0;
		size_t bytes;

		if (start == PAGE_WORDS)
			return (int)n;
		while (start + words < PAGE_WORDS && !same_word(before, now, start + words))
			words++;
		bytes = (size_t)words * WORD_BYTES;
		if (n + HEAD_BYTES + bytes > DELTA_PAGE_MAX)
			return -1;
		put16(out + n, start - done);
		put16(out + n + 2, words);
		memcpy(out + n + HEAD_BYTES, now + (size_t)start * WORD_BYTES, bytes);
		n += HEAD_BYTES + bytes;
		at = done = start + words;
	}
}

int delta_apply(uint8_t *page, const uint8_t *delta, size_t bytes)
{
	uint32_t at = 0;

	while (bytes) {
		uint32_t skip, words;

		if (bytes < HEAD_BYTES)
			return -EBADMSG;
		skip = get16(delta);
		words = get16(delta + 2);
		if (!words || skip + words > PAGE_WORDS - at || (size_t)words * WORD_BYTES > bytes - HEAD_BYTES)
			return -EBADMSG;
		at += skip;
		memcpy(page + (size_t)at * WORD_BYTES, delta + HEAD_BYTES, (size_t)words * WORD_BYTES);
		at += words;
		delta += HEAD_BYTES + (size_t)words * WORD_BYTES;
		bytes -= HEAD_BYTES + (size_t)words * WORD_BYTES;
	}
	return 0;
}
