/*
 * Ranges of bits in a window's bitmaps. Atomic per word, so threads may work on neighbouring pages.
 */
#include "memory/store-internal.h"

/* The bits of [first, end) that lie in word i. */
static uint64_t word_mask(uint32_t i, uint32_t first, uint32_t end)
{
	uint32_t low = MAX(first, i * 64) - i * 64, high = MIN(end, (i + 1) * 64) - i * 64;
	uint64_t upto = high == 64 ? UINT64_MAX : (1ULL << high) - 1;

	return upto & (UINT64_MAX << low);
}

static uint32_t popcount(uint64_t word)
{
	return (uint32_t)__builtin_popcountll(word);
}

uint32_t bitmap_set(bitmap_word *map, uint32_t first, uint32_t n)
{
	uint32_t end = first + n, changed = 0;

	for (uint32_t i = first / 64; n && i <= (end - 1) / 64; i++) {
		uint64_t mask = word_mask(i, first, end);

		changed += popcount(mask & ~atomic_fetch_or(&map[i], mask));
	}
	return changed;
}

uint32_t bitmap_clear(bitmap_word *map, uint32_t first, uint32_t n)
{
	uint32_t end = first + n, changed = 0;

	for (uint32_t i = first / 64; n && i <= (end - 1) / 64; i++) {
		uint64_t mask = word_mask(i, first, end);

		/* A window is mostly empty: a look is a tenth of the time. */
		if (map[i] & mask)
			changed += popcount(mask & atomic_fetch_and(&map[i], ~mask));
	}
	return changed;
}

uint32_t bitmap_count(bitmap_word *map, uint32_t first, uint32_t n)
{
	uint32_t end = first + n, count = 0;

	for (uint32_t i = first / 64; n && i <= (end - 1) / 64; i++)
		count += popcount(map[i] & word_mask(i, first, end));
	return count;
}

uint32_t bitmap_find(bitmap_word *map, uint32_t first, uint32_t end, bool set)
{
	for (uint32_t i = first / 64; first < end && i <= (end - 1) / 64; i++) {
		uint64_t word = set ? map[i] : ~map[i];

		if (!word)
			continue;
		word &= word_mask(i, first, end);
		if (word)
			return i * 64 + (uint32_t)__builtin_ctzll(word);
	}
	return end;
}
