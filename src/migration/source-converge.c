/*
 * The source's convergence: what is sent in the next round and what is left for last, when copying ends and how, and the workload
 * held back meanwhile (docs/convergence.md). What to do is decided by policy.c; this file feeds it and obeys.
 *
 * Invariants: every page the tracker reported is in s->runs until a round that sent it was acknowledged; s->runs is what is sent next (s->sending)
 * and the rest (s->left). The workload is held back only between a round's decision and the freeze, and never by a phaul that has ended.
 *
 * Threads: that of source.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/waits.h"
#include "migration/source-internal.h"
#include "migration/tasks.h"

#define MAPS_BYTES_MAX (64U << 20)

void source_converge_channels(struct source *s)
{
	sender_set_pacer(s->sender, &s->pacer);
	for (size_t i = 0; i < s->n_trees; i++)
		if (s->trees[i].channel)
			channel_set_pacer(s->trees[i].channel, &s->pacer);
}

static int append(struct page_runs *to, const struct page_runs *from)
{
	int r = 0;

	for (size_t i = 0; i < from->n_runs && !r; i++)
		r = page_runs_add(to, &from->runs[i]);
	return r;
}

/* The new lists from what was written and what was left out before. */
static int sort_pages(struct source *s)
{
	_cleanup_(page_runs_free) struct page_runs hot = { 0 }, send = { 0 }, all = { 0 };
	_cleanup_page_bits_ struct page_bits *written = NULL;
	int r = page_bits_new(&written);

	if (!r)
		r = page_bits_set_runs(written, &s->written);
	if (!r)
		r = heat_look(&s->heat, &s->written, &hot, &send);
	if (!r)
		r = page_runs_select(&s->left, written, false, &send);
	/* A round of nothing would only cost time. */
	if (!r && !send.n_runs) {
		r = append(&send, &hot);
		page_runs_free(&hot);
	}
	if (!r)
		r = append(&all, &send);
	if (!r)
		r = append(&all, &hot);
	if (r < 0)
		return r;
	page_runs_free(&s->runs);
	page_runs_free(&s->sending);
	page_runs_free(&s->left);
	s->runs = all;
	s->sending = send;
	s->left = hot;
	all = send = hot = (struct page_runs){ 0 };
	return 0;
}

int source_converge_put_off(struct source *s, struct error *err)
{
	if (append(&s->left, &s->sending) < 0)
		return error_set(err, ENOMEM, "no memory for the lists of pages");
	page_runs_free(&s->sending);
	return 0;
}

int source_converge_look(struct source *s, struct page_runs *written, const pid_t *pids, size_t n, struct error *err)
{
	page_runs_free(&s->written);
	s->written = *written;
	*written = (struct page_runs){ 0 };
	if (sort_pages(s) < 0)
		return error_set(err, ENOMEM, "no memory for the lists of pages");
	if (s->throttle)
		throttle_measure(s->throttle, pids, n);
	if (!s->options->auto_converge || s->throttle)
		return 0;
	if (throttle_new(s->journal, &s->throttle, err) < 0)
		return error_wrap(err, "cannot prepare to hold the workload back");
	throttle_measure(s->throttle, pids, n);
	return 0;
}

static void make_limits(const struct source *s, struct policy_limits *ret)
{
	const struct migration_options *o = s->options;
	struct policy_freeze freeze = { .processes = s->n_processes,
					.scan_ns = s->scan_ns,
					.round_trip_ns = s->round_trip_ns };

	(void)waits_read(&freeze.ran_ns, &freeze.waited_ns);
	*ret = (struct policy_limits){
		.max_downtime_ns = o->max_downtime_ms * NS_PER_MS,
		.max_rounds = MIN(o->max_rounds, (uint32_t)MIGRATION_ITERATIONS_MAX),
		.fixed_ns = policy_fixed_ns(&freeze),
		.promise = o->promise,
		.rounds_asked = o->rounds_asked,
		.auto_converge = o->auto_converge && s->result.n_iterations < MIGRATION_ITERATIONS_MAX,
		.throttle = s->throttle_percent,
		.postcopy = o->postcopy,
		.elapsed_ns = clock_now_ns() - s->copy_started_ns,
		.timeout_ns = o->copy_ms * NS_PER_MS,
		.on_timeout = o->on_timeout,
	};
}

