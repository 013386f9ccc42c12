/*
 * From the mappings of a process to the areas that are scanned: what is covered, what is registered, what is new.
 *
 * Invariants: every populated page of covered memory lies in exactly one area; an area is armed only when the kernel said
 * so; p->armed is what this update registered, p->fresh what became registered since the last collect, so a page that
 * was there before the registration is reported once whatever its page table entry says.
 * One thread.
 */
#include <errno.h>
#include <string.h>

#include "base/array.h"
#include "base/log.h"
#include "memory/tracker-internal.h"

static int areas_add(struct areas *a, const struct area *area)
{
	struct area *last = a->n_areas ? &a->areas[a->n_areas - 1] : NULL;

	if (last && !last->object && !area->object && last->end == area->start && last->armed == area->armed &&
	    last->lazy == area->lazy && last->of_file == area->of_file && last->unwritable == area->unwritable) {
		last->end = area->end;
		return 0;
	}
	if (array_grow(&a->areas, a->n_areas, &a->n_allocated, 64, sizeof(*a->areas)) < 0)
		return -ENOMEM;
	a->areas[a->n_areas++] = *area;
	return 0;
}

/* Whether a mapping is covered, and as what; false: not. */
static bool classify(struct tracker *t, const struct tracked *p, const struct map *map, struct area *ret)
{
	struct inode_entry *e = NULL;
	bool anonymous = map->name == MAP_NAME_NONE || (map->name == MAP_NAME_ZERO && !map->shared);

	*ret = (struct area){ .start = map->start, .end = map->end, .offset = map->offset };
	if (map->name == MAP_NAME_KERNEL || map->name == MAP_NAME_CRIU)
		return false;
	if (anonymous && !map->shared) {
		ret->lazy = !map->locked;
		return true;
	}
	e = inode_table_get(&t->inodes, p->pid, map, t->update);
	if (!e || e->kind == INODE_DEVICE || e->kind == INODE_INVALID)
		return false;
	ret->of_file = !map->shared;
	ret->huge = e->kind == INODE_HUGETLB;
	if (!map->shared)
		return true;
	if (e->kind == INODE_FILE)
		return false; /* lives in its file */
	if (e->seen_shared != t->update && !e->space)
		e->space = t->next_space++;
	e->seen_shared = t->update;
	ret->object = e;
	return true;
}

void tracked_set_reason(struct tracked *p, int number, const char *text)
{
	p->reason_number = number;
	snprintf(p->reason, sizeof(p->reason), "%s", text);
}

/* An area while it is armed, with the surroundings of its mapping. */
struct candidate {
	struct area area;
	uint64_t low, high;
};

/* One mapping that could not be armed together with others. */
static int arm_one(struct tracker *t, struct tracked *p, struct area *area)
{
	char text[256];
	int r = t->ops->arm(p, area->start, area->end);

	if (r == -ESRCH)
		return r;
	area->armed = !r;
	area->unwritable = r == -EPERM && area->object;
	if (!r || area->unwritable || r == -ENOENT) /* ENOENT: it has gone since maps was read; the next update sees */
		return 0;
	snprintf(text, sizeof(text), "memory at %lx-%lx of process %d %s: %s", (unsigned long)area->start,
		 (unsigned long)area->end, (int)p->pid,
		 r == -EBUSY ? "belongs to a userfaultfd of its own" : "cannot be write-protected", strerror(-r));
	tracked_set_reason(p, -r, text);
	return 0;
}

/*
 * Arms candidates [from, to) with the holes around and between them: in one call when the kernel agrees, else in halves. The process goes on
 * meanwhile: a mapping that has moved or grown since maps was read must not become armed in part, for that cuts it in two, and mremap(2) fails
 * with EFAULT on two mappings. Whatever came into a hole is armed as well, and the next update finds it.
 */
