/*
 * Unit tests of the tasks that a journal remembers: real children, stopped, continued and ended by what was noted; and a
 * pid that is another process's by now is left alone.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/process.h"
#include "migration/tasks.h"

struct place {
	char directory[64];
	struct journal *journal;
	pid_t child;
};

static int setup(void **state)
{
	static const struct journal_subject subject = { SIDE_SOURCE, "pid", "1", "beta", "beta" };
	struct place *p = calloc(1, sizeof(*p));
	struct error err = { 0 };
	struct uuid id;

	strcpy(p->directory, "/tmp/phaul-tasks.XXXXXX");
	assert_non_null(mkdtemp(p->directory));
	assert_int_equal(uuid_new(&id), 0);
	assert_int_equal(journal_create(p->directory, &id, &subject, &p->journal, &err), 0);
	p->child = fork();
	if (!p->child)
		for (;;)
			pause();
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	kill(p->child, SIGKILL);
	waitpid(p->child, NULL, 0);
	journal_free(p->journal);
	dir_remove(p->directory);
	free(p);
	return 0;
}

static void test_stop_and_go(void **state)
{
	struct place *p = *state;
	_cleanup_tasks_ struct noted_tasks tasks = { 0 };
	struct error err = { 0 };
	int status;

	assert_int_equal(noted_tasks_write(p->journal, p->child, NULL, 0, &err), 0);
	assert_int_equal(noted_tasks_read(p->journal, &tasks, &err), 0);
	assert_int_equal(tasks.n, 1);
	assert_int_equal(tasks.list[0].pid, p->child);
	assert_int_equal(noted_tasks_alive(&tasks), 1);
	assert_false(noted_tasks_held(&tasks));
	kill(p->child, SIGSTOP);
	assert_int_equal(waitpid(p->child, &status, WUNTRACED), p->child);
	assert_true(noted_tasks_held(&tasks));
	noted_tasks_continue(&tasks);
	assert_int_equal(waitpid(p->child, &status, WCONTINUED), p->child);
	assert_true(WIFCONTINUED(status));
	assert_int_equal(noted_tasks_kill(&tasks, &err), 0);
	assert_int_equal(noted_tasks_alive(&tasks), 0);
	assert_true(noted_tasks_held(&tasks));
}

/* Who was stopped before the freeze stays stopped. */
static void test_was_stopped(void **state)
{
	struct place *p = *state;
	_cleanup_tasks_ struct noted_tasks tasks = { 0 };
	struct error err = { 0 };
	int status;

	kill(p->child, SIGSTOP);
	assert_int_equal(waitpid(p->child, &status, WUNTRACED), p->child);
	assert_int_equal(noted_tasks_write(p->journal, p->child, &p->child, 1, &err), 0);
	assert_int_equal(noted_tasks_read(p->journal, &tasks, &err), 0);
	assert_true(tasks.list[0].was_stopped);
	noted_tasks_continue(&tasks);
	assert_true(noted_tasks_held(&tasks));
}

static void test_another_process(void **state)
{
	struct place *p = *state;
	_cleanup_tasks_ struct noted_tasks tasks = { 0 };
	struct error err = { 0 };
	char text[64];

	snprintf(text, sizeof(text), "%d:%llu", p->child, (unsigned long long)process_start_ticks(p->child) + 1);
	assert_int_equal(journal_note_text(p->journal, "tasks", text, &err), 0);
	assert_int_equal(journal_note_text(p->journal, "criu", text, &err), 0);
	assert_int_equal(noted_tasks_read(p->journal, &tasks, &err), 0);
	assert_int_equal(noted_tasks_alive(&tasks), 0);
	assert_int_equal(noted_tasks_kill(&tasks, &err), 0);
	noted_process_await(p->journal, "criu", clock_now_ns());
	assert_int_equal(noted_process_alive(p->journal, "criu"), 0);
	assert_int_equal(waitpid(p->child, NULL, WNOHANG), 0);
}

static void test_process(void **state)
{
	struct place *p = *state;
	struct error err = { 0 };

	assert_int_equal(noted_process_ticks(p->journal, "criu"), 0);
	assert_int_equal(noted_process_write(p->journal, "criu", p->child, &err), 0);
	assert_int_equal(noted_process_ticks(p->journal, "criu"), process_start_ticks(p->child));
	assert_int_equal(noted_process_alive(p->journal, "criu"), p->child);
	noted_process_await(p->journal, "criu", clock_now_ns()); /* the deadline has passed: it is killed */
	assert_int_equal(noted_process_alive(p->journal, "criu"), 0);
}

static void test_nonsense(void **state)
{
	static const char *const texts[] = { "x", "12", "12:", "1:5", "0:5", "-3:5", "12:5:t", "12:5 x", ":5" };
	struct place *p = *state;
	struct noted_tasks tasks;
	struct error err = { 0 };

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		assert_int_equal(journal_note_text(p->journal, "tasks", texts[i], &err), 0);
		if (noted_tasks_read(p->journal, &tasks, &err) != -EBADMSG)
			fail_msg("\"%s\" was taken for tasks", texts[i]);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_stop_and_go), TEST(test_was_stopped), TEST(test_another_process),
		TEST(test_process),	TEST(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