/* The name of the mapping that holds the address, as the kernel writes it. */
static void name_mapping(struct migration_region *region)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[64], *save = NULL;

	snprintf(path, sizeof(path), "/proc/%d/maps", region->pid);
	if (fd_read_file(AT_FDCWD, path, MAPS_BYTES_MAX, &text) < 0 || buffer_append(&text, "", 1) < 0)
		return;
	for (char *line = strtok_r((char *)text.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		uint64_t start, end;
		int used = 0;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*s %*s %*s %n", &start, &end, &used) < 2 || !used ||
		    region->start < start || region->start >= end)
			continue;
		region->start = start;
		region->end = end;
		snprintf(region->name, sizeof(region->name), "%s", line + used);
		return;
	}
}

/* Runs of one process that are not far apart count as one region; it is named by the mapping it lies in. */
#define REGION_GAP (4ULL << 20)

static void keep_region(struct migration_result *r, const struct migration_region *one)
{
	size_t at = r->n_regions;

	while (at && r->regions[at - 1].pages_per_second < one->pages_per_second)
		at--;
	if (at == MIGRATION_REGIONS_MAX)
		return;
	r->n_regions = MIN(r->n_regions + 1, (size_t)MIGRATION_REGIONS_MAX);
	memmove(&r->regions[at + 1], &r->regions[at], (r->n_regions - at - 1) * sizeof(r->regions[0]));
	r->regions[at] = *one;
}

/* Where the workload wrote most in the last round. */
static void find_regions(struct source *s, uint64_t round_ns)
{
	struct migration_region one = { 0 };

	s->result.n_regions = 0;
	for (size_t i = 0; i < s->written.n_runs; i++) {
		const struct page_run *run = &s->written.runs[i];
		uint64_t start = run->pid_address, end = start + (run->pages << PAGE_SHIFT);

		if (one.pid != run->pid || start < one.start || start > one.end + REGION_GAP) {
			if (one.pid)
				keep_region(&s->result, &one);
			one = (struct migration_region){ .pid = run->pid, .start = start };
		}
		one.end = end;
		one.pages_per_second += run->pages;
	}
	if (one.pid)
		keep_region(&s->result, &one);
	for (size_t i = 0; i < s->result.n_regions; i++) {
		struct migration_region *region = &s->result.regions[i];

		region->pages_per_second =
			(uint64_t)((double)region->pages_per_second * (double)NS_PER_S / (double)(round_ns + 1));
		name_mapping(region);
	}
}

static uint64_t in_ms(uint64_t ns)
{
	return ns / NS_PER_MS;
}

enum policy_decision source_converge_decide(struct source *s)
{
	const struct migration_iteration *last = &s->result.iterations[s->result.n_iterations - 1];
	struct policy_limits limits;
	enum policy_decision decision;

	make_limits(s, &limits);
	decision = policy_decide(&limits, s->rounds, (uint32_t)s->result.n_iterations, &s->result.predicted_frozen_ns);
	log_info("round %u left %" PRIu64 " pages, the freeze would take %" PRIu64 " ms (%" PRIu64 " without them): %s",
		 s->round, s->runs.pages, in_ms(s->result.predicted_frozen_ns), in_ms(limits.fixed_ns),
		 policy_explain(decision));
	/* No page is sent in that freeze. */
	if (policy_course(decision) == POLICY_COURSE_POSTCOPY)
		s->result.predicted_frozen_ns = limits.fixed_ns;
	if (decision != POLICY_AGAIN)
		find_regions(s, last->ns);
	s->result.decision = policy_explain(decision);
	return decision;
}

static int hold_back(struct source *s, struct error *err)
{
	_cleanup_free_ pid_t *pids = NULL, *image_pids = NULL, *stopped = NULL;
	uint32_t percent = policy_throttle_next(s->throttle_percent);
	size_t n, n_stopped = 0;
	int r = s->driver->processes(&s->workload, &pids, &image_pids, &n, err);

	if (!r)
		stopped = calloc(s->workload.n_processes + 1, sizeof(*stopped));
	if (!r && !stopped)
		r = error_set(err, ENOMEM, "no memory to note the tasks");
	for (size_t i = 0; !r && i < s->workload.n_processes; i++)
		if (s->workload.processes[i].stopped)
			stopped[n_stopped++] = s->workload.processes[i].pid;
	/* Whoever finds that journal knows whom to let go. */
	if (!r)
		r = noted_tasks_write(s->journal, s->workload.root_pid, stopped, n_stopped, err);
	if (!r)
		r = journal_note(s->journal, "throttle_percent", percent, err);
	if (!r)
		r = throttle_set(s->throttle, pids, n, percent, err);
	if (r < 0)
		return error_wrap(err, "cannot hold the workload back");
	s->throttle_percent = s->result.throttle_max = percent;
	s->result.throttle_way = throttle_way(s->throttle);
	log_info("the workload is held back by %u %% (%s)", percent, s->result.throttle_way);
	return 0;
}

