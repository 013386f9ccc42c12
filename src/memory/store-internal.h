/*
 * Inside the store: spaces, windows, bitmaps.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "memory/store.h"

#define WINDOW_SHIFT 30
#define WINDOW_BYTES (1ULL << WINDOW_SHIFT)
#define WINDOW_PAGES (WINDOW_BYTES / PAGE_BYTES)
#define WINDOW_WORDS (WINDOW_PAGES / 64)
#define WINDOW_BUCKETS 64

/* Their number whatever the limit; their bytes count against it, so a peer that scatters pages meets it by them. */
#define WINDOWS_MAX 65536

typedef _Atomic uint64_t bitmap_word;

/* 1 GiB of a space. have: received, as bytes or as zeros. data: the memfd holds bytes. data is a subset of have. */
struct store_window {
	struct store_window *next; /* in its bucket; set before it is published */
	uint64_t start;		   /* address of its first byte */
	uint8_t *_Atomic mapping;  /* made by the first store_window() */
	bitmap_word have[WINDOW_WORDS], data[WINDOW_WORDS];
};

struct store_space {
	uint32_t id;
	int fd;
	struct store_window *_Atomic buckets[WINDOW_BUCKETS];
};

struct store_scratch {
	struct store_scratch *next;
	uint8_t bytes[];
};

struct store {
	uint64_t limit_bytes;
	_Atomic uint64_t data_pages;
	pthread_mutex_t lock;	  /* creation of spaces, windows, mappings; the scratch list */
	_Atomic size_t n_windows; /* changed under the lock, read by anybody */
	struct store_scratch *scratch;
	struct store_space *_Atomic spaces[SPACES_MAX + 1];
};

/* Bit ranges [first, first + n) of a window; each returns how many bits changed. Atomic per word. */
uint32_t bitmap_set(bitmap_word *map, uint32_t first, uint32_t n);
uint32_t bitmap_clear(bitmap_word *map, uint32_t first, uint32_t n);
uint32_t bitmap_count(bitmap_word *map, uint32_t first, uint32_t n);

/* The first bit from `first` on, before `end`, that is set (or not set); end when there is none. */
uint32_t bitmap_find(bitmap_word *map, uint32_t first, uint32_t end, bool set);

struct store_space *store_find_space(struct store *s, uint32_t space);
struct store_window *store_find_window(struct store_space *sp, uint64_t address);

/* Frees the bytes of those pages of a window that hold some. */
int store_punch(struct store *s, struct store_space *sp, struct store_window *w, uint32_t first, uint32_t n);
