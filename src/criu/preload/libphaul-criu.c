/*
 * libphaul-criu.so: preloaded into the CRIU that phaul starts, it stands before a few calls of libc. This file: who acts at all, and
 * ioctl(PAGEMAP_SCAN); its other files each have one call (library.h lists them).
 *
 * The ranges that phaul's pager serves by itself are left out of the answer to PAGEMAP_SCAN, so that CRIU
 * neither lists their pages in its images nor splices them into pipes that nobody will read. Only the scan with which CRIU
 * looks for pages to dump is touched (recognised by all of its arguments), and only in CRIU versions whose use of the
 * answer was read and tested (protocol.h): "no page here" is an answer CRIU gets for every untouched mapping. Its search for guard
 * pages jumps over the same ranges: phaul hides only pages that hold something, so there are none, and the answer stays what it was.
 *
 * Invariants: acts only in a program called criu*, and never keeps a call from its real function; anything unexpected
 * means "do nothing". The library depends on libc alone. It takes itself out of the environment, so that what CRIU
 * runs is not touched. What it did it appends to the status file, once per kind.
 * Threads: CRIU's main one. Source: criu/pagemap-cache.c (pmc_fill), criu/mem.c (should_dump_page, collect_madv_guards),
 * include/uapi/linux/fs.h.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "library.h"
#include "protocol.h"

/* As in linux/fs.h since 6.7; older headers lack them. */
struct scan_region {
	uint64_t start, end, categories;
};

struct scan_arguments {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_REQUEST _IOWR('f', 16, struct scan_arguments)
#define SCAN_FILE 4U
#define SCAN_PRESENT 8U
#define SCAN_SWAPPED 16U
#define SCAN_PFNZERO 32U
#define SCAN_GUARD 256U

struct hidden {
	uint64_t start, end;
	int pid;
};

struct library library;

static bool loaded;	      /* the file was read */
static struct hidden *ranges; /* ascending by pid and start, not overlapping */
static size_t n_ranges;

static int (*real_ioctl)(int, unsigned long, ...);

void library_say(bool *once, const char *what)
{
	int fd, saved = errno;
	char said[1024];

	if (*once || !library.status_path[0])
		return;
	*once = true;
	fd = open(library.status_path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd >= 0) {
		ssize_t n = read(fd, said, sizeof(said) - 1);

		/* Children of CRIU's say things, too, each for the first time. */
		said[n > 0 ? n : 0] = 0;
		if (!strstr(said, what))
			dprintf(fd, "%s\n", what);
		close(fd);
	}
	errno = saved;
}

int library_open_pipe(const char *path)
{
	struct pollfd p[2] = { { .fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), .events = POLLIN },
			       { .fd = (int)syscall(SYS_pidfd_open, library.client, 0), .events = POLLIN } };
	bool heard = false;

	/* The other end is told of by what comes through it, or by its closing. */
	while (p[0].fd >= 0 && p[1].fd >= 0 && !heard && !p[1].revents)
		if (poll(p, 2, -1) > 0)
			heard = p[0].revents;
	if (p[1].fd >= 0)
		close(p[1].fd);
	if (heard && fcntl(p[0].fd, F_SETFL, O_RDONLY) == 0)
		return p[0].fd;
	if (p[0].fd >= 0)
		close(p[0].fd);
	return -1;
}

static void find_real(void)
{
	if (!real_ioctl)
		*(void **)&real_ioctl = dlsym(RTLD_NEXT, "ioctl");
}

static void copy_environment(const char *name, char *ret, size_t size)
{
	const char *value = getenv(name);

	snprintf(ret, size, "%s", value ? value : "");
}

__attribute__((constructor)) static void preload_init(void)
{
	char version_text[32], limits[4];
	long version;

	find_real();
	/* runc and others inherit the environment on the way: it must reach CRIU. */
	if (strncmp(program_invocation_short_name, "criu", 4) != 0)
		return;
	unsetenv("LD_PRELOAD");
	copy_environment(PRELOAD_VERSION, version_text, sizeof(version_text));
	copy_environment(PRELOAD_STATUS, library.status_path, sizeof(library.status_path));
	copy_environment(PRELOAD_HIDE, library.hide_path, sizeof(library.hide_path));
	copy_environment(PRELOAD_LIMITS, limits, sizeof(limits));
	version = strtol(version_text, NULL, 10);
	library.hide = library.hide_path[0] && version >= PRELOAD_VERSION_FIRST && version <= PRELOAD_VERSION_LAST;
	library.limits = limits[0] == '1';
	if (library.hide)
		snprintf(library.flags_path, sizeof(library.flags_path), "%s" PRELOAD_FLAGS_SUFFIX, library.hide_path);
	library.client = getppid();
	library.active = true;
}

