/* How tests talk to an observer: lines "mark NAME", "report", "quit" on stdin or on a unix socket, one line back. */
#pragma once

#include "common.h"

#include <poll.h>

#define CONSOLE_CLIENTS_MAX 16
#define CONSOLE_FDS_MAX (CONSOLE_CLIENTS_MAX + 1)
#define REPORT_BYTES (16u << 20) /* more than every workload with a full list of gaps */

struct console_ops {
	void (*mark)(void *self, const char *name);
	void (*report)(void *self, struct text *text);
};

struct console_client {
	int in_fd; /* -1: free */
	int out_fd;
	size_t length;
	char line[128];
};

struct console {
	const struct console_ops *ops;
	void *self;
	const char *path; /* of the socket, or NULL: stdin and stdout */
	int listen_fd;
	bool quit;
	char *bytes; /* REPORT_BYTES for answers */
	struct console_client clients[CONSOLE_CLIENTS_MAX];
};

int console_open(struct console *console, const char *path, const struct console_ops *ops, void *self);
/* Fills in what to poll; returns how many. */
size_t console_poll_fill(const struct console *console, struct pollfd *ret_fds);
/* Serves what `fds` (from console_poll_fill) says is ready. Sets console->quit. */
void console_serve(struct console *console, const struct pollfd *fds, size_t count);
/* A last report to `path`, or nowhere when NULL; then frees and removes everything. */
int console_close(struct console *console, const char *path);

/* The two kinds of observer. */
struct echo_options {
	union tcp_address to;
	uint64_t interval_ms;
	uint64_t over_ms;
	const char *control;
	const char *json;
};

int echo_observe(const struct echo_options *options, const volatile int *stop);
