/*
 * Children for the tests of driver/: real processes, each made to have one property. They wait for nothing but a signal, and are
 * killed and reaped by the test that made them.
 */
#pragma once

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "driver/driver.h"
#include "driver/pid.h"

/* What a child does to itself before it waits. */
typedef void child_fn(void);

static inline void __attribute__((noreturn)) wait_forever(void)
{
	for (;;)
		pause();
}

/* A session leader with stdio on /dev/null and nothing else open, which has run fn. It says that it is ready by closing a pipe. */
static inline pid_t spawn(child_fn *fn)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		if (chdir("/") < 0)
			_exit(1);
		for (int i = 0; i < 3; i++)
			dup2(null, i);
		dup2(ready[1], 3);
		close_range(4, ~0U, 0);
		dup3(3, 100, O_CLOEXEC); /* low numbers for what fn opens */
		close(3);
		if (fn)
			fn();
		close(100);
		wait_forever();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 0);
	close(ready[0]);
	return pid;
}

static inline void reap(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static inline void describe(pid_t pid, struct workload *ret)
{
	struct error err = { 0 };
	char id[16];

	snprintf(id, sizeof(id), "%d", pid);
	if (driver_pid.describe(id, NULL, ret, &err) < 0)
		fail_msg("%s", err.text);
}

static inline void check_source(pid_t pid, const struct driver_options *options, struct obstacles *ret)
{
	struct workload w = { 0 };
	struct error err = { 0 };

	describe(pid, &w);
	if (driver_pid.check_source(&w, options, ret, &err) < 0)
		fail_msg("%s", err.text);
	workload_free(&w);
}
