/*
 * Being asked to stop: SIGINT, SIGTERM and SIGHUP become a descriptor that is readable.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "base/error.h"

/* Blocks those signals that are not ignored, for this thread and all it makes, and returns a signalfd for them (nobody
 * reads it: once readable it stays so), or a negative errno. Before the first thread. */
int cancel_open_signals(struct error *err);

/* The same for a command that goes on for a while after it was asked: says so, and says again at each further signal. */
struct cancel {
	int fd; /* readable once asked to stop */
	int signal_fd, end_fd;
	pthread_t thread;
};

int cancel_start(struct cancel *c, struct error *err);
void cancel_stop(struct cancel *c);
