/*
 * Is it all zero? Pure; any thread.
 *
 * 128 bytes are ORed together per step with the compiler's vectors; a page with data is left at the first
 * step that shows some, which for real pages is the first one.
 */
#include <string.h>

#include "memory/codec.h"

typedef uint64_t vector256 __attribute__((vector_size(32), aligned(1)));

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* The sanitizers' runtimes are not up when the loader resolves the clones. */
#define BEST_CPU __attribute__((target_clones("avx2", "default")))
#else
#define BEST_CPU
#endif

BEST_CPU static bool is_zero_vectors(const uint8_t *data, size_t length)
{
	for (size_t at = 0; at + 128 <= length; at += 128) {
		const vector256 *v = (const vector256 *)(const void *)(data + at);
		vector256 any = v[0] | v[1] | v[2] | v[3];

		if (any[0] | any[1] | any[2] | any[3])
			return false;
	}
	return true;
}

bool codec_is_zero(const void *data, size_t length)
{
	const uint8_t *bytes = data;
	size_t whole = length & ~(size_t)127;

	if (!is_zero_vectors(bytes, whole))
		return false;
	for (size_t at = whole; at < length; at += 8) {
		uint64_t word;

		memcpy(&word, bytes + at, 8);
		if (word)
			return false;
	}
	return true;
}
