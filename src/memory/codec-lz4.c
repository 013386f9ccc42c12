/*
 * lz4: one block (not a frame) per segment, whose length both sides know from the page count. Pure; any thread.
 *
 * LZ4_decompress_safe() stays within both buffers whatever the payload says (lz4.h); anything but the exact
 * length is malformed.
 */
#include <errno.h>
#include <lz4.h>

#include "memory/codec-internal.h"

static size_t lz4_encode(const uint8_t *data, size_t length, uint8_t *out, size_t room, void *context)
{
	/* A segment that saves less than 1/32 is not worth unpacking. Giving less room makes lz4 stop early. */
	size_t limit = MIN(room, length - length / 32);
	int n = LZ4_compress_fast_extState(context, (const char *)data, (char *)out, (int)length, (int)limit, 1);

	return n > 0 ? (size_t)n : 0;
}

static int lz4_decode(const uint8_t *payload, size_t payload_bytes, uint8_t *out, size_t length)
{
	int n = LZ4_decompress_safe((const char *)payload, (char *)out, (int)payload_bytes, (int)length);

	return n >= 0 && (size_t)n == length ? 0 : -EBADMSG;
}

static void *lz4_begin(void)
{
	return malloc((size_t)LZ4_sizeofState());
}

static void lz4_end(void *context)
{
	free(context);
}

const struct encoding_ops codec_lz4_ops = {
	.encoding = ENCODING_LZ4, .begin = lz4_begin, .end = lz4_end, .encode = lz4_encode, .decode = lz4_decode
};
