/*
 * Unit tests of post-copy in the pager: pages that come later, on demand or not, while the task changes its memory and the pager is
 * killed; the bookkeeping of missing pages, and of latencies, by itself.
 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "memory/pager-state.h"
#include "pager-rig.h"

#define PAGES (16 * MIB_PAGES)

static bool two_of_three(uint64_t page)
{
	return page / 7 % 3 != 0;
}

static bool all_of_them(uint64_t page)
{
	(void)page;
	return true;
}

/* The source: answers requests; and, after a while, sends everything. */
struct source {
	struct rig *rig;
	pthread_t thread;
	uint64_t requests, others_after; /* begins with the rest after so many requests */
	_Atomic bool failed, stop;
};

static void put(struct source *s, uint64_t address, uint64_t pages)
{
	static _Thread_local uint64_t data[CODEC_PIECE_PAGES * PAGE_BYTES / 8];
	uint64_t first = (address - REGION) / PAGE_BYTES;

	for (uint64_t at = 0, n; at < pages; at += n) {
		n = MIN(pages - at, (uint64_t)CODEC_PIECE_PAGES);
		for (uint64_t i = 0; i < n * PAGE_BYTES / 8; i++)
			data[i] = page_word(first + at + i / 512, i % 512);
		if (pager_put(s->rig->pager,
			      &(struct pager_pages){ .place = { 1, address + at * PAGE_BYTES, n },
						     .encoding = ENCODING_RAW,
						     .payload = (uint8_t *)data,
						     .payload_bytes = n * PAGE_BYTES },
			      NULL, NULL) < 0)
			s->failed = true;
	}
}

static void *source_main(void *arg)
{
	struct source *s = arg;
	struct pager_place place = { 0 };
	bool more = true;

	while (!s->stop && pager_missing(s->rig->pager)) {
		struct pager_place wanted[16];
		bool pour = more && s->requests >= s->others_after;
		size_t n;

		if (fd_wait(pager_request_fd(s->rig->pager), POLLIN, deadline_in_ms(pour ? 0 : 20)) < 0)
			s->failed = true;
		n = pager_requests(s->rig->pager, wanted, ARRAY_SIZE(wanted));
		for (size_t i = 0; i < n; i++)
			put(s, wanted[i].address, wanted[i].pages);
		s->requests += n;
		if (!pour)
			continue;
		more = pager_missing_from(s->rig->pager, &place, &place);
		if (more)
			put(s, place.address, place.pages);
		if (!more && pager_missing(s->rig->pager)) {
			place = (struct pager_place){ 0 };
			more = true;
		}
	}
	return NULL;
}

static void source_start(struct source *s, struct rig *rig, uint64_t others_after)
{
	*s = (struct source){ .rig = rig, .others_after = others_after };
	assert_int_equal(pthread_create(&s->thread, NULL, source_main, s), 0);
}

static void source_end(struct source *s)
{
	s->stop = true;
	pthread_join(s->thread, NULL);
	assert_false(s->failed);
}

/* Runs a task over memory of which much comes late; kills: of the pager meanwhile. */
static void serve(int (*body)(struct task *t), bool (*missing)(uint64_t page), uint64_t others_after,
		  unsigned int kills)
{
	struct task task = { .pages = PAGES, .registered = PAGES, .body = body, .seed = 11, .announced = ANNOUNCED };
	struct pager_status status;
	struct source source;
	struct rig rig;
	pid_t pid;

	rig_start_missing(&rig, PAGES, missing);
	pid = rig_run_task(&task);
	rig_wait_handshake(1);
	assert_true(pager_missing(rig.pager) > PAGES / 2);
	pager_relink(rig.pager);
	source_start(&source, &rig, others_after);
	rig_shared->go = 1;
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	for (unsigned int i = 0; i < kills; i++) {
		struct timespec pause = { .tv_nsec = 5000000 };

		nanosleep(&pause, NULL);
		if (rig_status(&rig).finished)
			break;
		kill(rig_wait_pid(&rig), SIGKILL);
	}
	/* Bodies that go on until they are told stop when everything could have come. */
	rig_shared->stop = 1;
	rig_wait_task(pid);
	rig_wait_pager(&rig);
	source_end(&source);
	status = rig_status(&rig);
	print_message("# %llu of %llu faults waited for the source: p50 %.1f us, p99 %.1f us; %u pagers\n",
		      (unsigned long long)status.faults_remote, (unsigned long long)status.faults,
		      (double)status.remote_ns_p50 / 1000, (double)status.remote_ns_p99 / 1000, status.replaced + 1);
	rig_end(&rig);
}

