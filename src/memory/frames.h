/*
 * Which pages of a process were moved by mremap(2) without a mark: by the page frames that lay at an address before.
 *
 * Where source and destination are aligned to 2 MiB, the kernel moves whole page tables and the soft-dirty bits
 * in them stay as they are (mm/mremap.c, move_normal_pmd(); seen on Linux 6.1). Moved onto memory that was tracked
 * before, such pages would count as known with the bytes of others. Needs page frame numbers in pagemap: CAP_SYS_ADMIN.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Pages whose frame is remembered, of the 512 that one page table maps. */
#define FRAME_WITNESSES 8

struct frame_table {
	uint64_t number; /* address / 2 MiB */
	uint64_t frame[FRAME_WITNESSES];
	uint16_t page[FRAME_WITNESSES];
	uint8_t known; /* one bit for each */
};

struct frame_list {
	struct frame_table *tables; /* ascending */
	size_t n_tables, n_allocated;
};

struct frames {
	struct frame_list before, now; /* of the last round, and of the one that is under way */
};

struct scan_request;

/*
 * Looks at the n pagemap words of private memory from q->at on; within a round with ascending addresses. Pages of a page table
 * that came from elsewhere get PAGEMAP_SOFT_DIRTY; q->note_frames: the frames are remembered in q->frames for the next
 * round. The tasks must be stopped. 0 or -ENOMEM.
 */
int frames_mark_moved(const struct scan_request *q, uint64_t *words, size_t n, uint64_t zero_frame);

/* A round with note begins, ends: what it noted takes the place of what was. */
void frames_begin(struct frames *f);
void frames_end(struct frames *f);
void frames_free(struct frames *f);
