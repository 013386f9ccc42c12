/*
 * What is known of the memory at the freeze: the last list of pages, the present maps, what CRIU need not see.
 *
 * CRIU stops all tasks, reads the mappings of the first, and then walks its memory. libphaul-criu.so, preloaded into it, asks at
 * both steps, by opening a named pipe: which flags the mappings have (source-early.c), and what to leave out. At the first pipe
 * everything is stopped and nothing of CRIU's is in the tasks yet. A thread that waits at the other end takes the final pass
 * then, answers at the second pipe with the pages that our pager will serve, and begins to send, while CRIU goes on.
 * Where the first pipe is not there the second does for both. If the library does not act (another CRIU, a static one), the
 * final pass is taken after the dump, and CRIU has listed the pages needlessly; nothing else changes.
 *
 * Invariants: only one thread uses the tracker at a time (the caller waits in criu_dump() meanwhile). A page is left out only if
 * it is in a present map, and afterwards CRIU's own images are asked whether it lies in a mapping that is
 * restored lazily: if not, it would be in nobody's hands, and the migration ends here.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "migration/hook.h"
#include "migration/source-internal.h"

/* The processes of the stopped tree. */
struct tree_pids {
	pid_t *pids, *image_pids;
	size_t n;
};

static void tree_pids_free(struct tree_pids *t)
{
	free(t->pids);
	free(t->image_pids);
}

/* Adds to `runs` what only `other` has; both ascending within a space, as the tracker gives them. */
static int add_missing(struct page_runs *runs, const struct page_runs *other)
{
	struct space_seen {
		uint32_t space;
		struct range_set set;
	} *seen = NULL;
	size_t n_seen = 0;
	int r = 0;

	for (size_t i = 0; i < runs->n_runs && !r; i++) {
		const struct page_run *run = &runs->runs[i];

		if (!n_seen || seen[n_seen - 1].space != run->space) {
			struct space_seen *bigger = reallocarray(seen, n_seen + 1, sizeof(*seen));

			if (!bigger) {
				r = -ENOMEM;
				break;
			}
			seen = bigger;
			seen[n_seen++] = (struct space_seen){ .space = run->space };
		}
		r = range_set_add(&seen[n_seen - 1].set, run->address, run->address + (run->pages << PAGE_SHIFT));
	}
	for (size_t i = 0; i < other->n_runs && !r; i++) {
		const struct page_run *run = &other->runs[i];
		uint64_t at = run->address, end = run->address + (run->pages << PAGE_SHIFT);
		const struct range_set *have = NULL;

		for (size_t j = 0; j < n_seen; j++)
			if (seen[j].space == run->space)
				have = &seen[j].set;
		while (at < end && !r) {
			bool inside = false;
			uint64_t to = have ? range_set_part(have, at, end, &inside) : end;
			struct page_run part = *run;

			part.address = at;
			part.pid_address += at - run->address;
			part.pages = (to - at) >> PAGE_SHIFT;
			if (!inside)
				r = page_runs_add(runs, &part);
			at = to;
		}
	}
	for (size_t j = 0; j < n_seen; j++)
		range_set_free(&seen[j].set);
	free(seen);
	return r;
}

/* What CRIU restores lazily is ours to send; the rest comes in its images (dedup.h) and is not sent twice. */
static void drop_image_pages(struct page_runs *runs)
{
	size_t kept = 0;

	runs->pages = 0;
	for (size_t i = 0; i < runs->n_runs; i++) {
		if (runs->runs[i].in_images)
			continue;
		runs->pages += runs->runs[i].pages;
		runs->runs[kept++] = runs->runs[i];
	}
	runs->n_runs = kept;
}

/* The last list: what was written until the freeze, and what the last round left. */
static int collect_final(struct source *s, const struct tree_pids *tree, struct error *err)
{
	_cleanup_(page_runs_free) struct page_runs pending = s->runs;
	int r;

	s->runs = (struct page_runs){ 0 };
	r = tracker_update(s->tracker, TRACKER_FINAL, tree->pids, tree->image_pids, tree->n, err);
	if (!r)
		r = tracker_collect(s->tracker, TRACKER_FINAL, &s->runs, err);
	if (!r && add_missing(&s->runs, &pending) < 0)
		r = error_set(err, ENOMEM, "no memory for the last list of pages");
	if (!r)
		drop_image_pages(&s->runs);
	return r;
}

void present_list_free(struct present_list *p)
{
	for (size_t i = 0; i < p->n; i++)
		range_set_free(&p->sets[i]);
	free(p->sets);
	free(p->parts);
	free(p->pointers);
}

