/*
 * Collecting: scans the areas of each process and merges what was found into runs of pages.
 *
 * Order that matters: in a round a page is re-armed in the moment it is reported and read only later, so a
 * write after the report is reported again. In the final pass one scan yields both what was written and what is
 * present, so the present map never names a page that was not reported at some time.
 * One thread (soft-dirty: the scan of a process runs in a helper thread while the caller waits).
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "memory/task-stop.h"
#include "memory/tracker-internal.h"

struct collection {
	struct tracker *tracker;
	struct tracked *process;
	enum tracker_pass pass;
	struct range_set written; /* private memory */
	int result;
};

static int note_shared(const struct tracked *p, const struct area *area, const struct scan_region *region)
{
	struct inode_piece piece = { .offset = area->offset + (region->start - area->start),
				     .pid = p->pid,
				     .pid_address = region->start };

	piece.end = piece.offset + (region->end - region->start);
	return inode_add_piece(area->object, &piece);
}

static int note_region(struct collection *c, const struct area *area, bool fresh, const struct scan_region *region)
{
	bool reported = fresh || (area->unwritable ? false : !area->armed || (region->categories & SCAN_IS_WRITTEN));
	int r = 0;

	if (c->pass == TRACKER_FINAL && area->lazy)
		r = range_set_add(&c->process->present, region->start, region->end);
	if (r < 0 || !reported)
		return r;
	if (area->object)
		return note_shared(c->process, area, region);
	return range_set_add(&c->written, region->start, region->end);
}

/* A part of an area that is wholly fresh or wholly not. */
static int scan_part(struct collection *c, const struct area *area, uint64_t start, uint64_t end, bool fresh)
{
	struct scanner *s = &c->tracker->scanner;
	bool round = c->pass == TRACKER_ROUND;
	struct scan_request q = {
		.pagemap_fd = c->process->pagemap_fd,
		.at = start,
		.end = end,
		.own_only = !area->object,
		.of_file = area->of_file,
		.written_only = area->armed && !fresh && (round || !area->lazy),
		.arm = round && area->armed && c->tracker->ops->use_ioctl,
	};
	int n;

	if (area->unwritable && !fresh)
		return 0;
	if (c->tracker->ops->blind_to_moves && area->armed && !area->object) {
		q.frames = &c->process->frames;
		q.note_frames = round;
	}
	while ((n = scan_step(s, &q)) > 0)
		for (int i = 0; i < n; i++) {
			int r = note_region(c, area, fresh, &s->regions[i]);

			if (r < 0)
				return r;
		}
	return n;
}

static int scan_area(struct collection *c, const struct area *area)
{
	for (uint64_t at = area->start; at < area->end;) {
		bool fresh;
		uint64_t end = range_set_part(&c->process->fresh, at, area->end, &fresh);
		int r = scan_part(c, area, at, end, fresh);

		if (r < 0)
			return r;
		at = end;
	}
	return 0;
}

static void *scan_process(void *argument)
{
	struct collection *c = argument;
	const struct tracker_ops *ops = c->tracker->ops;
	struct tracked *p = c->process;
	bool held = c->pass == TRACKER_ROUND && p->attached && ops->begin;

	if (held) {
		frames_begin(&p->frames);
		ops->begin(p);
	}
	for (size_t i = 0; i < p->areas.n_areas && !c->result; i++)
		c->result = scan_area(c, &p->areas.areas[i]);
	if (held) {
		ops->finish(p);
		frames_end(&p->frames);
	}
	return NULL;
}

/* Where the part that begins at `at` and is restored in one way (lazily, or from images) ends. *next: where to look on, kept
 * between calls with ascending addresses. What no area covers any more is given as lazy: it is dropped later anyway. */
static uint64_t alike_until(const struct areas *areas, size_t *next, uint64_t at, uint64_t end, bool *ret_in_images)
{
	while (*next < areas->n_areas && areas->areas[*next].end <= at)
		(*next)++;
	*ret_in_images = false;
	if (*next == areas->n_areas)
		return end;
	if (areas->areas[*next].start > at)
		return MIN(end, areas->areas[*next].start);
	*ret_in_images = !areas->areas[*next].lazy;
	return MIN(end, areas->areas[*next].end);
}

static int private_runs(const struct tracked *p, const struct range_set *pages, struct page_runs *ret)
{
	size_t next = 0;

	for (size_t i = 0; i < pages->n_ranges; i++)
		for (uint64_t at = pages->ranges[i].start, end; at < pages->ranges[i].end; at = end) {
			struct page_run run = { .space = p->space, .address = at, .pid = p->pid, .pid_address = at };
			int r;

			end = alike_until(&p->areas, &next, at, pages->ranges[i].end, &run.in_images);
			run.pages = (end - at) >> PAGE_SHIFT;
			r = page_runs_add(ret, &run);
			if (r < 0)
				return r;
		}
	return 0;
}

