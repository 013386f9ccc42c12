/* The small regions of special kinds: what migration programs are known to forget or to mix up.
 *
 *   dontneed   pages given back with MADV_DONTNEED must be zero, also when an old copy was sent before
 *   remap      grows, shrinks and moves with mremap
 *   relro      written once, then read-only
 *   hidden     holds data under PROT_NONE, looked at from time to time;   guard: PROT_NONE and must stay so
 *   mlock, hugetlb, thp   locked pages; a huge page; transparent huge pages, also split by discards
 *   exe        private mapping of the program's own file: some pages changed, the others must be the file's
 *   heap, stack   [heap] and [stack] of the main thread
 *   cow        inherited over a fork: parent and child each change their own copy
 *
 * Invariants: a feature that the machine does not grant is skipped with a reason in `skipped`, never silently.
 * Threads: kinds_main is the only one that touches these regions after kinds_init; kinds_child is a process of its own.
 */
#include "memtoucher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SMALL_PAGES 64
#define REMAP_PAGES_MAX 96
#define HUGE_BYTES (2u << 20)
#define HUGE_PAGES (HUGE_BYTES / PAGE_BYTES)
#define GUARD_PAGES 4

const char *const feature_names[FEATURE_MAX] = {
	[FEATURE_DONTNEED] = "dontneed", [FEATURE_REMAP] = "remap", [FEATURE_RELRO] = "relro",
	[FEATURE_HIDDEN] = "hidden",	 [FEATURE_GUARD] = "guard", [FEATURE_MLOCK] = "mlock",
	[FEATURE_HUGETLB] = "hugetlb",	 [FEATURE_THP] = "thp",	    [FEATURE_EXE] = "exe",
	[FEATURE_HEAP] = "heap",	 [FEATURE_STACK] = "stack", [FEATURE_COW] = "cow",
};

static void skip(struct kinds *kinds, enum feature feature, const char *what)
{
	snprintf(kinds->skipped[feature], sizeof(kinds->skipped[feature]), "%s: %s", what, strerror(errno));
}

