/* A region: pages of one mapping, with a table that says what each must hold; and the state that all tasks of a
 * memtoucher share.
 *
 * A region belongs to one thread, which alone reads and writes it and its table. What it finds goes to the shared
 * state, where the first finding stays and all are counted.
 */
#pragma once

#include "page.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define OWNERS_MAX 80

struct finding {
	char region[24];
	char what[48];
	uint64_t address;
	uint64_t page;
	uint64_t expected_generation;
	struct page_diagnosis diagnosis;
	uint64_t own_seed;
	pid_t pid;
};

/* What one thread or process has done; written by it, added up by the main thread. */
struct counters {
	_Atomic uint64_t written;
	_Atomic uint64_t verified;
	_Atomic uint32_t full_done; /* the last full verification it has completed */
};

/* One mapping shared by all processes of the workload. */
struct state {
	_Atomic uint32_t errors;
	_Atomic uint32_t finding_claimed;
	_Atomic uint32_t finding_ready;
	struct finding finding;
	_Atomic uint32_t full_request; /* owners whose full_done differs verify everything they own */
	_Atomic uint32_t stop;
	_Atomic uint32_t corrupt_armed; /* 1: whoever owns corrupt_kind is to spoil a byte of it, once */
	char corrupt_kind[24];
	enum page_spoil corrupt_how;
	_Atomic uint32_t owners;
	struct counters counters[OWNERS_MAX];
};

struct owner {
	struct state *state;
	struct counters *counters;
	uint64_t random;
};

/* Registers a new owner. Before the threads start, or under no race at all. */
struct owner owner_new(struct state *state, uint64_t seed);

struct region {
	const char *name;
	uint8_t *base;
	size_t pages;	  /* mapped now */
	size_t pages_max; /* what the table has room for */
	uint64_t seed;
	enum page_content content;
	int protection;	  /* what mprotect has it at */
	uint64_t *table;  /* generation << 1 | holds it: without the low bit the page is discarded or untouched */
	uint64_t *origin; /* for file mappings, what an untouched page hashes to; NULL: it reads as zeros */
	size_t cursor;	  /* where the continuous verification stands */
};

/* Allocates the table. `base` may be set later. */
int region_init(struct region *region, const char *name, void *base, size_t pages, size_t pages_max, uint64_t seed,
		enum page_content content);
void region_free(struct region *region);

bool region_holds(const struct region *region, size_t index);
/* Checks the page, then gives it its next generation. */
void region_write(struct owner *owner, struct region *region, size_t index);
void region_write_all(struct owner *owner, struct region *region);
bool region_check(struct owner *owner, struct region *region, size_t index);
/* `untouched_too`: read discarded pages as well, which gives them a zero page again. */
void region_check_all(struct owner *owner, struct region *region, bool untouched_too);
/* MADV_DONTNEED: from then on the pages must read as zeros, or as the file. */
void region_discard(struct owner *owner, struct region *region, size_t index, size_t count);
/* If this region's kind is to be spoiled now, spoils one page as state->corrupt_how says. */
void region_corrupt_if_asked(struct owner *owner, struct region *region);

bool corruption_take(struct state *state, const char *kind);
void state_report(struct state *state, const struct finding *finding);
void state_report_words(struct state *state, const char *region, const char *what, const void *address);
