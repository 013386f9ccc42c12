/* Page contents: generation, check, and what is wrong with a page that does not fit.
 *
 * Invariants: the checksum in the header covers the header's other fields and the body; a page that carries a
 * right checksum is therefore whole, and its header says which page it is. The expected generation is kept by
 * the caller elsewhere, never read from the page alone.
 * Threads: pure functions.
 */
#include "page.h"

#include "common.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PAGE_MAGIC 0x6567617020656d6full

struct page_header {
	uint64_t magic;
	uint64_t seed;
	uint64_t index;
	uint64_t generation;
	uint64_t checksum;
};

#define BODY_BYTES (PAGE_BYTES - sizeof(struct page_header))

enum page_content page_content_from_name(const char *name)
{
	static const char *const names[] = { [PAGE_CONTENT_ZERO] = "zero",
					     [PAGE_CONTENT_TEXT] = "text",
					     [PAGE_CONTENT_RANDOM] = "random",
					     [PAGE_CONTENT_COPIES] = "copies",
					     [PAGE_CONTENT_EDITED] = "edited" };
	for (int i = 0; i < PAGE_CONTENT_MAX; i++)
		if (strcmp(name, names[i]) == 0)
			return (enum page_content)i;
	return PAGE_CONTENT_INVALID;
}

/* Eight bytes each, so that a body is laid with whole stores. */
static const char words[32][9] = { "the cat ", "request ", "INFO:   ", "status=2", "00 time=", "user id ", "session ",
				   "GET /ind", "ex.html ", "closed  ", "timeout ", "warning ", "of 4096 ", "bytes in",
				   " buffer ", "retry 1 ", "latency ", "2024-01-", "connect ", "127.0.0.", "1:6379\n ",
				   "worker 7", " started", " stopped", "key=val ", "cache hi", "t ratio ", "memory  ",
				   "address ", "handler ", "commit  ", "rollback" };

void body_fill(void *body, size_t bytes, enum page_content content, uint64_t key)
{
	uint8_t *at = body;
	uint64_t state = key;
	if (content == PAGE_CONTENT_ZERO) {
		memset(body, 0, bytes);
		return;
	}
	while (bytes) {
		uint64_t chunk[12];
		uint64_t value = random_next(&state);
		size_t filled = sizeof(value);
		if (content == PAGE_CONTENT_TEXT) {
			filled = sizeof(chunk);
			for (size_t i = 0; i < 12; i++, value >>= 5)
				memcpy(&chunk[i], words[value & 31], 8);
		} else {
			chunk[0] = value;
		}
		size_t take = bytes < filled ? bytes : filled;
		memcpy(at, chunk, take);
		at += take;
		bytes -= take;
	}
}

#define COPIES_APART 16384

/* The index that a page's content is made of. */
static uint64_t content_index(enum page_content content, uint64_t index)
{
	return content == PAGE_CONTENT_COPIES ? index % COPIES_APART : index;
}

static uint64_t body_key(enum page_content content, uint64_t seed, uint64_t index, uint64_t generation)
{
	if (content == PAGE_CONTENT_EDITED)
		generation = 0;
	return mix64(seed ^ mix64(index + 0x51ed270b * generation));
}

static uint64_t checksum_of(const struct page_header *header, const uint8_t *body)
{
	uint64_t fields = mix64(header->magic ^ mix64(header->seed ^ mix64(header->index ^ mix64(header->generation))));
	return XXH3_64bits_withSeed(body, BODY_BYTES, fields);
}

/* Under content "zero" a page is often nothing but zeros: that is what elision of zero pages is measured with. */
static bool wholly_zero(enum page_content content, uint64_t generation)
{
	return generation == 0 || (content == PAGE_CONTENT_ZERO && (generation & 1));
}

