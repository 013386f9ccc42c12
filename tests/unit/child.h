/*
 * Real child processes for tests: a child runs one function, and takes orders over a socket pair.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct child {
	pid_t pid;
	int fd; /* to the child */
};

/* What the child runs; fd is its end. Its return value is the exit status. */
typedef int child_function(int fd, void *argument);

struct child child_start(child_function *function, void *argument);
void child_end(struct child *c); /* SIGKILL, reaped */
int child_join(struct child *c); /* waits for its end by itself; the status of waitpid(2) */

/* One 64-bit word either way; both fail the test (or end the child) when the other is gone. */
void child_send(int fd, uint64_t value);
uint64_t child_receive(int fd);

/* Sends and waits for the answer. */
uint64_t child_ask(const struct child *c, uint64_t order);
