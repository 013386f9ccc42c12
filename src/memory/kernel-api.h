/*
 * Kernel interfaces newer than the headers of the oldest distribution we build on.
 *
 * Sources: Documentation/admin-guide/mm/pagemap.rst and userfaultfd.rst, include/uapi/linux/{fs,userfaultfd,ptrace}.h
 * of Linux 6.15. Numbers and layouts only.
 */
#pragma once

#include <linux/userfaultfd.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* PAGEMAP_SCAN (Linux 6.7). The names are ours: newer headers define the kernel's own. */
#define SCAN_IS_WPALLOWED (1ULL << 0)
#define SCAN_IS_WRITTEN (1ULL << 1)
#define SCAN_IS_FILE (1ULL << 2)
#define SCAN_IS_PRESENT (1ULL << 3)
#define SCAN_IS_SWAPPED (1ULL << 4)
#define SCAN_IS_PFNZERO (1ULL << 5)
#define SCAN_IS_GUARD (1ULL << 8) /* Linux 6.15 */

#define SCAN_WP_MATCHING (1ULL << 0)

struct scan_region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

struct scan_argument {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

#define SCAN_IOCTL _IOWR('f', 16, struct scan_argument)

/* /proc/PID/pagemap, one 64-bit word per page. */
#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_SWAPPED (1ULL << 62)
#define PAGEMAP_FILE (1ULL << 61)
#define PAGEMAP_GUARD (1ULL << 58)
#define PAGEMAP_SOFT_DIRTY (1ULL << 55)
#define PAGEMAP_FRAME_MASK ((1ULL << 55) - 1) /* page frame, or place in the swap; 0 without CAP_SYS_ADMIN */

/* userfaultfd features (Linux 5.19, 6.4, 6.7). */
#define UFFD_WP_HUGETLBFS_SHMEM (1ULL << 12)
#define UFFD_WP_UNPOPULATED (1ULL << 13)
#define UFFD_WP_ASYNC (1ULL << 15)
#define UFFD_PAGEFAULT_WP (1ULL << 0)
#define UFFD_MODE_USER_ONLY 1

/* PTRACE_GET_RSEQ_CONFIGURATION (Linux 5.13). */
#define PTRACE_RSEQ_REQUEST 0x420f
struct ptrace_rseq {
	uint64_t abi_pointer;
	uint32_t abi_size;
	uint32_t signature;
	uint32_t flags;
	uint32_t pad;
};

/* A restartable sequence as the process describes it: include/uapi/linux/rseq.h. */
struct rseq_section {
	uint32_t version;
	uint32_t flags;
	uint64_t start_ip;
	uint64_t post_commit_offset;
	uint64_t abort_ip;
};
#define RSEQ_SECTION_POINTER_OFFSET 8
