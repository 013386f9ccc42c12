/*
 * Child processes for tests: see child.h. A child dies with its parent (PR_SET_PDEATHSIG).
 */
#include "child.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"

struct child child_start(child_function *function, void *argument)
{
	struct child c;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	fflush(NULL);
	c.pid = fork();
	assert_true(c.pid >= 0);
	if (!c.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		_exit(function(pair[1], argument));
	}
	close(pair[1]);
	c.fd = pair[0];
	return c;
}

int child_join(struct child *c)
{
	int status = 0;

	assert_int_equal(waitpid(c->pid, &status, __WALL), c->pid);
	close(c->fd);
	c->pid = 0;
	return status;
}

void child_end(struct child *c)
{
	if (!c->pid)
		return;
	kill(c->pid, SIGKILL);
	child_join(c);
}

void child_send(int fd, uint64_t value)
{
	if (fd_write_full(fd, &value, sizeof(value)) < 0)
		_exit(99);
}

uint64_t child_receive(int fd)
{
	uint64_t value;

	if (fd_read_full(fd, &value, sizeof(value)) < 0)
		_exit(98);
	return value;
}

uint64_t child_ask(const struct child *c, uint64_t order)
{
	child_send(c->fd, order);
	return child_receive(c->fd);
}
