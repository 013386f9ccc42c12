/*
 * libphaul-criu.so: preloaded into the CRIU that phaul starts, it replaces two calls of libc.
 *
 * ioctl(PAGEMAP_SCAN): the ranges that phaul's pager serves by itself are left out of the answer, so that CRIU
 * neither lists their pages in its images nor splices them into pipes that nobody will read. Only the scan with which CRIU
 * looks for pages to dump is touched (recognised by all of its arguments), and only in CRIU versions whose use of the
 * answer was read and tested (protocol.h): "no page here" is an answer CRIU gets for every untouched mapping.
 *
 * syscall(prlimit64) of another process, refused with EPERM: answered from /proc/PID/limits. The kernel wants
 * CAP_SYS_RESOURCE for tasks of other users even to read; the file says the same to everybody who may ptrace.
 *
 * Invariants: acts only in a program called criu*, and never keeps a call from its real function; anything unexpected
 * means "do nothing". The library depends on libc alone. It takes itself out of the environment, so that what CRIU
 * runs is not touched. What it did it appends to the status file, once per kind.
 * Threads: CRIU's main one. Source: criu/pagemap-cache.c (pmc_fill), criu/mem.c (should_dump_page), criu/cr-dump.c
 * (get_task_rlimits), include/uapi/linux/fs.h, proc(5).
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "protocol.h"

#define EXPORTED __attribute__((visibility("default")))

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

struct hidden {
	uint64_t start, end;
	int pid;
};

static struct {
	bool active;	   /* this is a CRIU that phaul started */
	bool hide, limits; /* what it may do */
	bool said_hide, said_limits;
	bool loaded; /* the file was read */
	char hide_path[PATH_MAX], status_path[PATH_MAX];
	struct hidden *ranges; /* ascending by pid and start, not overlapping */
	size_t n_ranges;
} state;

static int (*real_ioctl)(int, unsigned long, ...);
static long (*real_syscall)(long, ...);

static void say(bool *once, const char *what)
{
	int fd, saved = errno;

	if (*once || !state.status_path[0])
		return;
	*once = true;
	fd = open(state.status_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd >= 0) {
		dprintf(fd, "%s\n", what);
		close(fd);
	}
	errno = saved;
}

static void find_real(void)
{
	if (!real_ioctl)
		*(void **)&real_ioctl = dlsym(RTLD_NEXT, "ioctl");
	if (!real_syscall)
		*(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
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
	copy_environment(PRELOAD_STATUS, state.status_path, sizeof(state.status_path));
	copy_environment(PRELOAD_HIDE, state.hide_path, sizeof(state.hide_path));
	copy_environment(PRELOAD_LIMITS, limits, sizeof(limits));
	version = strtol(version_text, NULL, 10);
	state.hide = state.hide_path[0] && version >= PRELOAD_VERSION_FIRST && version <= PRELOAD_VERSION_LAST;
	state.limits = limits[0] == '1';
	state.active = state.hide || state.limits;
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
	FILE *f = fopen(state.hide_path, "re");
	size_t allocated = 0, n = 0;
	struct hidden h;
	int fields = EOF;

	state.loaded = true;
	if (!f)
		return;
	while ((fields = fscanf(f, "%d %lx %lx", &h.pid, &h.start, &h.end)) == 3) {
		if (h.start >= h.end || h.start % 4096 || h.end % 4096)
			break;
		if (n == allocated) {
			struct hidden *grown;

			allocated = allocated ? allocated * 2 : 256;
			grown = reallocarray(state.ranges, allocated, sizeof(*grown));
			if (!grown)
				break;
			state.ranges = grown;
		}
		state.ranges[n++] = h;
	}
	fclose(f);
	if (fields != EOF)
		return;
	qsort(state.ranges, n, sizeof(*state.ranges), compare_hidden);
	state.n_ranges = n;
}

/* CRIU's search for pages to dump, as all versions that we know make it. */
static bool is_dump_scan(const struct scan_arguments *a)
{
	return a->size >= sizeof(*a) && !a->flags && !a->max_pages && a->vec && a->vec_len &&
	       a->category_inverted == (SCAN_PFNZERO | SCAN_FILE) && a->category_mask == (SCAN_PFNZERO | SCAN_FILE) &&
	       a->category_anyof_mask == (SCAN_PRESENT | SCAN_SWAPPED);
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
	size_t low = 0, high = state.n_ranges;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct hidden *h = &state.ranges[middle];

		if (h->pid < pid || (h->pid == pid && h->end <= at))
			low = middle + 1;
		else
			high = middle;
	}
	return low < state.n_ranges && state.ranges[low].pid == pid ? &state.ranges[low] : NULL;
}

