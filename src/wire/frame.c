/*
 * Frames: see frame.h. Pure functions; any thread.
 *
 * Invariant: a decoder leaves its ret_ outputs alone when it fails, and never reads past `length`.
 */
#include "wire/frame.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static void put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

void frame_encode_u64(uint8_t out[8], uint64_t value)
{
	put64(out, value);
}

/* The longest and shortest body of each type. */
static const struct {
	uint32_t min, max;
} frame_limits[FRAME_TYPE_MAX] = {
	[FRAME_CONTROL] = { 1, FRAME_CONTROL_MAX },
	[FRAME_CHANNEL] = { FRAME_CHANNEL_BYTES, FRAME_CHANNEL_BYTES },
	[FRAME_PAGES] = { FRAME_PAGES_BYTES, FRAME_PAGES_BYTES + FRAME_PIECE_PAGES *(uint32_t)PAGE_BYTES },
	[FRAME_BARRIER] = { FRAME_BARRIER_BYTES, FRAME_BARRIER_BYTES },
	[FRAME_IMAGE_BEGIN] = { FRAME_OFFSET_BYTES + 1, FRAME_OFFSET_BYTES + FRAME_NAME_MAX },
	[FRAME_IMAGE_DATA] = { FRAME_OFFSET_BYTES + 1, FRAME_OFFSET_BYTES + FRAME_CHUNK_MAX },
	[FRAME_IMAGE_REFERENCES] = { FRAME_OFFSET_BYTES + FRAME_REFERENCE_BYTES, FRAME_OFFSET_BYTES + FRAME_CHUNK_MAX },
	[FRAME_STREAM] = { 0, FRAME_STREAM_MAX },
	[FRAME_WANT] = { 0, FRAME_WANT_MAX *FRAME_WANT_BYTES },
};

void frame_encode_header(uint8_t out[FRAME_HEADER_BYTES], enum frame_type type, uint32_t length)
{
	put32(out, FRAME_MAGIC);
	put32(out + 4, FRAME_VERSION | (uint32_t)type << 16);
	put32(out + 8, length);
	put32(out + 12, 0);
}

int frame_decode_header(const uint8_t in[FRAME_HEADER_BYTES], struct frame_header *ret, struct error *err)
{
	uint32_t type = get32(in + 4) >> 16, version = get32(in + 4) & 0xffff, length = get32(in + 8);

	if (get32(in) != FRAME_MAGIC)
		return error_set(err, EPROTO, "the peer does not speak phaul's protocol (bad magic in a frame)");
	if (version != FRAME_VERSION)
		return error_set(err, EPROTO, "the peer sent a frame of version %u; this phaul speaks version %d",
				 version, FRAME_VERSION);
	if (type <= FRAME_INVALID || type >= FRAME_TYPE_MAX)
		return error_set(err, EPROTO, "the peer sent a frame of unknown type %u", type);
	if (get32(in + 12) != 0)
		return error_set(err, EPROTO, "the peer sent a frame whose reserved field is not zero");
	if (length < frame_limits[type].min || length > frame_limits[type].max)
		return error_set(err, EPROTO, "the peer sent a frame of type %u with %u bytes, outside its limits",
				 type, length);
	*ret = (struct frame_header){ .type = (enum frame_type)type, .length = length };
	return 0;
}

void frame_encode_pages(uint8_t out[FRAME_PAGES_HEAD_BYTES], const struct frame_pages *pages, uint32_t payload_bytes)
{
	uint8_t *body = out + FRAME_HEADER_BYTES;

	frame_encode_header(out, FRAME_PAGES, FRAME_PAGES_BYTES + payload_bytes);
	put32(body, pages->space);
	put32(body + 4, pages->pages);
	put64(body + 8, pages->address);
	put32(body + 16, pages->encoding);
	put32(body + 20, pages->round);
}

/* memory/codec.h numbers the encodings; the wire fixes them. */
enum { WIRE_ZERO = 1, WIRE_RAW, WIRE_LZ4, WIRE_ZSTD, WIRE_DELTA, WIRE_DUPLICATE };

/* p->pages is at most FRAME_PIECE_PAGES, or these are zeros. */
static bool pages_payload_fits(const struct frame_pages *p, uint32_t payload)
{
	uint64_t bytes = (uint64_t)p->pages * PAGE_BYTES;

	switch (p->encoding) {
	case WIRE_ZERO:
		return payload == 0;
	case WIRE_RAW:
		return payload == bytes;
	case WIRE_LZ4:
	case WIRE_ZSTD:
		return payload > 0 && payload < bytes;
	case WIRE_DELTA:
		return payload >= FRAME_DIGEST_BYTES + p->pages * FRAME_DELTA_LENGTH_BYTES && payload < bytes;
	case WIRE_DUPLICATE:
		return payload >= FRAME_DIGEST_BYTES + FRAME_COPY_BYTES &&
		       payload <= FRAME_DIGEST_BYTES + p->pages * FRAME_COPY_BYTES &&
		       (payload - FRAME_DIGEST_BYTES) % FRAME_COPY_BYTES == 0;
	default:
		return false;
	}
}