/* In the final pass what left the window by being unmapped is of no interest. */
static int keep_present(struct range_set *pages, const struct range_set *present)
{
	struct range_set kept = { 0 };
	int r = 0;

	for (size_t i = 0; i < pages->n_ranges && !r; i++)
		for (uint64_t at = pages->ranges[i].start; at < pages->ranges[i].end && !r;) {
			bool inside;
			uint64_t end = range_set_part(present, at, pages->ranges[i].end, &inside);

			if (inside)
				r = range_set_add(&kept, at, end);
			at = end;
		}
	range_set_free(pages);
	*pages = kept;
	return r;
}

static int add_direct_io(struct collection *c)
{
	struct direct_io *d = &c->process->direct_io;
	_cleanup_range_set_ struct range_set window = { 0 };
	uint64_t now = clock_now_ns();
	int r = 0;

	if (!d->seen && c->pass == TRACKER_ROUND)
		d->seen = direct_io_has_descriptor(c->process->pid);
	if (!d->seen)
		return 0;
	if (c->pass == TRACKER_ROUND)
		r = direct_io_note(d, now, &c->written);
	if (!r)
		r = direct_io_add(d, now, c->pass, &window);
	if (!r && c->pass == TRACKER_FINAL)
		r = keep_present(&window, &c->process->present);
	return r < 0 ? r : range_set_unite(&c->written, &window);
}

static int collect_process(struct tracker *t, struct tracked *p, enum tracker_pass pass, struct page_runs *ret)
{
	struct collection c = { .tracker = t, .process = p, .pass = pass };
	int r = 0;

	range_set_free(&p->present);
	p->present_valid = false;
	if (t->ops->begin && pass == TRACKER_ROUND)
		r = task_run_tracer(scan_process, &c);
	else
		scan_process(&c);
	if (!r)
		r = c.result;
	if (!r)
		r = add_direct_io(&c);
	if (!r)
		r = private_runs(p, &c.written, ret);
	if (!r && pass == TRACKER_ROUND)
		range_set_free(&p->fresh);
	p->present_valid = !r && pass == TRACKER_FINAL;
	range_set_free(&c.written);
	return r;
}

static int compare_objects(const void *a, const void *b)
{
	const struct inode_entry *const *x = a, *const *y = b;

	return ((*x)->space > (*y)->space) - ((*x)->space < (*y)->space);
}

static int collect_shared(struct tracker *t, struct page_runs *ret)
{
	_cleanup_free_ struct inode_entry **objects = calloc(t->inodes.n_entries + 1, sizeof(struct inode_entry *));
	size_t n = 0;
	int r = objects ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < t->inodes.n_slots; i++)
		if (t->inodes.slots[i] && t->inodes.slots[i]->n_pieces)
			objects[n++] = t->inodes.slots[i];
	if (n)
		qsort(objects, n, sizeof(struct inode_entry *), compare_objects);
	for (size_t i = 0; i < n && !r; i++)
		r = inode_take_runs(objects[i], ret);
	return r;
}

int tracker_collect(struct tracker *t, enum tracker_pass pass, struct page_runs *ret, struct error *err)
{
	struct page_runs runs = { 0 };
	int r = 0;

	for (size_t i = 0; i < t->n_processes && !r; i++) {
		struct tracked *p = t->processes[i];

		r = collect_process(t, p, pass, &runs);
		if (r == -ESRCH && pass == TRACKER_ROUND)
			r = 0; /* it ended or called execve(2) since the update; the next one sees */
		if (r < 0)
			error_errno(err, -r, "cannot find out what process %d wrote", (int)p->pid);
	}
	if (!r) {
		r = collect_shared(t, &runs);
		if (r < 0)
			error_errno(err, -r, "cannot merge the written pages of shared memory");
	}
	if (r < 0) {
		page_runs_free(&runs);
		return r;
	}
	*ret = runs;
	return 0;
}

int tracker_present(struct tracker *t, uint32_t space, struct range_set *ret, struct error *err)
{
	struct range_set copy = { 0 };
	struct tracked *p = NULL;
	int r = 0;

	for (size_t i = 0; i < t->n_processes && !p; i++)
		if (t->processes[i]->space == space)
			p = t->processes[i];
	if (!p)
		return error_set(err, ENOENT, "space %u is not the private memory of a process", space);
	if (!p->present_valid)
		return error_set(err, EINVAL, "the pages of process %d are known only after a final collect",
				 (int)p->pid);
	r = range_set_unite(&copy, &p->present);
	if (r < 0)
		return error_errno(err, -r, "no memory for the present map of process %d", (int)p->pid);
	*ret = copy;
	return 0;
}
