/*
 * Fuzzing of wire/: whatever a peer sends is refused or keeps what frame.h and message.h promise.
 *
 * The first byte of an input says how the rest is read: as a stream of frames the way a target reads one (header,
 * body, decoder of its type), as the body for one decoder, or as one message. Bodies are copied into blocks of exactly
 * their length, so that the address sanitizer sees every read beyond. What was accepted is used: converted, or encoded again
 * and compared. A broken promise aborts.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/range.h"
#include "migration/convert.h"
#include "wire/frame.h"
#include "wire/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { READ_STREAM, READ_BODY, READ_MESSAGE, READ_MAX };

#define IMAGE_BYTES_ASSUMED (16 * PAGE_BYTES)

/* Which promise was broken, whatever the compiler made of the abort(). */
static void must_at(bool promise, int line)
{
	if (promise)
		return;
	fprintf(stderr, "fuzz-wire.c:%d: a promise is broken\n", line);
	abort();
}
#define must(promise) must_at(promise, __LINE__)

/* A refusal has a reason. */
static bool accepted(int r, const struct error *err)
{
	must(r == 0 || (r == -EPROTO && err->number == EPROTO && err->text[0]));
	return r == 0;
}

static bool page_place(uint32_t space, uint64_t address, uint64_t pages)
{
	return space >= 1 && space <= FRAME_SPACE_MAX && address % PAGE_BYTES == 0 && pages >= 1 &&
	       address < FRAME_ADDRESS_MAX && address + pages * PAGE_BYTES <= FRAME_ADDRESS_MAX;
}

/* What stands behind the digest of duplicates. */
static void fuzz_copies(const uint8_t *copies, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint8_t again[FRAME_COPY_BYTES];
		struct error err = { 0 };
		struct frame_copy c;

		if (!accepted(frame_decode_copy(copies + i * sizeof(again), &c, &err), &err))
			continue;
		must(page_place(c.space, c.address, c.pages) && c.pages <= FRAME_PIECE_PAGES);
		must(c.position || !c.channel);
		frame_encode_copy(again, &c);
		must(!memcmp(again, copies + i * sizeof(again), sizeof(again)));
	}
}

static void fuzz_pages(const uint8_t *body, uint32_t length)
{
	uint8_t fixed[FRAME_PAGES_BYTES], again[FRAME_PAGES_HEAD_BYTES];
	struct error err = { 0 };
	struct frame_pages p;
	uint32_t payload = length - FRAME_PAGES_BYTES;

	if (length < FRAME_PAGES_BYTES)
		return; /* the reader asks for so much before it decodes; the header's limits see to it */
	memcpy(fixed, body, sizeof(fixed));
	if (!accepted(frame_decode_pages(fixed, length, &p, &err), &err))
		return;
	must(page_place(p.space, p.address, p.pages));
	must(p.encoding >= 1 && p.encoding <= 6);
	must(p.encoding == 1 ? payload == 0 : p.pages <= FRAME_PIECE_PAGES && payload <= p.pages * PAGE_BYTES);
	must(p.encoding != 2 || payload == p.pages * PAGE_BYTES);
	must(p.encoding < 5 || payload >= FRAME_DIGEST_BYTES + 2 * p.pages || p.encoding == 6);
	if (p.encoding == 6) {
		must(payload > FRAME_DIGEST_BYTES && (payload - FRAME_DIGEST_BYTES) % FRAME_COPY_BYTES == 0);
		fuzz_copies(body + FRAME_PAGES_BYTES + FRAME_DIGEST_BYTES,
			    (payload - FRAME_DIGEST_BYTES) / FRAME_COPY_BYTES);
	}
	frame_encode_pages(again, &p, payload);
	must(!memcmp(again + FRAME_HEADER_BYTES, fixed, sizeof(fixed)));
}

static void fuzz_small(enum frame_type type, const uint8_t *body, uint32_t length)
{
	enum frame_channel_kind kind;
	struct error err = { 0 };
	uint32_t number;

	if (type == FRAME_BARRIER) {
		(void)accepted(frame_decode_barrier(body, length, &number, &err), &err);
		return;
	}
	if (accepted(frame_decode_channel(body, length, &kind, &number, &err), &err))
		must(kind > CHANNEL_KIND_INVALID && kind < CHANNEL_KIND_MAX);
}

