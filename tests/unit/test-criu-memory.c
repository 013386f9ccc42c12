/*
 * criu/ and memory, against a real CRIU: lazy restore by a pager, ranges hidden from CRIU, limits of other users' tasks, the
 * mended timerfd. With MEASURE=MIB,MIB... in the environment: the length of dumps with and without hidden ranges.
 * Needs root and criu >= 4.1; is skipped (77) otherwise.
 */
#include "criu/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "memory/vma-flags.h"

#define RANGES "/tmp/hidden-ranges"
#define FLAGS RANGES ".flags"

static void write_hidden(const struct workload *w)
{
	FILE *f = fopen(RANGES, "we");

	assert_non_null(f);
	fprintf(f, "%d %llx %llx\n", w->pid, (unsigned long long)w->shared->memory,
		(unsigned long long)w->shared->memory + w->shared->memory_bytes);
	fclose(f);
}

/* Bytes of [start, end) that the images' pagemaps call lazy. */
static uint64_t lazy_bytes(const char *images, uint64_t start, uint64_t end)
{
	struct criu_lazy_range *ranges;
	struct error err = { 0 };
	uint64_t sum = 0;
	size_t n;

	assert_ok(criu_lazy_ranges(images, &ranges, &n, &err), &err);
	for (size_t i = 0; i < n; i++) {
		uint64_t a = MAX(start, ranges[i].start), b = MIN(end, ranges[i].end);

		sum += a < b ? b - a : 0;
	}
	free(ranges);
	return sum;
}

static void lazy_move(enum workload_kind kind, bool hide)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct mini_pager *pager;
	struct criu_job *job;
	struct workload w;
	uint64_t lazy;
	pid_t pid;

	workload_start(kind, 16 * MIB, &w);
	unlink(RANGES);
	if (hide)
		o.hidden_ranges = RANGES;
	job_start(&o, &job);
	write_hidden(&w); /* after the start: it is read when it is needed */
	assert_ok(criu_dump(job, w.pid, -1, &err), &err);
	assert_int_equal(criu_preload_acted(job), hide);
	lazy = lazy_bytes(o.images_directory, w.shared->memory, w.shared->memory + w.shared->memory_bytes);
	assert_int_equal(lazy, hide ? 0 : w.shared->memory_bytes);
	pager = mini_pager_new(w.pid, o.work_directory);
	assert_ok(criu_dump_commit(job, &err), &err);
	criu_free(job);
	assert_gone(w.pid);
	mini_pager_listen(pager);
	o.hidden_ranges = NULL;
	job_start(&o, &job);
	assert_ok(criu_restore(job, -1, &pid, &err), &err);
	assert_ok(criu_restore_resume(job, &err), &err);
	assert_runs(&w);
	for (uint64_t until = w.shared->ticks + 200; w.shared->ticks < until;) /* all of the pattern, several times */
		assert_runs(&w);
	assert_in_range(mini_pager_faults(pager), 16 * MIB / 4096, 1U << 20);
	criu_free(job);
	workload_end(&w);
	mini_pager_free(pager);
}

static void test_lazy(void **state)
{
	(void)state;
	lazy_move(WORKLOAD_PLAIN, false);
	lazy_move(WORKLOAD_THREADS, false);
}

static void test_hidden(void **state)
{
	(void)state;
	lazy_move(WORKLOAD_PLAIN, true);
	lazy_move(WORKLOAD_THREADS, true);
}

/* One bad line, and nothing is hidden. */
static void test_hidden_bad_file(void **state)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;
	FILE *f;

	(void)state;
	workload_start(WORKLOAD_PLAIN, MIB, &w);
	write_hidden(&w);
	f = fopen(RANGES, "ae");
	fprintf(f, "%d 1000 zzz\n", w.pid);
	fclose(f);
	o.hidden_ranges = RANGES;
	job = dump_held(&o, &w);
	assert_false(criu_preload_acted(job));
	assert_int_equal(lazy_bytes(o.images_directory, w.shared->memory, w.shared->memory + MIB), MIB);
	assert_ok(criu_dump_rollback(job, &err), &err);
	assert_runs(&w);
	criu_free(job);
	workload_end(&w);
}

