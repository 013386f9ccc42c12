/* Regions: writing, discarding and checking pages against the table; reporting what does not fit.
 *
 * Invariants: generations of a page never repeat, also not over a discard, so that any older content is told from
 * the right one. A page is checked before it is overwritten, otherwise the write would hide what was wrong.
 * A wrong page is counted each time that it is seen; the first finding of all is kept.
 * Threads: a region is one thread's; the state is everybody's (atomics; the finding is claimed once).
 */
#include "region.h"

#include "common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct owner owner_new(struct state *state, uint64_t seed)
{
	uint32_t number = atomic_fetch_add(&state->owners, 1);
	return (struct owner){ .state = state, .counters = &state->counters[number], .random = mix64(seed + number) };
}

void state_report(struct state *state, const struct finding *finding)
{
	atomic_fetch_add(&state->errors, 1);
	if (atomic_exchange(&state->finding_claimed, 1))
		return;
	state->finding = *finding;
	state->finding.pid = getpid();
	atomic_store(&state->finding_ready, 1);
}

void state_report_words(struct state *state, const char *region, const char *what, const void *address)
{
	struct finding finding = { .address = (uintptr_t)address, .diagnosis.what = "" };
	strncpy(finding.region, region, sizeof(finding.region) - 1);
	strncpy(finding.what, what, sizeof(finding.what) - 1);
	state_report(state, &finding);
}

bool corruption_take(struct state *state, const char *kind)
{
	uint32_t armed = 1;
	return atomic_load_explicit(&state->corrupt_armed, memory_order_relaxed) == 1 &&
	       strcmp(state->corrupt_kind, kind) == 0 &&
	       atomic_compare_exchange_strong(&state->corrupt_armed, &armed, 2);
}

int region_init(struct region *region, const char *name, void *base, size_t pages, size_t pages_max, uint64_t seed,
		enum page_content content)
{
	uint64_t *table = calloc(pages_max, sizeof(*table));
	if (!table)
		return -ENOMEM;
	*region = (struct region){ .name = name,
				   .base = base,
				   .pages = pages,
				   .pages_max = pages_max,
				   .seed = mix64(seed ^ (uintptr_t)name),
				   .content = content,
				   .protection = PROT_READ | PROT_WRITE,
				   .table = table };
	return 0;
}

void region_free(struct region *region)
{
	free(region->table);
	free(region->origin);
	region->table = NULL;
	region->origin = NULL;
}

bool region_holds(const struct region *region, size_t index)
{
	return region->table[index] & 1;
}

static void report_page(struct owner *owner, const struct region *region, size_t index)
{
	uint64_t entry = region->table[index];
	const uint8_t *page = region->base + index * PAGE_BYTES;
	struct finding finding = { .address = (uintptr_t)page,
				   .page = index,
				   .expected_generation = entry & 1 ? entry >> 1 : 0,
				   .own_seed = region->seed };
	finding.diagnosis = page_diagnose(page, region->content, region->seed, index, finding.expected_generation);
	if (!(entry & 1) && region->origin)
		finding.diagnosis.what = "untouched page that is not the file's";
	strncpy(finding.region, region->name, sizeof(finding.region) - 1);
	strncpy(finding.what, finding.diagnosis.what, sizeof(finding.what) - 1);
	state_report(owner->state, &finding);
}

bool region_check(struct owner *owner, struct region *region, size_t index)
{
	uint64_t entry = region->table[index];
	const uint8_t *page = region->base + index * PAGE_BYTES;
	bool right;
	if (!(entry & 1) && region->origin)
		right = page_hash(page) == region->origin[index];
	else
		right = page_matches(page, region->content, region->seed, index, entry & 1 ? entry >> 1 : 0);
	atomic_fetch_add_explicit(&owner->counters->verified, 1, memory_order_relaxed);
	if (!right)
		report_page(owner, region, index);
	return right;
}

void region_write(struct owner *owner, struct region *region, size_t index)
{
	uint64_t generation = (region->table[index] >> 1) + 1;
	/* The very first write of fresh memory has nothing to check, and reading it first would fault twice. */
	if (generation > 1 || region->origin)
		region_check(owner, region, index);
	page_fill(region->base + index * PAGE_BYTES, region->content, region->seed, index, generation);
	region->table[index] = generation << 1 | 1;
	atomic_fetch_add_explicit(&owner->counters->written, 1, memory_order_relaxed);
}

void region_write_all(struct owner *owner, struct region *region)
{
	for (size_t i = 0; i < region->pages; i++)
		region_write(owner, region, i);
}

void region_check_all(struct owner *owner, struct region *region, bool untouched_too)
{
	for (size_t i = 0; i < region->pages; i++)
		if (untouched_too || region_holds(region, i))
			region_check(owner, region, i);
}

void region_discard(struct owner *owner, struct region *region, size_t index, size_t count)
{
	for (size_t i = index; i < index + count; i++)
		if (region_holds(region, i))
			region_check(owner, region, i);
	if (madvise(region->base + index * PAGE_BYTES, count * PAGE_BYTES, MADV_DONTNEED) < 0) {
		state_report_words(owner->state, region->name, "madvise(MADV_DONTNEED) failed", region->base);
		return;
	}
	for (size_t i = index; i < index + count; i++)
		region->table[i] &= ~1ull;
}

void region_corrupt_if_asked(struct owner *owner, struct region *region)
{
	if (!corruption_take(owner->state, region->name))
		return;
	size_t index = random_next(&owner->random) % region->pages;
	while (!region_holds(region, index))
		index = (index + 1) % region->pages;
	uint8_t *page = region->base + index * PAGE_BYTES;
	/* Read-only and hidden ones too; whole pages, as a huge page would refuse, but those are writable. */
	if (!(region->protection & PROT_WRITE))
		mprotect(page, PAGE_BYTES, PROT_READ | PROT_WRITE);
	page_spoil(page, owner->state->corrupt_how, region->content, region->seed, index, region->table[index] >> 1);
	if (!(region->protection & PROT_WRITE))
		mprotect(page, PAGE_BYTES, region->protection);
}