/* Scans only what is not hidden, piece by piece, into the caller's vector. */
static int scan_visible(int fd, struct scan_arguments *a, int pid)
{
	struct scan_arguments piece = *a;
	uint64_t at = a->start;
	long total = 0;

	while (at < a->end) {
		const struct hidden *h = next_hidden(pid, at);
		uint64_t end = a->end;
		int r;

		if (h && h->start <= at) {
			say(&state.said_hide, "hidden ranges");
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
	if (!state.hide || request != SCAN_REQUEST || !argument)
		return real_ioctl(fd, request, argument);
	a = argument;
	if (!state.loaded)
		load_hidden();
	if (!state.n_ranges || !is_dump_scan(a))
		return real_ioctl(fd, request, argument);
	pid = pagemap_pid(fd);
	if (!pid || !next_hidden(pid, a->start) || next_hidden(pid, a->start)->start >= a->end)
		return real_ioctl(fd, request, argument);
	return scan_visible(fd, a, pid);
}

/* The names of /proc/PID/limits by resource number. */
static const char *const limit_names[RLIM_NLIMITS] = {
	[RLIMIT_CPU] = "Max cpu time",
	[RLIMIT_FSIZE] = "Max file size",
	[RLIMIT_DATA] = "Max data size",
	[RLIMIT_STACK] = "Max stack size",
	[RLIMIT_CORE] = "Max core file size",
	[RLIMIT_RSS] = "Max resident set",
	[RLIMIT_NPROC] = "Max processes",
	[RLIMIT_NOFILE] = "Max open files",
	[RLIMIT_MEMLOCK] = "Max locked memory",
	[RLIMIT_AS] = "Max address space",
	[RLIMIT_LOCKS] = "Max file locks",
	[RLIMIT_SIGPENDING] = "Max pending signals",
	[RLIMIT_MSGQUEUE] = "Max msgqueue size",
	[RLIMIT_NICE] = "Max nice priority",
	[RLIMIT_RTPRIO] = "Max realtime priority",
	[RLIMIT_RTTIME] = "Max realtime timeout",
};

static bool parse_limit(const char *text, rlim_t *ret)
{
	char *end;

	if (strcmp(text, "unlimited") == 0) {
		*ret = RLIM_INFINITY;
		return true;
	}
	*ret = strtoul(text, &end, 10);
	return end != text && !*end;
}

static bool limits_from_proc(int pid, unsigned int resource, struct rlimit *ret)
{
	char path[64], line[256], soft[32], hard[32];
	const char *name = resource < RLIM_NLIMITS ? limit_names[resource] : NULL;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	f = name ? fopen(path, "re") : NULL;
	while (f && !found && fgets(line, sizeof(line), f))
		found = strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ' ' &&
			sscanf(line + strlen(name), "%31s %31s", soft, hard) == 2 &&
			parse_limit(soft, &ret->rlim_cur) && parse_limit(hard, &ret->rlim_max);
	if (f)
		fclose(f);
	return found;
}

EXPORTED long syscall(long number, ...)
{
	long a[6], r;
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	find_real();
	r = real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (r < 0 && errno == EPERM && state.limits && number == SYS_prlimit64 && (int)a[0] > 0 && !a[2] && a[3] &&
	    limits_from_proc((int)a[0], (unsigned int)a[1], (struct rlimit *)a[3])) {
		say(&state.said_limits, "limits of another user's task");
		return 0;
	}
	return r;
}
