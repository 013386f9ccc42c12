/*
 * What is done beside CRIU's dump: its questions about mappings are answered, and the last pages are sent.
 *
 * CRIU injects its parasite while pages are read here, and for a moment other instructions stand in the task's code, put there through
 * ptrace(2). Code of a file comes in CRIU's own images; written code in anonymous memory (a compiler's at run time) is ours to
 * send, and waits until CRIU is done. Nothing else of a stopped task changes: a stack is not used, what the parasite writes it
 * writes into memory of its own.
 *
 * Threads: source_flags_answer() and source_early_send() run in the thread of source-final.c, while the main one waits for
 * CRIU; the others in the main one. Source: compel/src/lib/infect.c (parasite_memfd_exchange), criu/parasite-syscall.c
 * (get_exec_start).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "criu/preload/protocol.h"
#include "memory/maps.h"
#include "migration/source-internal.h"

void source_flags_prepare(struct source *s)
{
	_cleanup_free_ pid_t *pids = NULL, *image_pids = NULL;
	struct error err = { 0 };
	size_t n;
	int r = vma_flags_new(&s->flags, &err);

	if (!r)
		r = s->driver->processes(&s->workload, &pids, &image_pids, &n, &err);
	for (size_t i = 0; !r && i < n; i++) {
		struct error why = { 0 };

		/* It may just have ended. */
		if (vma_flags_learn(s->flags, pids[i], &why) < 0)
			log_debug("%s", why.text);
	}
	snprintf(s->flags_path, sizeof(s->flags_path), "%s" PRELOAD_FLAGS_SUFFIX, s->hidden_path);
	if (!r && mkfifo(s->flags_path, 0600) < 0)
		r = error_errno(&err, errno, "cannot make the pipe %s", s->flags_path);
	if (r < 0) {
		log_debug("CRIU will read smaps: %s", err.text);
		vma_flags_free(TAKE_PTR(s->flags));
	}
	tracker_set_flags(s->tracker, s->flags);
}

void source_flags_answer(struct source *s, int fd, const pid_t *pids, size_t n)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	int r;

	/* A process that is left out, and every one that comes after the start of the dump, costs a walk and nothing else. */
	for (size_t i = 0; i < n; i++) {
		struct error why = { 0 };

		if (vma_flags_print(s->flags, pids[i], &text, &why) < 0)
			log_debug("CRIU will read smaps: %s", why.text);
	}
	r = fd_write_full(fd, text.data, text.length);
	if (r < 0)
		log_debug("CRIU does not read the flags of mappings: %s", strerror(-r));
}

/* Where the part that begins at `at` and is executable, or is not, ends. *next is kept between calls with ascending addresses. */
static uint64_t alike_until(const struct maps *maps, size_t *next, uint64_t at, uint64_t end, bool *ret_executable)
{
	const struct map *map;

	while (*next < maps->n_maps && maps->maps[*next].end <= at)
		(*next)++;
	map = *next < maps->n_maps ? &maps->maps[*next] : NULL;
	/* What is not mapped cannot be read either: later, when the sender finds it gone as well. */
	*ret_executable = !map || map->start > at || map->executable;
	if (!map)
		return end;
	return MIN(end, map->start > at ? map->start : map->end);
}

static int split_run(const struct maps *maps, size_t *next, const struct page_run *run, struct page_runs *ret_early,
		     struct page_runs *ret_late)
{
	uint64_t end = run->pid_address + (run->pages << PAGE_SHIFT), to;
	int r = 0;

	for (uint64_t at = run->pid_address; at < end && !r; at = to) {
		struct page_run part = *run;
		bool executable;

		to = alike_until(maps, next, at, end, &executable);
		part.address += at - run->pid_address;
		part.pid_address = at;
		part.pages = (to - at) >> PAGE_SHIFT;
		r = page_runs_add(executable ? ret_late : ret_early, &part);
	}
	return r;
}

/* Ascending within each process, as the tracker gives them. */
static int split(const struct page_runs *runs, struct page_runs *ret_early, struct page_runs *ret_late,
		 struct error *err)
{
	_cleanup_maps_ struct maps maps = { 0 };
	size_t next = 0;
	pid_t pid = 0;
	int r = 0;

	for (size_t i = 0; i < runs->n_runs && r >= 0; i++) {
		const struct page_run *run = &runs->runs[i];

		if (run->pid != pid) {
			pid = run->pid;
			next = 0;
			maps_free(&maps);
			r = maps_read(pid, &maps, err);
			if (r == -ESRCH) /* it has ended: late, when the sender finds it gone as well */
				r = 0;
		}
		if (!r && split_run(&maps, &next, run, ret_early, ret_late) < 0)
			r = error_set(err, ENOMEM, "no memory for the last list of pages");
	}
	return r;
}

int source_early_send(struct source *s, struct error *err)
{
	struct page_runs early = { 0 };
	int r = split(&s->runs, &early, &s->late_runs, err);

	page_runs_free(&s->runs);
	s->runs = early;
	if (r < 0)
		return r;
	s->early_sending = true;
	s->round++;
	return sender_start(s->sender, s->round, &s->runs, SENDER_LAST, err);
}

int source_early_finish(struct source *s, struct error *err)
{
	const struct page_runs *rest = s->early_sending ? &s->late_runs : &s->runs;
	int r = s->early_sending ? sender_wait(s->sender, DEADLINE_NEVER, err) : 0;

	if (r < 0 || (s->early_sending && !rest->n_runs))
		return MIN(r, 0);
	s->round++;
	r = sender_start(s->sender, s->round, rest, SENDER_LAST, err);
	if (!r)
		r = sender_wait(s->sender, DEADLINE_NEVER, err);
	return MIN(r, 0);
}