static bool library_did(const struct criu_options *o, const char *what)
{
	struct buffer text = { 0 };
	char path[256];
	bool did;

	snprintf(path, sizeof(path), "%s/criu-preload.status", o->work_directory);
	assert_int_equal(fd_read_file(AT_FDCWD, path, 65536, &text), 0);
	assert_int_equal(buffer_append(&text, "", 1), 0);
	did = strstr((char *)text.data, what);
	buffer_free(&text);
	return did;
}

static void read_image(const struct criu_options *o, const char *name, pid_t pid, struct buffer *ret)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s-%d.img", o->images_directory, name, pid);
	assert_int_equal(fd_read_file(AT_FDCWD, path, 1 << 20, ret), 0);
}

/* What CRIU says of the mappings is the same, whether it read smaps or our answer; a list that lacks one is not used. */
static void test_flags(void **state)
{
	struct criu_options o = fresh_options();
	struct buffer smaps = { 0 }, text = { 0 };
	struct vma_flags *f = NULL;
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;

	(void)state;
	if (vma_flags_new(&f, &err) < 0) {
		print_message("%s\n", err.text);
		skip();
	}
	workload_start(WORKLOAD_THREADS, 64 * MIB, &w);
	assert_ok(vma_flags_learn(f, w.pid, &err), &err);
	assert_ok(vma_flags_print(f, w.pid, &text, &err), &err);
	write_hidden(&w);
	o.hidden_ranges = RANGES;
	for (int turn = 0; turn < 3; turn++) {
		bool use = turn == 1;
		size_t first = (size_t)(strchr((char *)text.data, '\n') + 1 - (char *)text.data);
		struct buffer image = { 0 };

		unlink(FLAGS);
		if (turn == 2) /* without the first mapping */
			assert_int_equal(fd_write_file(AT_FDCWD, FLAGS, text.data + first, text.length - first, 0600),
					 0);
		else if (use)
			assert_int_equal(fd_write_file(AT_FDCWD, FLAGS, text.data, text.length, 0600), 0);
		job = dump_held(&o, &w);
		assert_int_equal(library_did(&o, "mappings without a look"), use);
		assert_true(library_did(&o, "hidden ranges"));
		read_image(&o, "mm", w.pid, turn ? &image : &smaps);
		if (turn) {
			assert_int_equal(image.length, smaps.length);
			assert_int_equal(memcmp(image.data, smaps.data, smaps.length), 0);
		}
		buffer_free(&image);
		assert_ok(criu_dump_rollback(job, &err), &err);
		assert_runs(&w);
		criu_free(job);
	}
	unlink(FLAGS);
	buffer_free(&smaps);
	buffer_free(&text);
	vma_flags_free(f);
	workload_end(&w);
}

/* Many pages and few of them seen: the room for their list is not copied. */
static void test_sparse_copy(void **state)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;

	(void)state;
	workload_start(WORKLOAD_PLAIN, 512 * MIB, &w);
	write_hidden(&w);
	o.hidden_ranges = RANGES;
	job = dump_held(&o, &w);
	assert_true(library_did(&o, "untouched memory not copied"));
	assert_ok(criu_dump_rollback(job, &err), &err);
	assert_runs(&w);
	criu_free(job);
	workload_end(&w);
}

static bool can_raise_limits(void)
{
	char line[256];
	unsigned long long set = 0;
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "CapEff: %llx", &set) == 1)
			break;
	if (f)
		fclose(f);
	return set >> 24 & 1; /* CAP_SYS_RESOURCE */
}

/* A task of another user: only with the library where the capability is missing. */
static void test_limits(void **state)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;
	int r;

	(void)state;
	workload_start(WORKLOAD_USER, MIB, &w);
	setenv("PHAUL_CRIU_PRELOAD", "", 1);
	job_start(&o, &job);
	r = criu_dump(job, w.pid, -1, &err);
	unsetenv("PHAUL_CRIU_PRELOAD");
	if (can_raise_limits()) {
		assert_ok(r, &err);
	} else {
		assert_int_equal(r, -EIO);
		assert_non_null(strstr(err.text, "Can't get rlimit"));
	}
	criu_free(job);
	assert_runs(&w);
	o = fresh_options();
	job = dump_held(&o, &w);
	assert_int_equal(criu_preload_acted(job), !can_raise_limits());
	assert_ok(criu_dump_rollback(job, &err), &err);
	assert_runs(&w);
	criu_free(job);
	workload_end(&w);
}

