/*
 * What the target lacks, on its way: see bring.h. Threads: the caller's.
 */
#include "migration/bring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fd.h"
#include "migration/stream.h"

#define END_MS 30000 /* a child that has closed its end */
#define WORDS_MAX 65536

int bring_open(struct bring *b, struct error *err)
{
	int pair[2];

	b->child = PROCESS_NONE;
	b->pump_fd = b->child_fd = -1;
	b->log_fd = open(b->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (b->log_fd < 0)
		return error_errno(err, errno, "cannot create %s", b->log);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, errno, "cannot make a socket pair");
	b->pump_fd = pair[0];
	b->child_fd = pair[1];
	return 0;
}

/* The last line that the child wrote. */
static int failed(const struct bring *b, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	const char *line;

	if (fd_read_file(AT_FDCWD, b->log, WORDS_MAX, &text) < 0)
		return error_set(err, EIO, "it ended with status %d", b->child.status);
	line = buffer_last_line(&text);
	if (!line)
		return error_set(err, EIO, "it ended without a word, with status %d", b->child.status);
	return error_set(err, EIO, "%s", line);
}

int bring_run(struct bring *b, struct error *err)
{
	int r;

	close_fd(&b->child_fd); /* its own copy ends with it */
	r = stream_pump(b->channel, b->pump_fd, b->cancel_fd, b->silence_ms, err);
	if (r < 0)
		return r;
	if (process_wait(&b->child, deadline_in_ms(END_MS)) != 1)
		return error_set(err, ETIMEDOUT, "what brings it does not end (its words: %s)", b->log);
	return b->child.status ? failed(b, err) : 0;
}

void bring_close(struct bring *b)
{
	if (b->child.pid)
		process_free(&b->child);
	if (b->pump_fd > 0)
		close_fd(&b->pump_fd);
	if (b->child_fd > 0)
		close_fd(&b->child_fd);
	if (b->log_fd > 0)
		close_fd(&b->log_fd);
}
