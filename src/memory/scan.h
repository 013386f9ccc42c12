/*
 * Reading what the page tables of a process say about a range: by the PAGEMAP_SCAN ioctl (Linux 6.7), or from the words of
 * /proc/PID/pagemap, behind one interface that yields regions of equal pages.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "memory/frames.h"
#include "memory/kernel-api.h"

#define SCAN_REGIONS 4096
#define SCAN_WORDS SCAN_REGIONS /* of pagemap per read: 16 MiB of memory */

struct scanner {
	bool ioctl;		     /* false: pagemap words, soft-dirty counts as written */
	bool guard;		     /* the ioctl knows guard pages */
	struct scan_region *regions; /* SCAN_REGIONS */
	uint64_t *words;	     /* SCAN_WORDS; NULL with the ioctl */
	uint64_t zero_frame;	     /* of the zero page, for words; 0: not known */
};

struct scan_request {
	int pagemap_fd;
	uint64_t at, end;      /* at moves as the scan goes on */
	bool own_only;	       /* private memory: without the zero page, */
	bool of_file;	       /* and without the pages of the file it maps (asking costs a look at each struct page) */
	bool written_only;     /* leave out what was not written */
	bool arm;	       /* write-protect what is reported (ioctl only) */
	struct frames *frames; /* words of private memory only: what tells moved pages; NULL: nothing */
	bool note_frames;      /* remember them for the next time */
};

/* use_ioctl: whether the kernel has it (scan_has_ioctl). */
int scanner_init(struct scanner *s, bool use_ioctl);
void scanner_free(struct scanner *s);

/* Fills s->regions with the next populated pages (PRESENT or SWAPPED), ascending; categories holds SCAN_IS_WRITTEN or not.
 * Returns how many, 0 at the end of the range, or a negative errno (-ESRCH: that memory is gone). */
int scan_step(struct scanner *s, struct scan_request *q);

/* Whether the kernel knows PAGEMAP_SCAN. */
bool scan_has_ioctl(void);

/* The page frame of the zero page, which words do not mark otherwise; 0 when the kernel does not tell us. */
uint64_t scan_find_zero_frame(void);

/* Whether a word is of a page that holds something; own_only: and that is the process's own. */
bool scan_word_populated(uint64_t word, bool own_only, uint64_t zero_frame);

/* Pure: turns `n` pagemap words from address `start` on into regions, n of them at most. Returns how many. */
size_t scan_parse_words(const uint64_t *words, size_t n, const struct scan_request *q, uint64_t zero_frame,
			struct scan_region *ret);