static void wait_timer(const struct workload *w, uint64_t n, int64_t ms, bool expected)
{
	uint64_t before = w->shared->timer_ticks, deadline = deadline_in_ms(ms);

	while (w->shared->timer_ticks < before + n && clock_now_ns() < deadline)
		;
	assert_int_equal(w->shared->timer_ticks >= before + n, expected);
}

/* A tick is pending at the dump. Unmended, the timer is dead after the restore: so the mending is what revives it. */
static void timer_move(bool mend)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;
	uint64_t deadline;
	pid_t pid;

	o.full_memory = true;
	workload_start(WORKLOAD_TIMER, 0, &w);
	wait_timer(&w, 5, 2000, true);
	w.shared->busy_until_go = 1;
	deadline = deadline_in_ms(40); /* four intervals: the tick of the second is pending for sure */
	while (clock_now_ns() < deadline)
		;
	dump_away(&o, &w);
	if (mend)
		assert_int_equal(criu_mend_images(o.images_directory, &err), 1);
	assert_int_equal(criu_mend_images(mend ? o.images_directory : "/tmp", &err), 0);
	job_start(&o, &job);
	assert_ok(criu_restore(job, -1, &pid, &err), &err);
	w.shared->busy_until_go = 0;
	assert_ok(criu_restore_resume(job, &err), &err);
	/* The pending tick is read in either case; those after it are the question. */
	wait_timer(&w, 10, mend ? 2000 : 200, mend);
	criu_free(job);
	workload_end(&w);
}

static void test_timer_unmended_stops(void **state)
{
	(void)state;
	timer_move(false);
}

static void test_timer_mended_goes_on(void **state)
{
	(void)state;
	timer_move(true);
}

/* What phaul says of the mappings, as far as this kernel tells it. */
static void write_flags(const struct workload *w)
{
	struct buffer text = { 0 };
	struct vma_flags *f = NULL;
	struct error err = { 0 };

	unlink(FLAGS);
	if (vma_flags_new(&f, &err) < 0)
		return;
	assert_ok(vma_flags_learn(f, w->pid, &err), &err);
	assert_ok(vma_flags_print(f, w->pid, &text, &err), &err);
	assert_int_equal(fd_write_file(AT_FDCWD, FLAGS, text.data, text.length, 0600), 0);
	buffer_free(&text);
	vma_flags_free(f);
}

static void measure(size_t mib, bool hide)
{
	struct criu_options o = fresh_options();
	struct error err = { 0 };
	struct criu_job *job;
	struct workload w;
	uint64_t t[3];

	workload_start(WORKLOAD_PLAIN, mib * MIB, &w);
	write_hidden(&w);
	write_flags(&w);
	o.hidden_ranges = hide ? RANGES : NULL;
	for (int i = 0; i < 5; i++) {
		job_start(&o, &job);
		t[0] = clock_now_ns();
		assert_ok(criu_dump(job, w.pid, -1, &err), &err);
		t[1] = clock_now_ns();
		assert_ok(criu_dump_rollback(job, &err), &err);
		t[2] = clock_now_ns();
		criu_free(job);
		print_message("# %zu MiB, %s: held after %.1f ms, rolled back after %.1f ms\n", mib,
			      hide ? "hidden" : "plain", (double)(t[1] - t[0]) / 1e6, (double)(t[2] - t[1]) / 1e6);
	}
	unlink(FLAGS);
	workload_end(&w);
}

static int main_in_world(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lazy),
		cmocka_unit_test(test_hidden),
		cmocka_unit_test(test_hidden_bad_file),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_sparse_copy),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_timer_unmended_stops),
		cmocka_unit_test(test_timer_mended_goes_on),
	};
	const char *sizes = getenv("MEASURE");

	for (char *next; sizes && *sizes; sizes = *next ? next + 1 : next) {
		size_t mib = strtoul(sizes, &next, 10);

		measure(mib, false);
		measure(mib, true);
	}
	cmocka_set_test_filter(getenv("TEST_FILTER"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	struct error err;
	char program[4096];

	if (geteuid() != 0 || criu_find(program, sizeof(program), &err) < 0)
		return 77;
	return world_run(argc, argv, main_in_world);
}
