/*
 * Which way of packing pays: pure arithmetic over what packing lately did and what the link carries.
 *
 * Packing costs ns/raw_bytes per byte, and packed/raw of it are to be sent. One encoder thread feeds one channel, and what is in the socket
 * leaves while it packs the next piece: what takes longer counts, and a part of the other, since the two do not overlap without a gap.
 */
#include "memory/codec-internal.h"

/* About 64 pieces of 1 MiB. */
#define SAMPLE_BYTES_MAX (64ULL << 20)
#define BETTER 0.9
#define GAP 4

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

double codec_cost(const struct codec_sample *s, uint64_t link_rate)
{
	double send = 1e9 / (double)(link_rate ? link_rate : CODEC_RATE_ASSUMED), pack;

	if (!s->raw_bytes)
		return send;
	pack = (double)s->ns / (double)s->raw_bytes;
	send *= (double)s->packed_bytes / (double)s->raw_bytes;
	return MAX(pack, send) + MIN(pack, send) / GAP;
}

size_t codec_choose(const struct codec_sample samples[CODEC_WAYS], uint64_t link_rate, size_t current)
{
	static const struct codec_sample none;
	size_t best = CODEC_WAYS;
	double least = codec_cost(&none, link_rate);

	if (current != CODEC_WAYS)
		least /= BETTER;
	for (size_t i = 0; i < CODEC_WAYS; i++) {
		double cost = codec_cost(&samples[i], link_rate);

		if (i != current)
			cost /= BETTER;
		/* What does not get smaller costs time and nothing else. */
		if (samples[i].packed_bytes < samples[i].raw_bytes && cost < least) {
			least = cost;
			best = i;
		}
	}
	return best;
}