void page_fill(void *page, enum page_content content, uint64_t seed, uint64_t index, uint64_t generation)
{
	struct page_header header = { .magic = PAGE_MAGIC, .seed = seed, .generation = generation };
	uint8_t *body = (uint8_t *)page + sizeof(header);
	index = header.index = content_index(content, index);
	if (wholly_zero(content, generation)) {
		memset(page, 0, PAGE_BYTES);
		return;
	}
	body_fill(body, BODY_BYTES, content, body_key(content, seed, index, generation));
	header.checksum = checksum_of(&header, body);
	memcpy(page, &header, sizeof(header));
}

bool page_is_zero(const void *page)
{
	const uint8_t *bytes = page;
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, PAGE_BYTES - 1) == 0;
}

uint64_t page_hash(const void *page)
{
	return XXH3_64bits(page, PAGE_BYTES);
}

static bool header_is_whole(const void *page, struct page_header *ret_header)
{
	memcpy(ret_header, page, sizeof(*ret_header));
	return ret_header->magic == PAGE_MAGIC &&
	       ret_header->checksum == checksum_of(ret_header, (const uint8_t *)page + sizeof(*ret_header));
}

bool page_matches(const void *page, enum page_content content, uint64_t seed, uint64_t index, uint64_t generation)
{
	struct page_header header;
	if (wholly_zero(content, generation))
		return page_is_zero(page);
	return header_is_whole(page, &header) && header.seed == seed && header.index == content_index(content, index) &&
	       header.generation == generation;
}

struct page_diagnosis page_diagnose(const void *page, enum page_content content, uint64_t seed, uint64_t index,
				    uint64_t generation)
{
	struct page_header header;
	uint8_t right[PAGE_BYTES];
	const uint8_t *found = page;
	bool whole = header_is_whole(page, &header);
	struct page_diagnosis diagnosis = { .found_seed = header.seed,
					    .found_index = header.index,
					    .found_generation = header.generation };
	page_fill(right, content, seed, index, generation);
	while (diagnosis.offset < PAGE_BYTES - 1 && right[diagnosis.offset] == found[diagnosis.offset])
		diagnosis.offset++;
	diagnosis.expected_byte = right[diagnosis.offset];
	diagnosis.found_byte = found[diagnosis.offset];
	if (memcmp(right, found, PAGE_BYTES) == 0)
		diagnosis.what = "page that is right at the second look";
	else if (page_is_zero(page))
		diagnosis.what = "zero page";
	else if (!whole)
		diagnosis.what = "damaged page";
	else if (wholly_zero(content, generation))
		diagnosis.what = "old content where zeros belong";
	else if (header.seed != seed || header.index != content_index(content, index))
		diagnosis.what = "page of another place";
	else
		diagnosis.what = header.generation < generation ? "stale page" : "page from the future";
	return diagnosis;
}

enum page_spoil page_spoil_from_name(const char *name)
{
	static const char *const names[] = { [PAGE_SPOIL_FLIP] = "flip",
					     [PAGE_SPOIL_ZERO] = "zero",
					     [PAGE_SPOIL_STALE] = "stale",
					     [PAGE_SPOIL_SWAP] = "swap" };
	for (int i = 0; i < PAGE_SPOIL_MAX; i++)
		if (strcmp(name, names[i]) == 0)
			return (enum page_spoil)i;
	return PAGE_SPOIL_INVALID;
}

void page_spoil(void *page, enum page_spoil how, enum page_content content, uint64_t seed, uint64_t index,
		uint64_t generation)
{
	uint8_t *bytes = page;
	switch (how) {
	case PAGE_SPOIL_ZERO:
		memset(page, 0, PAGE_BYTES);
		break;
	case PAGE_SPOIL_STALE:
		page_fill(page, content, seed, index, generation - 1);
		break;
	case PAGE_SPOIL_SWAP:
		page_fill(page, content, seed, index + 1, generation);
		break;
	case PAGE_SPOIL_FLIP:
	case PAGE_SPOIL_INVALID:
	case PAGE_SPOIL_MAX:
	default:
		bytes[mix64(seed + index) % PAGE_BYTES] ^= 0x10;
	}
}