static double megabytes(uint64_t pages, uint64_t ns)
{
	return (double)pages * (double)PAGE_BYTES / 1e6 * (double)NS_PER_S / (double)(ns + 1);
}

/* The sentence that ends a migration which does not converge. */
static int stop(struct source *s, struct error *err)
{
	const struct migration_iteration *last = &s->result.iterations[s->result.n_iterations - 1];
	const struct migration_region *most = s->result.n_regions ? &s->result.regions[0] : NULL;
	char where[160] = "";

	if (most)
		snprintf(where, sizeof(where), " (mostly process %d%s%s)", most->pid, most->name[0] ? " in " : "",
			 most->name);
	if (s->decision == POLICY_STOP_TIMEOUT)
		return error_set(err, ETIME,
				 "memory was copied for %" PRIu64 " s, as long as --timeout allows, and %" PRIu64
				 " MiB are left; the workload was not frozen",
				 s->options->copy_ms / 1000, s->runs.pages >> (20 - PAGE_SHIFT));
	if (s->decision == POLICY_STOP_FIXED)
		return error_set(err, ETIME,
				 "the freeze would take %" PRIu64
				 " ms, however little memory is left, and --max-downtime "
				 "grants %" PRIu64 " ms; grant more, or try again when the hosts are less busy",
				 in_ms(s->result.predicted_frozen_ns), s->options->max_downtime_ms);
	return error_set(
		err, EBUSY,
		"the workload writes faster than it can be sent: %.0f MB/s written%s%s, %.0f MB/s sent; hold it "
		"back with --auto-converge, let the rest follow it with --postcopy, or grant %" PRIu64
		" ms with --max-downtime",
		megabytes(last->written_pages, last->ns), where,
		s->throttle_percent ? " although it was held back" : "", megabytes(last->pages, last->ns),
		in_ms(s->result.predicted_frozen_ns) + 1);
}

int source_converge_act(struct source *s, struct error *err)
{
	if (s->decision == POLICY_THROTTLE)
		return hold_back(s, err);
	return policy_course(s->decision) == POLICY_COURSE_STOP ? stop(s, err) : 0;
}

int source_converge_check(struct source *s, struct error *err)
{
	struct policy_limits limits = { .elapsed_ns = clock_now_ns() - s->copy_started_ns,
					.timeout_ns = s->options->copy_ms * NS_PER_MS };

	if (s->timed_out || !policy_timed_out(&limits))
		return 0;
	/* What is not sent by now stays in our lists; the decision after the round is made of it. */
	s->timed_out = true;
	return sender_cut(s->sender, &s->left) < 0 ? error_set(err, ENOMEM, "no memory for the lists of pages") : 0;
}

void source_converge_pause(struct source *s)
{
	struct error err = { 0 };

	if (s->throttle_percent && throttle_end(s->throttle, &err) < 0)
		log_error("%s", err.text);
}

int source_converge_keep(struct source *s, struct page_runs *rest, struct error *err)
{
	_cleanup_page_bits_ struct page_bits *known = NULL;
	int r;

	if (!s->timed_out)
		return 0;
	r = page_bits_new(&known);
	if (!r)
		r = page_bits_set_runs(known, &s->left);
	if (!r)
		r = page_runs_select(rest, known, false, &s->left);
	if (r < 0)
		return error_set(err, ENOMEM, "no memory for the lists of pages");
	page_runs_free(rest);
	return 0;
}

int source_converge_go_on(struct source *s, struct error *err)
{
	_cleanup_free_ pid_t *pids = NULL, *image_pids = NULL;
	size_t n;
	int r;

	if (!s->throttle_percent)
		return 0;
	r = s->driver->processes(&s->workload, &pids, &image_pids, &n, err);
	return r < 0 ? r : throttle_set(s->throttle, pids, n, s->throttle_percent, err);
}

int source_converge_let_go(struct source *s, struct error *err)
{
	pacer_set_rate(&s->pacer, 0);
	s->throttle_percent = 0;
	return s->throttle ? throttle_end(s->throttle, err) : 0;
}

void source_converge_end(struct source *s)
{
	throttle_free(TAKE_PTR(s->throttle));
	heat_free(&s->heat);
	page_runs_free(&s->sending);
	page_runs_free(&s->left);
	page_runs_free(&s->written);
}
