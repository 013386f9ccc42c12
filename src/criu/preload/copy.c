/*
 * libphaul-criu.so, memcpy(): long stretches of memory that nobody has touched are not copied onto what is zeros already.
 *
 * CRIU keeps room for one iovec per page of private memory, 16 bytes, used or not, and copies all of it into the parasite's
 * arguments: 16 MiB for a process of 4 GiB, each page of which the kernel first has to find and clear in the middle of the
 * freeze, on both sides. With the pages hidden a few hundred bytes of it are used.
 *
 * The result is memcpy()'s for every caller. A page of private anonymous memory that has no page table entry (pagemap word 0)
 * reads as zeros. Where the destination is shared memory that has no page either (mincore(2)), it does so, too, and
 * copying it would only allocate it; elsewhere zeros are written. Whatever cannot be found out is copied.
 *
 * Source: criu/mem.c (__parasite_dump_pages_seized), criu/page-pipe.c (create_page_pipe), pagemap.rst, mincore(2).
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "library.h"

#define PAGE 4096UL
#define LONG_COPY (1UL << 20) /* shorter ones are not worth a look */
#define BATCH 512	      /* pages looked at together */

/* Not known as memcpy to the compiler, which would otherwise make this file call itself. */
static void *(*volatile const move_bytes)(void *, const void *, size_t) = memmove;
static void *(*volatile const set_bytes)(void *, int, size_t) = memset;

/* Whether [start, end) lies in one mapping of the kind: 'p' private, 's' shared; *ret_inode: of the file, 0: anonymous. */
static bool in_mapping(uintptr_t start, uintptr_t end, char kind, unsigned long *ret_inode)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512], flags[5];
	bool found = false;
	uintptr_t from, to;

	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, "%lx-%lx %4s %*x %*x:%*x %lu", &from, &to, flags, ret_inode) == 4 &&
			from <= start && end <= to && flags[3] == kind;
	if (f)
		fclose(f);
	return found;
}

/* How many of the n bytes from `at` on, up to BATCH pages of them, are untouched (or not) as the first is: *ret_untouched. */
static size_t alike(int pagemap_fd, uintptr_t at, size_t n, bool *ret_untouched)
{
	uint64_t words[BATCH];
	size_t pages = (at % PAGE + n + PAGE - 1) / PAGE, i = 1;

	if (pages > BATCH)
		pages = BATCH;
	if (pread(pagemap_fd, words, pages * sizeof(words[0]), (off_t)(at / PAGE * sizeof(words[0]))) !=
	    (ssize_t)(pages * sizeof(words[0]))) {
		*ret_untouched = false;
		return n;
	}
	*ret_untouched = !words[0];
	while (i < pages && !words[i] == *ret_untouched)
		i++;
	return i * PAGE - at % PAGE < n ? i * PAGE - at % PAGE : n;
}

/* Makes n bytes zeros; whole pages of shared memory that have no page are so already. */
static void clear(uint8_t *to, size_t n)
{
	unsigned char resident[BATCH];

	while (n) {
		size_t step = PAGE - (uintptr_t)to % PAGE, pages;

		if (step != PAGE || n < PAGE) {
			step = step < n ? step : n;
			set_bytes(to, 0, step);
		} else {
			pages = n / PAGE < BATCH ? n / PAGE : BATCH;
			step = pages * PAGE;
			if (mincore(to, step, resident) < 0)
				memset(resident, 1, pages);
			for (size_t i = 0; i < pages; i++)
				if (resident[i] & 1)
					set_bytes(to + i * PAGE, 0, PAGE);
		}
		to += step;
		n -= step;
	}
}

static bool copy_sparsely(uint8_t *to, const uint8_t *from, size_t n)
{
	unsigned long inode;
	struct sysinfo memory;
	int fd;

	/* Swapped out, a page of shared memory looks as if there were none. */
	if (sysinfo(&memory) < 0 || memory.freeswap != memory.totalswap)
		return false;
	if (!in_mapping((uintptr_t)from, (uintptr_t)from + n, 'p', &inode) || inode ||
	    !in_mapping((uintptr_t)to, (uintptr_t)to + n, 's', &inode))
		return false;
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while (n) {
		bool untouched;
		size_t step = alike(fd, (uintptr_t)from, n, &untouched);

		if (untouched)
			clear(to, step);
		else
			move_bytes(to, from, step);
		to += step;
		from += step;
		n -= step;
	}
	close(fd);
	return true;
}

EXPORTED void *memcpy(void *restrict dest, const void *restrict src, size_t n)
{
	static bool said;

	if (n < LONG_COPY || !library.active || !library.hide || !copy_sparsely(dest, src, n))
		return move_bytes(dest, src, n);
	library_say(&said, "untouched memory not copied");
	return dest;
}