static bool place_valid(uint32_t space, uint64_t address, uint64_t pages)
{
	return space >= 1 && space <= FRAME_SPACE_MAX && !(address & ~PAGE_MASK) && address < FRAME_ADDRESS_MAX &&
	       pages >= 1 && pages <= (FRAME_ADDRESS_MAX - address) >> PAGE_SHIFT;
}

int frame_decode_pages(const uint8_t in[FRAME_PAGES_BYTES], uint32_t body_length, struct frame_pages *ret,
		       struct error *err)
{
	struct frame_pages p = {
		.space = get32(in),
		.pages = get32(in + 4),
		.address = get64(in + 8),
		.encoding = get32(in + 16),
		.round = get32(in + 20),
	};

	if (body_length < FRAME_PAGES_BYTES || !place_valid(p.space, p.address, p.pages))
		return error_set(err, EPROTO,
				 "the peer sent pages at an impossible place (space %u, address %llx, %u pages)",
				 p.space, (unsigned long long)p.address, p.pages);
	if ((p.encoding != WIRE_ZERO && p.pages > FRAME_PIECE_PAGES) ||
	    !pages_payload_fits(&p, body_length - FRAME_PAGES_BYTES))
		return error_set(err, EPROTO, "the peer sent %u pages in encoding %u with %u bytes, which do not fit",
				 p.pages, p.encoding, body_length - FRAME_PAGES_BYTES);
	*ret = p;
	return 0;
}

void frame_encode_digest(uint8_t out[FRAME_DIGEST_BYTES], const struct frame_digest *digest)
{
	put64(out, digest->low);
	put64(out + 8, digest->high);
}

void frame_decode_digest(const uint8_t in[FRAME_DIGEST_BYTES], struct frame_digest *ret)
{
	*ret = (struct frame_digest){ get64(in), get64(in + 8) };
}

void frame_encode_copy(uint8_t out[FRAME_COPY_BYTES], const struct frame_copy *copy)
{
	put64(out, copy->address);
	put64(out + 8, copy->position);
	put32(out + 16, copy->space);
	put32(out + 20, copy->pages);
	put32(out + 24, copy->channel);
	put32(out + 28, copy->repeat);
}

int frame_decode_copy(const uint8_t in[FRAME_COPY_BYTES], struct frame_copy *ret, struct error *err)
{
	struct frame_copy c = { get64(in), get64(in + 8), get32(in + 16), get32(in + 20), get32(in + 24), false };
	uint32_t repeat = get32(in + 28);

	c.repeat = repeat == 1;
	if (repeat > 1 || c.pages > FRAME_PIECE_PAGES || (c.channel && !c.position) ||
	    !place_valid(c.space, c.address, c.pages))
		return error_set(err, EPROTO, "the peer sent a page as a copy of one at an impossible place");
	*ret = c;
	return 0;
}

void frame_encode_delta_length(uint8_t out[FRAME_DELTA_LENGTH_BYTES], uint32_t bytes)
{
	out[0] = (uint8_t)bytes;
	out[1] = (uint8_t)(bytes >> 8);
}

uint32_t frame_decode_delta_length(const uint8_t in[FRAME_DELTA_LENGTH_BYTES])
{
	return in[0] | (uint32_t)in[1] << 8;
}

void frame_encode_barrier(uint8_t out[FRAME_HEADER_BYTES + FRAME_BARRIER_BYTES], uint32_t round)
{
	frame_encode_header(out, FRAME_BARRIER, FRAME_BARRIER_BYTES);
	put32(out + FRAME_HEADER_BYTES, round);
	put32(out + FRAME_HEADER_BYTES + 4, 0);
}

int frame_decode_barrier(const uint8_t *body, uint32_t length, uint32_t *ret_round, struct error *err)
{
	if (length != FRAME_BARRIER_BYTES || get32(body + 4) != 0)
		return error_set(err, EPROTO, "the peer sent a malformed barrier");
	*ret_round = get32(body);
	return 0;
}

void frame_encode_want(uint8_t out[FRAME_WANT_BYTES], const struct frame_want *want)
{
	put32(out, want->space);
	put32(out + 4, want->pages);
	put64(out + 8, want->address);
}

int frame_decode_want(const uint8_t *body, uint32_t length, uint32_t i, struct frame_want *ret, struct error *err)
{
	const uint8_t *p = body + (size_t)i * FRAME_WANT_BYTES;
	struct frame_want w;

	if (length % FRAME_WANT_BYTES || i >= length / FRAME_WANT_BYTES)
		return error_set(err, EPROTO, "the peer sent a malformed list of pages");
	w = (struct frame_want){ get32(p), get32(p + 4), get64(p + 8) };
	if (!place_valid(w.space, w.address, w.pages))
		return error_set(err, EPROTO, "the peer wants pages at an impossible place");
	*ret = w;
	return 0;
}