static int arm_run(struct tracker *t, struct tracked *p, struct candidate *list, size_t from, size_t to)
{
	int r = t->ops->arm(p, list[from].low, list[to - 1].high);

	if (r == -ESRCH)
		return r;
	if (r < 0 && to - from == 1)
		return arm_one(t, p, &list[from].area);
	if (r < 0) {
		size_t middle = from + (to - from) / 2;

		r = arm_run(t, p, list, from, middle);
		return r < 0 ? r : arm_run(t, p, list, middle, to);
	}
	for (size_t i = from; i < to; i++)
		list[i].area.armed = true;
	return 0;
}

static int arm_all(struct tracker *t, struct tracked *p, struct candidate *list, size_t n)
{
	for (size_t from = 0, to; from < n; from = to) {
		int r;

		to = from + 1;
		if (list[from].area.huge && t->ops->blind_to_huge) {
			list[from].area.unwritable = true;
			continue;
		}
		/* As far as nothing else is mapped in between. */
		while (to < n && list[to].low == list[to - 1].area.end &&
		       !(list[to].area.huge && t->ops->blind_to_huge))
			to++;
		r = arm_run(t, p, list, from, to);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What is armed (or seen, when it cannot be written) now and was not before becomes fresh. Private memory where shared was is
 * new, whatever it says itself: its first pages may have been taken for those of the shared object. */
static int note_fresh(struct tracked *p, const struct candidate *list, size_t n)
{
	struct range_set armed = { 0 }, private = { 0 }, unwritable = { 0 };
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		const struct area *area = &list[i].area;

		if (!area->armed && !area->unwritable)
			continue;
		for (uint64_t at = area->start; at < area->end && !r;) {
			bool known;
			uint64_t end =
				range_set_part(area->object ? &p->armed : &p->armed_private, at, area->end, &known);

			if (!known)
				r = range_set_add(&p->fresh, at, end);
			at = end;
		}
		if (!r)
			r = range_set_add(&armed, area->start, area->end);
		if (!r && !area->object)
			r = range_set_add(&private, area->start, area->end);
		if (!r && area->unwritable)
			r = range_set_add(&unwritable, area->start, area->end);
	}
	if (r < 0) {
		range_set_free(&armed);
		range_set_free(&private);
		range_set_free(&unwritable);
		return r;
	}
	range_set_free(&p->armed);
	range_set_free(&p->armed_private);
	range_set_free(&p->unwritable);
	p->armed = armed;
	p->armed_private = private;
	p->unwritable = unwritable;
	return 0;
}

/* In the final pass nothing is registered: what was armed before stays so, area by area split where it was not. */
static int keep_armed(struct tracked *p, const struct area *area)
{
	for (uint64_t at = area->start; at < area->end;) {
		struct area part = *area;
		int r;

		part.start = at;
		part.offset = area->offset + (at - area->start);
		part.end = range_set_part(&p->armed, at, area->end, &part.armed);
		part.unwritable = (area->object || area->huge) && range_set_contains(&p->unwritable, at);
		r = areas_add(&p->areas, &part);
		if (r < 0)
			return r;
		at = part.end;
	}
	return 0;
}

int tracked_map_areas(struct tracker *t, struct tracked *p, const struct maps *maps, enum tracker_pass pass,
		      struct error *err)
{
	_cleanup_free_ struct candidate *list = calloc(maps->n_maps, sizeof(*list));
	size_t n = 0;
	int r = list ? 0 : -ENOMEM;

	for (size_t i = 0; i < maps->n_maps && !r; i++)
		if (classify(t, p, &maps->maps[i], &list[n].area)) {
			maps_surroundings(maps, i, &list[n].low, &list[n].high);
			n++;
		}
	if (!r && p->attached && pass == TRACKER_ROUND) {
		p->reason_number = 0;
		r = arm_all(t, p, list, n);
		if (!r)
			r = note_fresh(p, list, n);
	}
	p->areas.n_areas = 0;
	for (size_t i = 0; i < n && !r; i++)
		r = p->attached && pass == TRACKER_FINAL ? keep_armed(p, &list[i].area)
							 : areas_add(&p->areas, &list[i].area);
	if (r == -ESRCH)
		return r;
	return r < 0 ? error_errno(err, -r, "cannot take up the memory of process %d", (int)p->pid) : 0;
}