static void fuzz_image_begin(const uint8_t *body, uint32_t length, uint64_t *image_bytes)
{
	char name[FRAME_NAME_MAX + 1];
	struct error err = { 0 };
	uint64_t size;

	if (!accepted(frame_decode_image_begin(body, length, &size, name, &err), &err))
		return;
	must(size <= FRAME_IMAGE_MAX && name[0] && name[0] != '.');
	must(strlen(name) == length - FRAME_OFFSET_BYTES && !strchr(name, '/'));
	*image_bytes = size;
}

static void fuzz_image_part(enum frame_type type, const uint8_t *body, uint32_t length, uint64_t image_bytes)
{
	struct frame_reference reference;
	struct error err = { 0 };
	uint64_t offset;
	uint32_t n;

	if (type == FRAME_IMAGE_DATA) {
		if (accepted(frame_decode_image_data(body, length, image_bytes, &offset, &n, &err), &err))
			must(n >= 1 && offset + n <= image_bytes && n == length - FRAME_OFFSET_BYTES);
		return;
	}
	if (!accepted(frame_decode_image_references(body, length, image_bytes, &offset, &n, &err), &err))
		return;
	must(n >= 1 && offset % PAGE_BYTES == 0 && offset + n * PAGE_BYTES <= image_bytes);
	for (uint32_t i = 0; i < n; i++) {
		uint8_t again[FRAME_REFERENCE_BYTES];

		if (!accepted(frame_decode_reference(body, i, &reference, &err), &err))
			continue;
		must(page_place(reference.space, reference.address, 1));
		frame_encode_reference(again, &reference);
		must(!memcmp(again, body + FRAME_OFFSET_BYTES + i * sizeof(again), sizeof(again)));
	}
}

/* What the target does with a plan that it was sent. */
static void use_plan(const Phaul__Wire__Plan *plan)
{
	struct workload workload = { 0 };
	struct net_address address;
	struct error err = { 0 };

	must(convert_workload_from_wire(plan->workload, &workload, &err) == 0);
	must(!strcmp(workload.type, plan->workload->type) && !strcmp(workload.id, plan->workload->id));
	must(workload.n_files == plan->workload->n_files && workload.n_pids == plan->workload->n_pids);
	workload_free(&workload);
	for (size_t i = 0; i < plan->n_addresses; i++) {
		convert_address_from_wire(plan->addresses[i], &address);
		must(!strcmp(address.device, plan->addresses[i]->device));
	}
	for (size_t i = 0; i < plan->n_sync_paths; i++)
		must(plan->sync_paths[i][0] == '/' && !strstr(plan->sync_paths[i], "/../") &&
		     !strstr(plan->sync_paths[i], "//"));
}

static void use_present(const Phaul__Wire__Finish *finish)
{
	for (size_t i = 0; i < finish->n_present; i++) {
		const Phaul__Wire__SpacePresent *p = finish->present[i];
		_cleanup_range_set_ struct range_set set = { 0 };

		must(p->space >= 1 && p->space <= FRAME_SPACE_MAX && p->n_bounds % 2 == 0);
		for (size_t k = 0; k < p->n_bounds; k += 2)
			must(range_set_add(&set, p->bounds[k], p->bounds[k + 1]) == 0);
		must(set.n_ranges == p->n_bounds / 2 && range_set_total(&set) <= FRAME_ADDRESS_MAX);
	}
}

/* Whether a field that this version does not know is anywhere in it. */
static bool has_unknown(const ProtobufCMessage *m)
{
	const ProtobufCMessageDescriptor *d = m->descriptor;

	for (unsigned int i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		const char *member = (const char *)m + f->offset, *quantifier = (const char *)m + f->quantifier_offset;

		if (f->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			ProtobufCMessage *const *list = *(ProtobufCMessage *const *const *)(const void *)member;

			for (size_t k = 0; k < *(const size_t *)(const void *)quantifier; k++)
				if (has_unknown(list[k]))
					return true;
			continue;
		}
		if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && *(const uint32_t *)(const void *)quantifier != f->id)
			continue;
		if (*(ProtobufCMessage *const *)(const void *)member &&
		    has_unknown(*(ProtobufCMessage *const *)(const void *)member))
			return true;
	}
	return m->n_unknown_fields > 0;
}