static void test_on_demand(void **state)
{
	(void)state;
	serve(body_check, two_of_three, UINT64_MAX, 0);
}

static void test_all_missing(void **state)
{
	(void)state;
	serve(body_random_access, all_of_them, 500, 0);
}

static void test_mutations(void **state)
{
	(void)state;
	serve(body_mutate, two_of_three, 50, 0);
}

static void test_killed(void **state)
{
	(void)state;
	serve(body_check, two_of_three, 200, 15);
	serve(body_mutate, two_of_three, 20, 15);
}

/* What was asked for over a link that broke is asked for again, and what comes twice is dropped. */
static void test_relink(void **state)
{
	struct task task = { .pages = PAGES, .registered = PAGES, .body = body_check, .announced = ANNOUNCED };
	struct pager_place first, again;
	struct source source;
	struct rig rig;
	pid_t pid;

	(void)state;
	rig_start_missing(&rig, PAGES, all_of_them);
	pid = rig_run_task(&task);
	rig_wait_handshake(1);
	rig_shared->go = 1;
	assert_int_equal(pager_release(rig.pager, NULL), 0);
	assert_int_equal(fd_wait(pager_request_fd(rig.pager), POLLIN, deadline_in_ms(DEADLINE_MS)), 1);
	assert_int_equal(pager_requests(rig.pager, &first, 1), 1);
	/* The link broke before the answer. */
	pager_relink(rig.pager);
	assert_int_equal(fd_wait(pager_request_fd(rig.pager), POLLIN, deadline_in_ms(DEADLINE_MS)), 1);
	while (!pager_requests(rig.pager, &again, 1))
		assert_int_equal(fd_wait(pager_request_fd(rig.pager), POLLIN, deadline_in_ms(DEADLINE_MS)), 1);
	assert_int_equal(again.address, first.address);
	source_start(&source, &rig, 0);
	put(&source, again.address, 1);
	put(&source, again.address, 1);
	rig_wait_task(pid);
	rig_wait_pager(&rig);
	source_end(&source);
	rig_end(&rig);
}

static bool every_other(uint64_t page)
{
	return page % 2 == 0;
}

/*
 * The last page comes while the pager looks for something to do: it must not take that for the end. Its tables are long here, so it
 * looks for long, and the page is the one that it looks at first and comes just then.
 */
static void test_last_page(void **state)
{
	(void)state;
	for (int i = 0; i < 30; i++) {
		struct task task = { .pages = PAGES, .registered = PAGES, .body = body_check, .announced = ANNOUNCED };
		struct source source = { 0 };
		struct rig rig;
		pid_t pid;

		rig_start_missing(&rig, PAGES, every_other);
		source.rig = &rig;
		pid = rig_run_task(&task);
		rig_wait_handshake(1);
		assert_int_equal(pager_release(rig.pager, NULL), 0);
		put(&source, REGION + PAGE_BYTES, PAGES - 1);
		while (rig_status(&rig).pages_left > 1)
			;
		put(&source, REGION, 1);
		/* Nobody touches a page before all are there, so that none is answered as a fault. */
		rig_wait_pager(&rig);
		rig_shared->go = 1;
		rig_wait_task(pid);
		assert_false(source.failed);
		rig_end(&rig);
	}
}

static struct pager_state *make_state(int *ret_fd, const struct range_set *missing)
{
	struct pager_state *s;

	assert_int_equal(pager_state_new(ret_fd, &s, NULL), 0);
	s->n_spaces = 1;
	s->spaces_offset = pager_state_alloc(s, sizeof(struct pager_space_state));
	*state_space(s, 0) = (struct pager_space_state){ .space = 1 };
	assert_int_equal(pager_missing_describe(s, state_space(s, 0), missing), 0);
	return s;
}