static int compare_hidden(const void *a, const void *b)
{
	const struct hidden *x = a, *y = b;

	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start;
}

/* Reads the whole file or nothing: one bad line, and nothing is hidden. */
static void load_hidden(void)
{
	int fd = library_open_pipe(library.hide_path), fields = EOF;
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	size_t allocated = 0, n = 0;
	struct hidden h;

	loaded = true;
	if (!f) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((fields = fscanf(f, "%d %lx %lx", &h.pid, &h.start, &h.end)) == 3) {
		if (h.start >= h.end || h.start % 4096 || h.end % 4096)
			break;
		if (n == allocated) {
			struct hidden *grown;

			allocated = allocated ? allocated * 2 : 256;
			grown = reallocarray(ranges, allocated, sizeof(*grown));
			if (!grown)
				break;
			ranges = grown;
		}
		ranges[n++] = h;
	}
	fclose(f);
	if (fields != EOF)
		return;
	qsort(ranges, n, sizeof(*ranges), compare_hidden);
	n_ranges = n;
}

/* CRIU's search for pages to dump, as all versions that we know make it. */
static bool is_dump_scan(const struct scan_arguments *a)
{
	return a->size >= sizeof(*a) && !a->flags && !a->max_pages && a->vec && a->vec_len &&
	       a->category_inverted == (SCAN_PFNZERO | SCAN_FILE) && a->category_mask == (SCAN_PFNZERO | SCAN_FILE) &&
	       a->category_anyof_mask == (SCAN_PRESENT | SCAN_SWAPPED);
}

/* Its search for guard pages (MADV_GUARD_INSTALL), over the whole address space. */
static bool is_guard_scan(const struct scan_arguments *a)
{
	return a->size >= sizeof(*a) && !a->flags && !a->max_pages && a->vec && a->vec_len && !a->category_inverted &&
	       a->category_mask == SCAN_GUARD && !a->category_anyof_mask && a->return_mask == SCAN_GUARD;
}

/* The process whose pagemap this is; 0: it is something else. */
static int pagemap_pid(int fd)
{
	char path[64], target[64], rest[16];
	ssize_t n;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return 0;
	target[n] = 0;
	if (sscanf(target, "/proc/%d/%15s", &pid, rest) != 2 || strcmp(rest, "pagemap") != 0)
		return 0;
	return pid;
}

/* The first hidden range of pid that ends after `at`, or NULL. */
static const struct hidden *next_hidden(int pid, uint64_t at)
{
	size_t low = 0, high = n_ranges;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct hidden *h = &ranges[middle];

		if (h->pid < pid || (h->pid == pid && h->end <= at))
			low = middle + 1;
		else
			high = middle;
	}
	return low < n_ranges && ranges[low].pid == pid ? &ranges[low] : NULL;
}

/* Scans only what is not hidden, piece by piece, into the caller's vector. */
static int scan_visible(int fd, struct scan_arguments *a, int pid)
{
	static bool said;
	struct scan_arguments piece = *a;
	uint64_t at = a->start;
	long total = 0;

	while (at < a->end) {
		const struct hidden *h = next_hidden(pid, at);
		uint64_t end = a->end;
		int r;

		if (h && h->start <= at) {
			library_say(&said, "hidden ranges");
			at = h->end;
			continue;
		}
		if (h && h->start < end)
			end = h->start;
		if ((uint64_t)total == a->vec_len)
			break; /* full: CRIU asks again from walk_end */
		piece.start = at;
		piece.end = end;
		piece.vec = a->vec + (uint64_t)total * sizeof(struct scan_region);
		piece.vec_len = a->vec_len - (uint64_t)total;
		r = real_ioctl(fd, SCAN_REQUEST, &piece);
		if (r < 0)
			return r;
		total += r;
		at = piece.walk_end;
		if (at < end)
			break;
	}
	a->walk_end = at < a->end ? at : a->end;
	return (int)total;
}

EXPORTED int ioctl(int fd, unsigned long request, ...)
{
	struct scan_arguments *a;
	va_list ap;
	void *argument;
	int pid;

	va_start(ap, request);
	argument = va_arg(ap, void *);
	va_end(ap);
	find_real();
	if (!library.hide || request != SCAN_REQUEST || !argument)
		return real_ioctl(fd, request, argument);
	a = argument;
	if (!loaded) {
		library_skip_flags();
		load_hidden();
	}
	if (!n_ranges || (!is_dump_scan(a) && !is_guard_scan(a)))
		return real_ioctl(fd, request, argument);
	pid = pagemap_pid(fd);
	if (!pid || !next_hidden(pid, a->start) || next_hidden(pid, a->start)->start >= a->end)
		return real_ioctl(fd, request, argument);
	return scan_visible(fd, a, pid);
}
