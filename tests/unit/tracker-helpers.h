/*
 * What the tests of the tracker share: a child that does as it is told, and short forms of the tracker's calls, which fail the
 * test when the call fails.
 */
#pragma once

#include "child.h"
#include "memory/tracker.h"

#define PAGES 64
#define AREA_BYTES (PAGES * PAGE_BYTES)

/* Orders of the pliable child: the operation in the low byte, a page number above. */
enum order {
	ORDER_WRITE = 1,
	ORDER_DONTNEED,
	ORDER_UNMAP,
	ORDER_MAP,
	ORDER_PROTECT_NONE,
	ORDER_READ,
	ORDER_LOCK,
	ORDER_IO_URING,
};

char *map_pages(uint64_t bytes, int protection, int flags, int fd);

/* A child_function: maps PAGES pages (of the memfd in *argument when it is given), writes them, tells where, takes orders. */
int pliable(int fd, void *argument);
uint64_t order_page(const struct child *c, enum order order, uint64_t page);

/* For main(): true when this kernel has no tracker to test; the TAP line that says so is printed. (cmocka's skip() counts as
 * a failure with meson.) */
bool kernel_cannot(void);

/* The best this kernel has, or what PHAUL_TEST_TRACKER names: write-protect, soft-dirty. */
struct tracker *new_tracker(void);

/* Updates and collects; the caller frees. */
struct page_runs collect(struct tracker *t, enum tracker_pass pass, const struct child *children, size_t n);

/* How many pages of [start, start + bytes), in the address space of a process, are reported. */
uint64_t reported(const struct page_runs *runs, uint64_t start, uint64_t bytes);
uint64_t collect_reported(struct tracker *t, enum tracker_pass pass, const struct child *c, uint64_t start,
			  uint64_t bytes);

/* SIGSTOP, and waits for it. */
void stop_child(const struct child *c);
