/* Pages whose every byte follows from (content, seed, index, generation), so that a stale, swapped, torn or
 * zeroed page is told from the right one, and named. Nothing here allocates or locks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096u

enum page_content {
	PAGE_CONTENT_INVALID = -1,
	PAGE_CONTENT_ZERO,   /* odd generations are wholly zero, even ones have a header and a zero body */
	PAGE_CONTENT_TEXT,   /* words: compresses about as well as logs do */
	PAGE_CONTENT_RANDOM, /* does not compress */
	PAGE_CONTENT_COPIES, /* the same, but every 16384th page of a generation is the same one */
	PAGE_CONTENT_EDITED, /* the same, but from one generation to the next only the header changes */
	PAGE_CONTENT_MAX,
};

enum page_content page_content_from_name(const char *name);

/* `generation` from 1. */
void page_fill(void *page, enum page_content content, uint64_t seed, uint64_t index, uint64_t generation);
bool page_matches(const void *page, enum page_content content, uint64_t seed, uint64_t index, uint64_t generation);
bool page_is_zero(const void *page);
uint64_t page_hash(const void *page);

struct page_diagnosis {
	const char *what;    /* "zero page", "stale page", "page of another place", "damaged page", ... */
	uint64_t found_seed; /* as the header says; meaningless for a damaged header */
	uint64_t found_index;
	uint64_t found_generation;
	uint32_t offset; /* first wrong byte */
	uint8_t expected_byte;
	uint8_t found_byte;
};

/* Why a page that should be this one is not. `generation` 0: it should be wholly zero. */
struct page_diagnosis page_diagnose(const void *page, enum page_content content, uint64_t seed, uint64_t index,
				    uint64_t generation);

/* Ways to spoil a page on purpose, for the tests of the tests. */
enum page_spoil {
	PAGE_SPOIL_INVALID = -1,
	PAGE_SPOIL_FLIP,  /* one bit */
	PAGE_SPOIL_ZERO,  /* as if it had never arrived */
	PAGE_SPOIL_STALE, /* its last generation, as if a write had been missed */
	PAGE_SPOIL_SWAP,  /* its neighbour's content */
	PAGE_SPOIL_MAX,
};

enum page_spoil page_spoil_from_name(const char *name);
void page_spoil(void *page, enum page_spoil how, enum page_content content, uint64_t seed, uint64_t index,
		uint64_t generation);

/* The generator behind the body, for values of any length (Redis values use it too). */
void body_fill(void *body, size_t bytes, enum page_content content, uint64_t key);
