/*
 * When lz4 pays: pure arithmetic over what packing lately did and what the link carries.
 *
 * One encoder thread feeds one channel, so packing and sending of a piece follow one another: packing costs
 * ns/raw_bytes per byte and saves (raw - packed)/rate.
 */
#include "memory/codec-internal.h"

/* About 64 pieces of 1 MiB. */
#define SAMPLE_BYTES_MAX (64ULL << 20)

void codec_sample_add(struct codec_sample *s, uint64_t raw_bytes, uint64_t packed_bytes, uint64_t ns)
{
	s->raw_bytes += raw_bytes;
	s->packed_bytes += packed_bytes;
	s->ns += ns;
	if (s->raw_bytes > SAMPLE_BYTES_MAX) {
		s->raw_bytes /= 2;
		s->packed_bytes /= 2;
		s->ns /= 2;
	}
}

bool codec_lz4_pays(const struct codec_sample *s, uint64_t link_rate)
{
	double rate = (double)(link_rate ? link_rate : CODEC_RATE_ASSUMED);

	if (!s->raw_bytes)
		return true;
	if (s->packed_bytes >= s->raw_bytes)
		return false;
	return (double)s->ns / 1e9 < (double)(s->raw_bytes - s->packed_bytes) / rate;
}