static int present_list_make(struct source *s, struct present_list *ret, struct error *err)
{
	const struct space *spaces;
	size_t n = tracker_spaces(s->tracker, &spaces);
	int r = 0;

	ret->sets = calloc(n + 1, sizeof(*ret->sets));
	ret->parts = calloc(n + 1, sizeof(*ret->parts));
	ret->pointers = calloc(n + 1, sizeof(*ret->pointers));
	if (!ret->sets || !ret->parts || !ret->pointers)
		return error_set(err, ENOMEM, "no memory for the present maps");
	for (size_t i = 0; i < n && !r; i++) {
		Phaul__Wire__SpacePresent *part = &ret->parts[ret->n];
		struct range_set *set = &ret->sets[ret->n];

		if (spaces[i].kind != SPACE_PROCESS)
			continue;
		r = tracker_present(s->tracker, spaces[i].id, set, err);
		phaul__wire__space_present__init(part);
		part->space = spaces[i].id;
		part->image_pid = spaces[i].image_pid;
		part->bounds = (uint64_t *)set->ranges; /* a range is two numbers in a row */
		part->n_bounds = set->n_ranges * 2;
		ret->pointers[ret->n++] = part;
		ret->pages += range_set_total(set) >> PAGE_SHIFT;
	}
	return r;
}

/* Whether the list, ascending within a process, covers the whole range. *cursor: where to look on, for ascending ranges. */
static bool lazily_covered(const struct criu_lazy_range *list, size_t n, size_t *cursor, int32_t image_pid,
			   const struct range *range)
{
	uint64_t at = range->start;

	while (*cursor < n && (list[*cursor].image_pid != image_pid || list[*cursor].end <= at))
		(*cursor)++;
	/* Neighbouring mappings are merged in the list, but mappings of another kind may stand between. */
	for (size_t i = *cursor; i < n && list[i].image_pid == image_pid && list[i].start <= at && at < range->end; i++)
		at = MAX(at, list[i].end);
	return at >= range->end;
}

/* What we hid must be restored lazily, or nobody restores it. */
static int check_hidden(const struct source *s, struct error *err)
{
	_cleanup_free_ struct criu_lazy_range *areas = NULL;
	size_t n;
	int r = criu_lazy_areas(s->images_directory, &areas, &n, err);

	for (size_t i = 0; i < s->present.n && !r; i++)
		for (size_t j = 0, cursor = 0; j < s->present.sets[i].n_ranges; j++) {
			const struct range *range = &s->present.sets[i].ranges[j];

			if (!lazily_covered(areas, n, &cursor, s->present.parts[i].image_pid, range))
				return error_set(err, EBADMSG,
						 "pages %llx-%llx of process %d are not restored lazily by CRIU; "
						 "nothing was moved",
						 (unsigned long long)range->start, (unsigned long long)range->end,
						 s->present.parts[i].image_pid);
		}
	return r;
}

/* CRIU says which pages it expects lazily; every one must be in a present map, or the task would find zeros there. */
static int check_expected(const struct source *s, struct error *err)
{
	_cleanup_free_ struct criu_lazy_range *lazy = NULL;
	size_t n;
	int r = criu_lazy_ranges(s->images_directory, &lazy, &n, err);

	for (size_t i = 0; i < n && !r; i++) {
		bool fine = false;

		for (size_t j = 0; j < s->present.n && !fine; j++) {
			bool inside;

			fine = s->present.parts[j].image_pid == lazy[i].image_pid &&
			       range_set_part(&s->present.sets[j], lazy[i].start, lazy[i].end, &inside) ==
				       lazy[i].end &&
			       inside;
		}
		if (!fine)
			return error_set(err, EBADMSG,
					 "CRIU expects pages %llx-%llx of process %d that the tracker does not know; "
					 "nothing was moved",
					 (unsigned long long)lazy[i].start, (unsigned long long)lazy[i].end,
					 lazy[i].image_pid);
	}
	return r;
}

/* "PID START END" lines, PID as this host sees it. */
static int write_hidden(struct source *s, int fd, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	const struct space *spaces;
	size_t n = tracker_spaces(s->tracker, &spaces);
	int r = 0;

	for (size_t i = 0; i < s->present.n && !r; i++) {
		pid_t pid = 0;

		for (size_t j = 0; j < n && !pid; j++)
			if (spaces[j].id == s->present.parts[i].space)
				pid = spaces[j].pid;
		for (size_t j = 0; j < s->present.sets[i].n_ranges && !r; j++)
			r = buffer_printf(&text, "%d %llx %llx\n", pid,
					  (unsigned long long)s->present.sets[i].ranges[j].start,
					  (unsigned long long)s->present.sets[i].ranges[j].end);
	}
	if (!r)
		r = fd_write_full(fd, text.data, text.length);
	return r < 0 ? error_errno(err, -r, "cannot tell CRIU which pages it need not see") : 0;
}

