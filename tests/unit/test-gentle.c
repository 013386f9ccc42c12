/*
 * Unit tests of gentle threads: last on the processors, not starved for ever, and back at once. Needs root.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/gentle.h"
#include "base/waits.h"

#define PATIENCE_MS 30000
#define BUSY_THREADS 3

static atomic_bool stop;

struct worker {
	pthread_t thread;
	struct gentle gentle;
	uint64_t ran_ns, waited_ns;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	gentle_begin(&w->gentle);
	while (!stop) {
		for (volatile int i = 0; i < 10000; i++)
			;
		gentle_look(&w->gentle);
	}
	assert_int_equal(waits_read(&w->ran_ns, &w->waited_ns), 0);
	return NULL;
}

static void *be_busy(void *arg)
{
	while (!stop)
		;
	return arg;
}

static void check_is(const struct gentle *g, int scheduler, int nice)
{
	assert_int_equal(sched_getscheduler(g->thread), scheduler);
	assert_int_equal(getpriority(PRIO_PROCESS, (id_t)g->thread), nice);
}

static void start(struct worker *w, bool gentle)
{
	uint64_t deadline = deadline_in_ms(PATIENCE_MS);

	stop = false;
	*w = (struct worker){ .gentle.wanted = gentle };
	assert_int_equal(pthread_create(&w->thread, NULL, work, w), 0);
	while (!w->gentle.thread) {
		assert_true(clock_now_ns() < deadline);
		usleep(1000);
	}
}

/* The first that this process may use. */
static void pick_processor(cpu_set_t *ret)
{
	cpu_set_t all;
	int cpu = 0;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(ret);
	CPU_SET(cpu, ret);
}

static void end(struct worker *w)
{
	stop = true;
	assert_int_equal(pthread_join(w->thread, NULL), 0);
}

static void test_back(void **state)
{
	struct worker w;

	(void)state;
	start(&w, false);
	check_is(&w.gentle, SCHED_OTHER, 0);
	gentle_set(&w.gentle, true);
	assert_true(sched_getscheduler(w.gentle.thread) == SCHED_IDLE || w.gentle.starved);
	gentle_set(&w.gentle, false);
	check_is(&w.gentle, SCHED_OTHER, 0);
	end(&w);
	assert_true(w.ran_ns > 0);
}

/* Before there is a thread it can be told as well. */
static void test_before(void **state)
{
	struct worker w;

	(void)state;
	start(&w, true);
	usleep(1000);
	assert_true(sched_getscheduler(w.gentle.thread) == SCHED_IDLE || w.gentle.starved);
	end(&w);
}

/* On a processor that others fill it is raised, and says so; told again, it begins anew. */
static void test_starved(void **state)
{
	uint64_t deadline = deadline_in_ms(PATIENCE_MS);
	pthread_t busy[BUSY_THREADS];
	cpu_set_t one;
	struct worker w;

	(void)state;
	pick_processor(&one);
	start(&w, false);
	for (size_t i = 0; i < BUSY_THREADS; i++) {
		assert_int_equal(pthread_create(&busy[i], NULL, be_busy, NULL), 0);
		assert_int_equal(pthread_setaffinity_np(busy[i], sizeof(one), &one), 0);
	}
	assert_int_equal(pthread_setaffinity_np(w.thread, sizeof(one), &one), 0);
	gentle_set(&w.gentle, true);
	while (!w.gentle.starved) {
		assert_true(clock_now_ns() < deadline);
		usleep(10000);
	}
	usleep(100000);
	check_is(&w.gentle, SCHED_OTHER, GENTLE_NICE);
	gentle_set(&w.gentle, false);
	check_is(&w.gentle, SCHED_OTHER, 0);
	gentle_set(&w.gentle, true);
	assert_int_equal(sched_getscheduler(w.gentle.thread), SCHED_IDLE);
	end(&w);
	for (size_t i = 0; i < BUSY_THREADS; i++)
		pthread_join(busy[i], NULL);
	assert_true(w.waited_ns > w.ran_ns);
}

static void test_others(void **state)
{
	const struct {
		uint64_t not_nice, busy, idle;
		bool others;
	} cases[] = {
		{ 0, 40, 0, false },	/* all of it is nice, or the kernel's */
		{ 4, 40, 0, false },	/* a tenth, not more */
		{ 5, 40, 0, true },	/* more than a tenth */
		{ 30, 40, 9, true },	/* less than a fifth of the time is left over */
		{ 30, 40, 10, false },	/* a fifth of the time is left over */
		{ 30, 40, 400, false }, /* nearly all of it */
		{ 0, 0, 40, false },	/* all of it */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct machine_ticks before = { 7, 1000, 500 };
		const struct machine_ticks now = { before.not_nice + cases[i].not_nice, before.busy + cases[i].busy,
						   before.idle + cases[i].idle };

		if (gentle_others(&before, &now) != cases[i].others)
			fail_msg("case %zu", i);
	}
}

/* Nine parts of ten. */
static void *be_mostly_busy(void *arg)
{
	while (!stop) {
		uint64_t until = clock_now_ns() + 9 * NS_PER_MS;

		while (clock_now_ns() < until)
			;
		usleep(1000);
	}
	return arg;
}

/* Where others keep all processors mostly busy it does not take all that they leave. */
static void test_rests(void **state)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t *busy = calloc((size_t)n, sizeof(*busy));
	uint64_t began = clock_now_ns(), all;
	struct worker w;

	(void)state;
	assert_non_null(busy);
	start(&w, true);
	for (long i = 0; i < n; i++)
		assert_int_equal(pthread_create(&busy[i], NULL, be_mostly_busy, NULL), 0);
	sleep(3); /* the time that is looked at */
	end(&w);
	all = clock_now_ns() - began;
	for (long i = 0; i < n; i++)
		pthread_join(busy[i], NULL);
	free(busy);
	/* What it neither ran nor waited, it rested; nothing else in it sleeps. */
	if (!w.gentle.starved)
		assert_true(all - w.ran_ns - w.waited_ns > 20 * NS_PER_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_back),   cmocka_unit_test(test_before), cmocka_unit_test(test_starved),
		cmocka_unit_test(test_others), cmocka_unit_test(test_rests),
	};

	return cmocka_run_group_tests_name("gentle", tests, NULL, NULL);
}