static void test_parts(void **state)
{
	_cleanup_range_set_ struct range_set missing = { 0 };
	_cleanup_close_ int fd = -1;
	struct pager_space_state *sp;
	struct pager_state *s;
	struct range next;
	bool away;

	(void)state;
	assert_int_equal(range_set_add(&missing, 10 * PAGE_BYTES, 80 * PAGE_BYTES), 0);
	assert_int_equal(range_set_add(&missing, 100 * PAGE_BYTES, 170 * PAGE_BYTES), 0);
	s = make_state(&fd, &missing);
	sp = state_space(s, 0);
	assert_int_equal(sp->n_away, 140);
	assert_int_equal(pager_missing_part(s, sp, 0, 1000, &away), 10);
	assert_false(away);
	assert_int_equal(pager_missing_part(s, sp, 10 * PAGE_BYTES, 1000, &away), 70);
	assert_true(away);
	assert_int_equal(pager_missing_part(s, sp, 170 * PAGE_BYTES, 1000, &away), 1000);
	assert_false(away);
	/* Over the border of both ranges, and twice. */
	for (int i = 0; i < 2; i++)
		pager_missing_arrived(s, sp, 75 * PAGE_BYTES, 30);
	assert_int_equal(sp->n_away, 130);
	assert_int_equal(pager_missing_part(s, sp, 70 * PAGE_BYTES, 1000, &away), 5);
	assert_true(away);
	assert_int_equal(pager_missing_part(s, sp, 100 * PAGE_BYTES, 3, &away), 3);
	assert_false(away);
	assert_true(pager_missing_next(s, sp, 80 * PAGE_BYTES, &next));
	assert_int_equal(next.start, 100 * PAGE_BYTES);
	assert_true(pager_missing_next(s, sp, 120 * PAGE_BYTES, &next));
	assert_int_equal(next.start, 120 * PAGE_BYTES);
	assert_int_equal(next.end, 170 * PAGE_BYTES);
	assert_false(pager_missing_next(s, sp, 170 * PAGE_BYTES, &next));
	pager_state_unmap(s);
}

static void test_ring(void **state)
{
	_cleanup_range_set_ struct range_set none = { 0 };
	struct pager_request request = { 0 };
	_cleanup_close_ int fd = -1;
	struct pager_state *s;

	(void)state;
	s = make_state(&fd, &none);
	s->request_head = s->request_tail = UINT32_MAX - 3; /* it goes around */
	assert_false(pager_request_take(s, &request));
	for (uint64_t i = 0; i < PAGER_REQUESTS; i++)
		assert_true(pager_request_add(s, &(struct pager_request){ 0, i }));
	assert_false(pager_request_add(s, &request));
	for (uint64_t i = 0; i < PAGER_REQUESTS; i++) {
		assert_true(pager_request_take(s, &request));
		assert_int_equal(request.source, i);
	}
	assert_false(pager_request_take(s, &request));
	pager_state_unmap(s);
}

static void test_latencies(void **state)
{
	static _Atomic uint32_t buckets[PAGER_LATENCY_BUCKETS];

	(void)state;
	assert_int_equal(pager_latency_quantile(buckets, 0.5), 0);
	for (uint64_t us = 1; us <= 1000; us++)
		pager_latency_count(buckets, us * 1000);
	assert_in_range(pager_latency_quantile(buckets, 0.5), 500 * 1000, 640 * 1000);
	assert_in_range(pager_latency_quantile(buckets, 0.99), 990 * 1000, 1250 * 1000);
	pager_latency_count(buckets, 0);
	pager_latency_count(buckets, UINT64_MAX);
	assert_true(pager_latency_quantile(buckets, 1) > 1000 * NS_PER_S);
	assert_in_range(pager_latency_quantile(buckets, 0), 1, 2048);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts),	  cmocka_unit_test(test_ring),	 cmocka_unit_test(test_latencies),
		cmocka_unit_test(test_on_demand), cmocka_unit_test(test_relink), cmocka_unit_test(test_all_missing),
		cmocka_unit_test(test_mutations), cmocka_unit_test(test_killed), cmocka_unit_test(test_last_page),
	};

	/* The supervisor is this program again. */
	if (argc == 3 && !strcmp(argv[1], "pager"))
		return pager_main(atoi(argv[2]));
	return cmocka_run_group_tests(tests, rig_group_setup, rig_group_teardown);
}