static int take_final(struct source *s, const struct tree_pids *tree, struct error *err)
{
	int r = collect_final(s, tree, err);

	if (!r)
		r = present_list_make(s, &s->present, err);
	if (!r)
		source_busy_note(s, &s->runs);
	if (!r && s->postcopy.server)
		r = source_postcopy_leave(s, err);
	s->final_taken = true;
	log_debug("the last list has %llu pages", (unsigned long long)s->runs.pages);
	return r;
}

/* A pipe that CRIU opens for reading when it is so far; -1: it never did. */
static int await_criu(struct source *s, const char *path, enum final_reached reached)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	s->final_reached = reached;
	if (fd >= 0 && !s->final_canceled)
		return fd;
	close_fd(&fd);
	return -1;
}

/* From CRIU's first question on; fd: the first pipe. */
static int answer_criu(struct source *s, int fd, struct error *err)
{
	_cleanup_(tree_pids_free) struct tree_pids tree = { 0 };
	int r = s->driver->processes(&s->workload, &tree.pids, &tree.image_pids, &tree.n, err);

	log_debug("CRIU has stopped %zu processes", tree.n);
	if (s->flags && !r)
		source_flags_answer(s, fd, tree.pids, tree.n);
	if (s->flags)
		close_fd(&fd); /* CRIU goes on */
	(void)hook_reached("source", "final", -1, NULL);
	if (!r)
		r = take_final(s, &tree, err);
	if (s->flags)
		fd = await_criu(s, s->hidden_path, FINAL_PAGES);
	if (fd < 0)
		return r;
	if (!r)
		r = write_hidden(s, fd, err);
	close_fd(&fd);
	s->hidden = !r;
	return r ? r : source_early_send(s, err);
}

static void *final_main(void *arg)
{
	struct source *s = arg;
	int fd = s->flags ? await_criu(s, s->flags_path, FINAL_MAPPINGS) : await_criu(s, s->hidden_path, FINAL_PAGES);

	if (fd >= 0)
		s->final_result = answer_criu(s, fd, &s->final_error);
	/* While CRIU dumps; unless it makes names in the trees itself. */
	if (!s->final_result && s->hidden && !s->way.link_remap)
		s->final_result = source_sync_final_begin(s, &s->final_error);
	return NULL;
}

int source_final_begin(struct source *s, struct error *err)
{
	int r = pthread_create(&s->final_thread, NULL, final_main, s);

	return r ? error_errno(err, r, "cannot start a thread for the final pass") : 0;
}

static int take_final_late(struct source *s, struct error *err)
{
	_cleanup_(tree_pids_free) struct tree_pids tree = { 0 };
	int r = s->driver->processes(&s->workload, &tree.pids, &tree.image_pids, &tree.n, err);

	return r ? r : take_final(s, &tree, err);
}

int source_final_end(struct source *s, int dumped, struct error *err)
{
	_cleanup_close_ int flags_fd = -1;
	_cleanup_close_ int fd = -1;

	/* If CRIU never asked, the thread still waits for somebody to open the pipe. If it did ask, the pipe is the thread's and
	 * CRIU's alone: a reader that never reads would keep the thread from noticing that CRIU has died. Each side sets its
	 * flag before it looks at the other's, so a thread that comes past its open(2) only now writes nothing. */
	s->final_canceled = true;
	if (s->flags && s->final_reached < FINAL_MAPPINGS)
		flags_fd = open(s->flags_path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (s->final_reached < FINAL_PAGES)
		fd = open(s->hidden_path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	pthread_join(s->final_thread, NULL);
	if (dumped < 0)
		return dumped;
	if (s->final_result < 0) {
		if (err)
			*err = s->final_error;
		return s->final_result;
	}
	if (!s->final_taken) {
		int r = take_final_late(s, err);

		if (r < 0)
			return r;
	}
	log_debug("CRIU was %s", s->hidden ? "told which pages it need not see" : "not asked to leave pages out");
	dumped = s->hidden ? check_hidden(s, err) : 0;
	return dumped < 0 ? dumped : check_expected(s, err);
}
