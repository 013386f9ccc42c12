/*
 * What the client (pager.c) and the supervisor (pager-main.c) agree on.
 *
 * Over the control socket: one byte with {state, listening socket, eventfds of requests and arrivals}; bytes with up to PAGER_FDS_PER_MESSAGE stores each; then
 * the supervisor answers one byte when it is up. Later a byte from either side only means: look at the state.
 */
#pragma once

#include "base/process.h"
#include "memory/pager-state.h"

#define PAGER_FDS_PER_MESSAGE 16

/* The client's handle. */
struct pager {
	struct process supervisor;
	int control_fd, state_fd, directory_fd;
	int listen_fd; /* until it is started */
	int request_fd, arrival_fd;
	int *store_fds; /* by space, of those with pages at the source; else -1 */
	struct pager_state *state;
	char socket_name[108]; /* in the directory */
	bool gone;	       /* the supervisor closed its end */
	bool adopted;	       /* another client started it, and is gone: nobody tells us anything */
};

/* pager-remote.c: what post-copy needs beside. */
struct pager_space;
int pager_remote_open(struct pager *p, const struct pager_space *spaces, size_t n_spaces, struct error *err);
void pager_remote_close(struct pager *p);

/* pager-adopt.c: whether neither of both processes is left. */
bool pager_processes_gone(const struct pager *p);
