/* Memory shared by the two processes of memtoucher: an anonymous MAP_SHARED mapping and a memfd. Both write every page.
 *
 * Each page has a slot in a third shared mapping: a lock and the generation that the page must hold. Whoever takes
 * the lock checks the page, may give it the next generation, and lets go. Besides, each process remembers in
 * private memory the last generation it saw of each page: it may never fall, so that page and slot going stale
 * together are found as well.
 *
 * Invariants: a page and its slot change only under the slot's lock.
 * Threads: one thread of each process; struct sharing is private to each (copied by the fork).
 */
#include "memtoucher.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct slot {
	_Atomic uint32_t lock;
	uint32_t spare;
	uint64_t generation;
};

struct part {
	const char *name;
	uint8_t *base;
	struct slot *slots;
	uint64_t *seen; /* private */
	uint64_t seed;
};

struct sharing {
	struct part parts[2];
	size_t pages;
	size_t cursor;
	enum page_content content;
	int memfd; /* kept open: a mapping whose file is also a descriptor */
};

static void part_report(struct sharing *sharing, struct part *part, struct owner *owner, size_t index,
			uint64_t expected, const char *what)
{
	const uint8_t *page = part->base + index * PAGE_BYTES;
	struct finding finding = {
		.address = (uintptr_t)page, .page = index, .expected_generation = expected, .own_seed = part->seed
	};
	finding.diagnosis = page_diagnose(page, sharing->content, part->seed, index, expected);
	strncpy(finding.region, part->name, sizeof(finding.region) - 1);
	strncpy(finding.what, what ? what : finding.diagnosis.what, sizeof(finding.what) - 1);
	state_report(owner->state, &finding);
}

static void part_visit(struct sharing *sharing, struct part *part, struct owner *owner, size_t index, bool write)
{
	struct slot *slot = &part->slots[index];
	uint8_t *page = part->base + index * PAGE_BYTES;
	while (atomic_exchange_explicit(&slot->lock, 1, memory_order_acquire))
		sched_yield();
	uint64_t generation = slot->generation;
	if (generation < part->seen[index])
		part_report(sharing, part, owner, index, part->seen[index], "generation fell back");
	else if (!page_matches(page, sharing->content, part->seed, index, generation))
		part_report(sharing, part, owner, index, generation, NULL);
	if (write) {
		generation++;
		page_fill(page, sharing->content, part->seed, index, generation);
		slot->generation = generation;
		atomic_fetch_add_explicit(&owner->counters->written, 1, memory_order_relaxed);
	}
	part->seen[index] = generation;
	atomic_store_explicit(&slot->lock, 0, memory_order_release);
	atomic_fetch_add_explicit(&owner->counters->verified, 1, memory_order_relaxed);
}

static void part_corrupt_if_asked(struct sharing *sharing, struct part *part, struct owner *owner)
{
	if (!corruption_take(owner->state, part->name))
		return;
	size_t index = random_next(&owner->random) % sharing->pages;
	struct slot *slot = &part->slots[index];
	while (atomic_exchange_explicit(&slot->lock, 1, memory_order_acquire))
		sched_yield();
	page_spoil(part->base + index * PAGE_BYTES, owner->state->corrupt_how, sharing->content, part->seed, index,
		   slot->generation);
	atomic_store_explicit(&slot->lock, 0, memory_order_release);
}

void sharing_step(struct sharing *sharing, struct owner *owner, bool full)
{
	/* A sixteenth of the pages each time: all of them are seen well within a second. */
	size_t checks = full ? sharing->pages : 1 + sharing->pages / 16;
	for (size_t p = 0; p < 2; p++) {
		struct part *part = &sharing->parts[p];
		part_corrupt_if_asked(sharing, part, owner);
		for (size_t i = 0; i < checks; i++)
			part_visit(sharing, part, owner, (sharing->cursor + i) % sharing->pages, false);
		for (size_t i = 0; i < 16; i++)
			part_visit(sharing, part, owner, random_next(&owner->random) % sharing->pages, true);
	}
	sharing->cursor = (sharing->cursor + checks) % sharing->pages;
}

static void *map_shared(size_t bytes, int fd)
{
	void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	return base == MAP_FAILED ? NULL : base;
}

int sharing_new(const struct settings *settings, struct owner *owner, struct sharing **ret_sharing)
{
	static const char *const names[2] = { "shared-anon", "shared-memfd" };
	struct sharing *sharing = calloc(1, sizeof(*sharing));
	if (!sharing)
		return -ENOMEM;
	sharing->memfd = memfd_create("memtoucher", MFD_CLOEXEC);
	sharing->pages = settings->shared_bytes / PAGE_BYTES;
	sharing->content = settings->content;
	if (sharing->memfd < 0 || ftruncate(sharing->memfd, (off_t)(sharing->pages * PAGE_BYTES)) < 0)
		goto fail;
	for (size_t p = 0; p < 2; p++) {
		struct part *part = &sharing->parts[p];
		part->name = names[p];
		part->seed = mix64(settings->seed + 77 * (p + 1));
		part->base = map_shared(sharing->pages * PAGE_BYTES, p ? sharing->memfd : -1);
		part->slots = map_shared(sharing->pages * sizeof(struct slot), -1);
		part->seen = calloc(sharing->pages, sizeof(*part->seen));
		if (!part->base || !part->slots || !part->seen)
			goto fail;
		for (size_t i = 0; i < sharing->pages; i++)
			part_visit(sharing, part, owner, i, true);
	}
	*ret_sharing = sharing;
	return 0;
fail:
	/* The program ends now; the mappings go with it. */
	return errno ? -errno : -ENOMEM;
}