static void *map_private(size_t pages, int protection, int flags)
{
	void *base = mmap(NULL, pages * PAGE_BYTES, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	return base == MAP_FAILED ? NULL : base;
}

static void protect(struct kinds *kinds, struct region *region, int protection)
{
	if (mprotect(region->base, region->pages * PAGE_BYTES, protection) < 0)
		state_report_words(kinds->owner.state, region->name, "mprotect failed", region->base);
	region->protection = protection;
}

/* Gives a feature its memory. Returns NULL with errno when the machine does not grant it. */
static void *map_feature(struct kinds *kinds, enum feature feature, size_t *ret_pages, const char **ret_what)
{
	void *base;
	*ret_pages = SMALL_PAGES;
	*ret_what = "mmap";
	switch (feature) {
	case FEATURE_MLOCK:
		*ret_pages = 16;
		base = map_private(16, PROT_READ | PROT_WRITE, 0);
		*ret_what = "mlock";
		return base && mlock(base, (size_t)16 * PAGE_BYTES) == 0 ? base : NULL;
	case FEATURE_HUGETLB:
		*ret_pages = HUGE_PAGES;
		*ret_what = "mmap(MAP_HUGETLB)";
		base = map_private(HUGE_PAGES, PROT_READ | PROT_WRITE, MAP_HUGETLB);
		/* A fork would need a second huge page, and the machine may have granted only this one. */
		return base && madvise(base, HUGE_BYTES, MADV_DONTFORK) == 0 ? base : NULL;
	case FEATURE_THP:
		*ret_pages = (size_t)2 * HUGE_PAGES;
		base = map_private((size_t)3 * HUGE_PAGES, PROT_READ | PROT_WRITE, 0);
		if (base)
			base = (void *)(((uintptr_t)base + HUGE_BYTES - 1) & ~((uintptr_t)HUGE_BYTES - 1));
		*ret_what = "madvise(MADV_HUGEPAGE)";
		return base && madvise(base, 2ul * HUGE_BYTES, MADV_HUGEPAGE) == 0 ? base : NULL;
	case FEATURE_HEAP:
		*ret_pages = 24; /* below malloc's threshold for mmap, so it lies in [heap] */
		*ret_what = "malloc";
		return aligned_alloc(PAGE_BYTES, (size_t)24 * PAGE_BYTES);
	case FEATURE_STACK:
		*ret_pages = MAIN_STACK_PAGES;
		return kinds->main_stack;
	case FEATURE_REMAP:
		*ret_pages = SMALL_PAGES / 2;
		return map_private(SMALL_PAGES / 2, PROT_READ | PROT_WRITE, 0);
	case FEATURE_DONTNEED:
	case FEATURE_RELRO:
	case FEATURE_HIDDEN:
	case FEATURE_COW:
	case FEATURE_GUARD:
	case FEATURE_EXE:
	case FEATURE_MAX:
	default:
		return map_private(SMALL_PAGES, PROT_READ | PROT_WRITE, 0);
	}
}

static int guards_init(struct kinds *kinds)
{
	for (int i = 0; i < 2; i++)
		if (!(kinds->guards[i] = map_private(GUARD_PAGES, PROT_NONE, i ? MAP_NORESERVE : 0)))
			return -errno;
	return 0;
}

/* Private mapping of the running program; its own pages are whole, the last part page is left out. */
static int exe_init(struct kinds *kinds, struct region *region)
{
	struct stat status;
	_cleanup_close_ int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	size_t pages = (size_t)status.st_size / PAGE_BYTES;
	pages = pages < SMALL_PAGES ? pages : SMALL_PAGES;
	void *base = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	int r = region_init(region, "exe", base, pages, pages, kinds->settings->seed, kinds->settings->content);
	if (r < 0)
		return r;
	region->origin = calloc(pages, sizeof(*region->origin));
	if (!region->origin)
		return -ENOMEM;
	for (size_t i = 0; i < pages; i++)
		region->origin[i] = page_hash(region->base + i * PAGE_BYTES);
	for (size_t i = 1; i < pages; i += 2)
		region_write(&kinds->owner, region, i);
	return 0;
}

static int feature_init(struct kinds *kinds, enum feature feature)
{
	struct region *region = &kinds->regions[feature];
	const char *what;
	size_t pages;
	if (feature == FEATURE_GUARD)
		return guards_init(kinds);
	if (feature == FEATURE_EXE) {
		int r = exe_init(kinds, region);
		if (r < 0 && r != -ENOMEM) {
			errno = -r;
			skip(kinds, feature, "mmap(/proc/self/exe)");
			return 0;
		}
		return r;
	}
	void *base = map_feature(kinds, feature, &pages, &what);
	if (!base) {
		skip(kinds, feature, what);
		return 0;
	}
	size_t pages_max = feature == FEATURE_REMAP ? REMAP_PAGES_MAX : pages;
	int r = region_init(region, feature_names[feature], base, pages, pages_max, kinds->settings->seed,
			    kinds->settings->content);
	if (r < 0)
		return r;
	region_write_all(&kinds->owner, region);
	if (feature == FEATURE_RELRO)
		protect(kinds, region, PROT_READ);
	else if (feature == FEATURE_HIDDEN)
		protect(kinds, region, PROT_NONE);
	return 0;
}

int kinds_init(struct kinds *kinds, const struct settings *settings, struct state *state, void *main_stack)
{
	*kinds = (struct kinds){ .settings = settings,
				 .main_stack = main_stack,
				 .owner = owner_new(state, settings->seed) };
	for (enum feature f = 0; f < FEATURE_MAX; f++) {
		int r = settings->feature[f] ? feature_init(kinds, f) : 0;
		if (r < 0)
			return r;
	}
	return settings->shared_bytes ? sharing_new(settings, &kinds->owner, &kinds->sharing) : 0;
}

/* ---- steps ---- */

/* Asks the kernel to read a signal set there, with a `how` that it will refuse: EFAULT if it cannot read, EINVAL if
 * it can. No descriptor, no signal, nothing changed. */
static bool is_readable(const void *address)
{
	return syscall(SYS_rt_sigprocmask, -1, address, NULL, 8) < 0 && errno == EINVAL;
}

static void guards_step(struct kinds *kinds)
{
	if (corruption_take(kinds->owner.state, "guard"))
		mprotect(kinds->guards[0], PAGE_BYTES, PROT_READ);
	for (int i = 0; i < 2; i++)
		for (size_t p = 0; p < GUARD_PAGES; p++)
			if (is_readable(kinds->guards[i] + p * PAGE_BYTES))
				state_report_words(kinds->owner.state, "guard", "guard page is readable",
						   kinds->guards[i] + p * PAGE_BYTES);
}

static void hidden_step(struct kinds *kinds, struct region *region)
{
	if (is_readable(region->base))
		state_report_words(kinds->owner.state, region->name, "PROT_NONE page is readable", region->base);
	protect(kinds, region, PROT_READ | PROT_WRITE);
	region_check_all(&kinds->owner, region, true);
	region_write(&kinds->owner, region, random_next(&kinds->owner.random) % region->pages);
	protect(kinds, region, PROT_NONE);
}

static void remap_step(struct kinds *kinds, struct region *region)
{
	struct owner *owner = &kinds->owner;
	size_t pages = SMALL_PAGES / 4 + random_next(&owner->random) % (REMAP_PAGES_MAX - SMALL_PAGES / 4);
	void *base;
	if (random_next(&owner->random) & 1) {
		base = mremap(region->base, region->pages * PAGE_BYTES, pages * PAGE_BYTES, MREMAP_MAYMOVE);
	} else { /* to a place of our choice, so that it surely moves */
		void *place = map_private(pages, PROT_NONE, 0);
		base = place ? mremap(region->base, region->pages * PAGE_BYTES, pages * PAGE_BYTES,
				      MREMAP_MAYMOVE | MREMAP_FIXED, place)
			     : MAP_FAILED;
	}
	if (base == MAP_FAILED) {
		state_report_words(owner->state, region->name, "mremap failed", region->base);
		return;
	}
	for (size_t i = pages; i < region->pages; i++)
		region->table[i] &= ~1ull; /* cut off: when it grows again those are fresh */
	size_t before = region->pages;
	region->base = base;
	region->pages = pages;
	for (size_t i = before; i < pages; i++)
		region_check(owner, region, i); /* fresh pages are zero */
	for (size_t i = 0; i < 4; i++)
		region_write(owner, region, random_next(&owner->random) % pages);
}

static void plain_step(struct kinds *kinds, enum feature feature)
{
	struct region *region = &kinds->regions[feature];
	struct owner *owner = &kinds->owner;
	bool discards = feature == FEATURE_DONTNEED || feature == FEATURE_THP || feature == FEATURE_EXE;
	if (discards) {
		size_t count = 1 + random_next(&owner->random) % 8;
		size_t first = random_next(&owner->random) % region->pages;
		if (first + count <= region->pages && (feature != FEATURE_THP || kinds->passes % 16 == 0))
			region_discard(owner, region, first, count);
	}
	for (size_t i = 0; i < 4; i++)
		region_write(owner, region, random_next(&owner->random) % region->pages);
}

static void feature_step(struct kinds *kinds, enum feature feature, bool full)
{
	struct region *region = &kinds->regions[feature];
	if (feature == FEATURE_GUARD && kinds->guards[1])
		guards_step(kinds);
	if (!region->table)
		return;
	region_corrupt_if_asked(&kinds->owner, region);
	if (feature == FEATURE_HIDDEN) {
		/* Hidden most of the time, so that a migration finds it so. */
		if (full || kinds->passes % 8 == 0)
			hidden_step(kinds, region);
		return;
	}
	/* Checked before anything is written, and discarded pages only in a full pass: looking populates them. */
	region_check_all(&kinds->owner, region, full);
	if (feature == FEATURE_REMAP)
		remap_step(kinds, region);
	else if (feature != FEATURE_RELRO)
		plain_step(kinds, feature);
}

void *kinds_main(void *argument)
{
	struct kinds *kinds = argument;
	struct owner *owner = &kinds->owner;
	struct ticker ticker;
	ticker_start(&ticker, 50 * NS_PER_MS);
	for (; !atomic_load(&owner->state->stop); kinds->passes++) {
		uint32_t request = atomic_load(&owner->state->full_request);
		bool full = request != atomic_load(&owner->counters->full_done);
		for (enum feature f = 0; f < FEATURE_MAX; f++)
			feature_step(kinds, f, full);
		if (kinds->sharing)
			sharing_step(kinds->sharing, owner, full);
		atomic_store(&owner->counters->full_done, request);
		ticker_wait(&ticker);
	}
	return NULL;
}

/* ---- the second process ---- */

_Noreturn void kinds_child(struct kinds *kinds, struct owner owner, pid_t parent)
{
	struct region *cow = &kinds->regions[FEATURE_COW];
	struct ticker ticker;
	/* Ended by the parent's `stop`; a ^C or a service manager's TERM goes to the parent. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	cow->name = "cow-child";
	ticker_start(&ticker, 50 * NS_PER_MS);
	while (!atomic_load(&owner.state->stop) && getppid() == parent) {
		uint32_t request = atomic_load(&owner.state->full_request);
		bool full = request != atomic_load(&owner.counters->full_done);
		if (cow->table) {
			region_corrupt_if_asked(&owner, cow);
			region_check_all(&owner, cow, true);
			region_write(&owner, cow, (random_next(&owner.random) % cow->pages) | 1);
		}
		if (kinds->sharing)
			sharing_step(kinds->sharing, &owner, full);
		atomic_store(&owner.counters->full_done, request);
		ticker_wait(&ticker);
	}
	_exit(0);
}