static void fuzz_message(const uint8_t *data, size_t length)
{
	_cleanup_message_ Phaul__Wire__Control *m = NULL, *again = NULL;
	_cleanup_buffer_ struct buffer first = { 0 }, second = { 0 };
	struct error err = { 0 };

	if (!accepted(message_decode(data, length, &m, &err), &err))
		return;
	must(strcmp(message_name(m->kind_case), "empty") != 0);
	if (m->kind_case == PHAUL__WIRE__CONTROL__KIND_PLAN)
		use_plan(m->plan);
	if (m->kind_case == PHAUL__WIRE__CONTROL__KIND_FINISH)
		use_present(m->finish);
	/* What passed once passes again, and means the same. protobuf-c writes unknown fields of number 0 in a way that it does not
	 * read; nobody sends on what a peer sent. */
	if (has_unknown(&m->base))
		return;
	must(message_encode(m, &first, &err) == 0);
	must(message_decode(first.data, first.length, &again, &err) == 0);
	must(again->kind_case == m->kind_case && message_encode(again, &second, &err) == 0);
	must(first.length == second.length && !memcmp(first.data, second.data, first.length));
}

static void fuzz_want(const uint8_t *body, uint32_t length)
{
	struct frame_want w;

	for (uint32_t i = 0; i <= length / FRAME_WANT_BYTES; i++)
		if (frame_decode_want(body, length, i, &w, NULL) == 0) {
			uint8_t again[FRAME_WANT_BYTES];

			must(i < length / FRAME_WANT_BYTES && w.space && w.pages && !(w.address & ~PAGE_MASK));
			must(w.address + ((uint64_t)w.pages << PAGE_SHIFT) <= FRAME_ADDRESS_MAX);
			frame_encode_want(again, &w);
			must(!memcmp(again, body + (size_t)i * FRAME_WANT_BYTES, sizeof(again)));
		}
}

static void fuzz_body(enum frame_type type, const uint8_t *data, uint32_t length, uint64_t *image_bytes)
{
	uint8_t *body = malloc(length ? length : 1);

	must(body != NULL);
	memcpy(body, data, length);
	switch (type) {
	case FRAME_CONTROL:
		fuzz_message(body, length);
		break;
	case FRAME_PAGES:
		fuzz_pages(body, length);
		break;
	case FRAME_CHANNEL:
	case FRAME_BARRIER:
		fuzz_small(type, body, length);
		break;
	case FRAME_IMAGE_BEGIN:
		fuzz_image_begin(body, length, image_bytes);
		break;
	case FRAME_IMAGE_DATA:
	case FRAME_IMAGE_REFERENCES:
		fuzz_image_part(type, body, length, *image_bytes);
		break;
	case FRAME_WANT:
		fuzz_want(body, length);
		break;
	case FRAME_STREAM:
	case FRAME_INVALID:
	case FRAME_TYPE_MAX:
		break;
	}
	free(body);
}

static void fuzz_stream(const uint8_t *data, size_t size)
{
	uint64_t image_bytes = IMAGE_BYTES_ASSUMED;

	while (size >= FRAME_HEADER_BYTES) {
		uint8_t header[FRAME_HEADER_BYTES], again[FRAME_HEADER_BYTES];
		struct error err = { 0 };
		struct frame_header h;

		memcpy(header, data, sizeof(header));
		if (!accepted(frame_decode_header(header, &h, &err), &err))
			return;
		must(h.type > FRAME_INVALID && h.type < FRAME_TYPE_MAX && h.length <= FRAME_CONTROL_MAX);
		frame_encode_header(again, h.type, h.length);
		must(!memcmp(again, header, sizeof(again)));
		data += sizeof(header);
		size -= sizeof(header);
		if (h.length > size)
			return; /* the peer hung up */
		fuzz_body(h.type, data, h.length, &image_bytes);
		data += h.length;
		size -= h.length;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t image_bytes = IMAGE_BYTES_ASSUMED;

	if (size < 2)
		return 0;
	switch (data[0] % READ_MAX) {
	case READ_STREAM:
		fuzz_stream(data + 1, size - 1);
		break;
	case READ_BODY:
		fuzz_body((enum frame_type)(data[1] % FRAME_TYPE_MAX), data + 2, (uint32_t)(size - 2), &image_bytes);
		break;
	default:
		fuzz_message(data + 1, size - 1);
		break;
	}
	return 0;
}
