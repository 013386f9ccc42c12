/*
 * PAGEMAP_SCAN and pagemap words: see scan.h.
 *
 * Facts (Documentation/admin-guide/mm/pagemap.rst): with PM_SCAN_WP_MATCHING, reporting and write-protecting a page is one
 * step under the page table lock, and mappings that no asynchronous userfaultfd covers are passed over. Asking for
 * PRESENT or SWAPPED keeps holes out: they are neither reported nor marked, so untouched gigabytes cost nothing.
 * Swap entries include guard pages (MADV_GUARD_INSTALL), which hold nothing; kernels from 6.15 tell them apart.
 *
 * Threads: one per scanner.
 */
#include "memory/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/page.h"

#define POPULATED (SCAN_IS_PRESENT | SCAN_IS_SWAPPED)

void scanner_free(struct scanner *s)
{
	free(s->regions);
	free(s->words);
	*s = (struct scanner){ 0 };
}

/* Asks about one page of ours; 0 or a negative errno. */
static int probe_scan(uint64_t categories)
{
	_cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct scan_region region;
	struct scan_argument a = { .size = sizeof(a),
				   .start = (uintptr_t)&region & PAGE_MASK,
				   .end = ((uintptr_t)&region & PAGE_MASK) + PAGE_BYTES,
				   .vec = (uintptr_t)&region,
				   .vec_len = 1,
				   .return_mask = categories };

	if (fd < 0)
		return -errno;
	return ioctl(fd, SCAN_IOCTL, &a) < 0 ? -errno : 0;
}

bool scan_has_ioctl(void)
{
	return !probe_scan(SCAN_IS_WRITTEN | POPULATED);
}

int scanner_init(struct scanner *s, bool use_ioctl)
{
	*s = (struct scanner){ .ioctl = use_ioctl };
	s->guard = use_ioctl && !probe_scan(SCAN_IS_GUARD);
	s->regions = calloc(SCAN_REGIONS, sizeof(*s->regions));
	s->words = use_ioctl ? NULL : calloc(SCAN_WORDS, sizeof(*s->words));
	s->zero_frame = use_ioctl ? 0 : scan_find_zero_frame();
	if (s->regions && (use_ioctl || s->words))
		return 0;
	scanner_free(s);
	return -ENOMEM;
}

static int scan_by_ioctl(struct scanner *s, struct scan_request *q)
{
	uint64_t absent =
		(q->own_only ? SCAN_IS_PFNZERO : 0) | (q->of_file ? SCAN_IS_FILE : 0) | (s->guard ? SCAN_IS_GUARD : 0);
	struct scan_argument a = { .size = sizeof(a),
				   .flags = q->arm ? SCAN_WP_MATCHING : 0,
				   .start = q->at,
				   .end = q->end,
				   .vec = (uintptr_t)s->regions,
				   .vec_len = SCAN_REGIONS,
				   .category_inverted = absent,
				   .category_mask = absent | (q->written_only ? SCAN_IS_WRITTEN : 0),
				   .category_anyof_mask = POPULATED,
				   .return_mask = SCAN_IS_WRITTEN };
	int n;

	do {
		n = ioctl(q->pagemap_fd, SCAN_IOCTL, &a);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN));
	if (n < 0)
		return -errno;
	if (a.walk_end <= q->at) /* cannot happen; without progress we would never end */
		return -EIO;
	q->at = a.walk_end;
	return n;
}

/* The zero page has no mark of its own in pagemap words: it looks like an anonymous page. */
uint64_t scan_find_zero_frame(void)
{
	_cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	volatile char *page = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t word = 0;

	if (page == MAP_FAILED)
		return 0;
	(void)*page;
	if (fd < 0 || pread(fd, &word, sizeof(word), (off_t)((uintptr_t)page >> PAGE_SHIFT << 3)) != sizeof(word))
		word = 0;
	munmap((void *)page, PAGE_BYTES);
	return word & PAGEMAP_PRESENT ? word & PAGEMAP_FRAME_MASK : 0;
}

bool scan_word_populated(uint64_t word, bool own_only, uint64_t zero_frame)
{
	if (!(word & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) || (word & PAGEMAP_GUARD))
		return false;
	if (!own_only)
		return true;
	if ((word & PAGEMAP_FILE))
		return false;
	return !zero_frame || !(word & PAGEMAP_PRESENT) || (word & PAGEMAP_FRAME_MASK) != zero_frame;
}

size_t scan_parse_words(const uint64_t *words, size_t n, const struct scan_request *q, uint64_t zero_frame,
			struct scan_region *ret)
{
	uint64_t start = q->at;
	size_t found = 0;

	for (size_t i = 0; i < n; i++, start += PAGE_BYTES) {
		uint64_t categories = words[i] & PAGEMAP_SOFT_DIRTY ? SCAN_IS_WRITTEN : 0;

		if (!scan_word_populated(words[i], q->own_only, zero_frame) || (q->written_only && !categories))
			continue;
		if (found && ret[found - 1].end == start && ret[found - 1].categories == categories)
			ret[found - 1].end = start + PAGE_BYTES;
		else
			ret[found++] = (struct scan_region){ start, start + PAGE_BYTES, categories };
	}
	return found;
}

static int scan_by_words(struct scanner *s, struct scan_request *q)
{
	/* No more words than regions fit: each page may be one. */
	size_t n = MIN((uint64_t)SCAN_WORDS, (q->end - q->at) >> PAGE_SHIFT);
	ssize_t got;

	do {
		got = pread(q->pagemap_fd, s->words, n * sizeof(*s->words), (off_t)(q->at >> PAGE_SHIFT << 3));
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	if (got < (ssize_t)sizeof(*s->words)) /* the memory is gone: the file ends */
		return -ESRCH;
	n = (size_t)got / sizeof(*s->words);
	if (q->frames) {
		int r = frames_mark_moved(q, s->words, n, s->zero_frame);

		if (r < 0)
			return r;
	}
	got = (ssize_t)scan_parse_words(s->words, n, q, s->zero_frame, s->regions);
	q->at += n << PAGE_SHIFT;
	return (int)got;
}

int scan_step(struct scanner *s, struct scan_request *q)
{
	while (q->at < q->end) {
		int n = s->ioctl ? scan_by_ioctl(s, q) : scan_by_words(s, q);

		if (n)
			return n;
	}
	return 0;
}
