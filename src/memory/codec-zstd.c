/*
 * zstd: one frame per segment, at the fastest level, of a length that both sides know from the page count. Pure; any thread.
 *
 * ZSTD_decompress() stays within both buffers whatever the payload says, and takes no window of its own as long as all of the output
 * is one buffer (zstd.h); anything but the exact length is malformed.
 */
#include <errno.h>
#include <zstd.h>

#include "memory/codec-internal.h"

#define LEVEL 1

static size_t zstd_encode(const uint8_t *data, size_t length, uint8_t *out, size_t room, void *context)
{
	size_t limit = MIN(room, length - length / 32);
	size_t n = ZSTD_compressCCtx(context, out, limit, data, length, LEVEL);

	return ZSTD_isError(n) ? 0 : n;
}

static int zstd_decode(const uint8_t *payload, size_t payload_bytes, uint8_t *out, size_t length)
{
	size_t n = ZSTD_decompress(out, length, payload, payload_bytes);

	return !ZSTD_isError(n) && n == length ? 0 : -EBADMSG;
}

static void *zstd_begin(void)
{
	return ZSTD_createCCtx();
}

static void zstd_end(void *context)
{
	ZSTD_freeCCtx(context);
}

const struct encoding_ops codec_zstd_ops = {
	.encoding = ENCODING_ZSTD, .begin = zstd_begin, .end = zstd_end, .encode = zstd_encode, .decode = zstd_decode
};
