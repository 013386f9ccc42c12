/*
 * A space: one thing that holds pages, with addresses of its own. The private memory of one process
 * (addresses are its virtual addresses) or one shared memory object (addresses are offsets in it). The source
 * numbers them from 1; both sides use the number.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/page.h"
#include "base/range.h"

#define SPACES_MAX 65536
#define SPACE_ADDRESS_MAX (1ULL << 56)

enum space_kind {
	SPACE_INVALID,
	SPACE_PROCESS, /* private memory of a process */
	SPACE_SHARED,  /* a shared memory object: (device, inode) */
	SPACE_KIND_MAX,
};

struct space {
	uint32_t id;
	enum space_kind kind;
	pid_t pid;	 /* SPACE_PROCESS: as this host sees it */
	pid_t image_pid; /* SPACE_PROCESS: as the innermost namespace of the tree's root sees it: CRIU's "vpid" */
	uint64_t device, inode; /* SPACE_SHARED */
};

/* Some pages that stand together, and where their bytes can be read. */
struct page_run {
	uint32_t space;
	uint64_t address;     /* in the space; page aligned */
	uint64_t pages;	      /* >= 1 */
	pid_t pid;	      /* a process that maps them */
	uint64_t pid_address; /* and where */
	bool in_images; /* CRIU puts these pages into pages-*.img (shared, locked, private file pages): they are sent
				 ahead only so that they need not be sent again, see dedup.h */
};

struct page_runs {
	struct page_run *runs;
	size_t n_runs, n_allocated;
	uint64_t pages; /* the sum */
};

int page_runs_add(struct page_runs *runs,
		  const struct page_run *run); /* merges with the last when adjacent; 0, -ENOMEM */
void page_runs_free(struct page_runs *runs);