void frame_encode_channel(uint8_t out[FRAME_HEADER_BYTES + FRAME_CHANNEL_BYTES], enum frame_channel_kind kind,
			  uint32_t index)
{
	frame_encode_header(out, FRAME_CHANNEL, FRAME_CHANNEL_BYTES);
	put32(out + FRAME_HEADER_BYTES, (uint32_t)kind);
	put32(out + FRAME_HEADER_BYTES + 4, index);
}

int frame_decode_channel(const uint8_t *body, uint32_t length, enum frame_channel_kind *ret_kind, uint32_t *ret_index,
			 struct error *err)
{
	uint32_t kind;

	if (length != FRAME_CHANNEL_BYTES)
		return error_set(err, EPROTO, "the peer sent a malformed channel greeting");
	kind = get32(body);
	if (kind <= CHANNEL_KIND_INVALID || kind >= CHANNEL_KIND_MAX)
		return error_set(err, EPROTO, "the peer opened a channel of unknown kind %u", kind);
	*ret_kind = (enum frame_channel_kind)kind;
	*ret_index = get32(body + 4);
	return 0;
}

static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
	       c == '.';
}

int frame_decode_image_begin(const uint8_t *body, uint32_t length, uint64_t *ret_size, char name[FRAME_NAME_MAX + 1],
			     struct error *err)
{
	uint32_t n;
	bool fine;

	if (length <= FRAME_OFFSET_BYTES || length > FRAME_OFFSET_BYTES + FRAME_NAME_MAX)
		return error_set(err, EPROTO, "the peer sent an image without a usable name");
	n = length - FRAME_OFFSET_BYTES;
	fine = body[FRAME_OFFSET_BYTES] != '.' && get64(body) <= FRAME_IMAGE_MAX;
	for (uint32_t i = 0; i < n; i++)
		fine = fine && name_char((char)body[FRAME_OFFSET_BYTES + i]);
	if (!fine)
		return error_set(err, EPROTO, "the peer sent an image with a name or size that is not allowed");
	memcpy(name, body + FRAME_OFFSET_BYTES, n);
	name[n] = 0;
	*ret_size = get64(body);
	return 0;
}

int frame_decode_image_data(const uint8_t *body, uint32_t length, uint64_t image_size, uint64_t *ret_offset,
			    uint32_t *ret_bytes, struct error *err)
{
	uint64_t offset;
	uint32_t n;

	if (length <= FRAME_OFFSET_BYTES)
		return error_set(err, EPROTO, "the peer sent an empty piece of an image");
	offset = get64(body);
	n = length - FRAME_OFFSET_BYTES;
	if (offset > image_size || n > image_size - offset)
		return error_set(err, EPROTO, "the peer sent a piece beyond the end of an image");
	*ret_offset = offset;
	*ret_bytes = n;
	return 0;
}

int frame_decode_image_references(const uint8_t *body, uint32_t length, uint64_t image_size, uint64_t *ret_offset,
				  uint32_t *ret_n, struct error *err)
{
	uint64_t offset;
	uint32_t n;

	if (length <= FRAME_OFFSET_BYTES || (length - FRAME_OFFSET_BYTES) % FRAME_REFERENCE_BYTES)
		return error_set(err, EPROTO, "the peer sent a malformed list of page references");
	offset = get64(body);
	n = (length - FRAME_OFFSET_BYTES) / FRAME_REFERENCE_BYTES;
	if (offset & ~PAGE_MASK || offset > image_size || n * PAGE_BYTES > image_size - offset)
		return error_set(err, EPROTO, "the peer sent page references beyond the end of an image");
	*ret_offset = offset;
	*ret_n = n;
	return 0;
}

void frame_encode_reference(uint8_t out[FRAME_REFERENCE_BYTES], const struct frame_reference *reference)
{
	put64(out, reference->address);
	put64(out + 8, reference->low);
	put64(out + 16, reference->high);
	put32(out + 24, reference->space);
	put32(out + 28, 0);
}

int frame_decode_reference(const uint8_t *body, uint32_t i, struct frame_reference *ret, struct error *err)
{
	const uint8_t *p = body + FRAME_OFFSET_BYTES + (size_t)i * FRAME_REFERENCE_BYTES;
	struct frame_reference r = { get64(p), get64(p + 8), get64(p + 16), get32(p + 24) };

	if (!place_valid(r.space, r.address, 1) || get32(p + 28) != 0)
		return error_set(err, EPROTO, "the peer referred to a page at an impossible place");
	*ret = r;
	return 0;
}
