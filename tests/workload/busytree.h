/* A process tree whose members check one another: what parent (busytree.c) and child (busychild.c) share. */
#pragma once

#include "common.h"

#include <stdatomic.h>
#include <sys/types.h>

#define CHILDREN_MAX 128

/* Everything that must keep going in a child, counted by the child, watched by the parent. */
enum activity {
	ACTIVITY_PIPE,
	ACTIVITY_SOCKET,
	ACTIVITY_TIMER,
	ACTIVITY_EVENT,
	ACTIVITY_SIGNAL,
	ACTIVITY_THREADS,
	ACTIVITY_MAX,
};

struct tree_state { /* one shared mapping */
	_Atomic uint32_t errors;
	_Atomic uint32_t first_claimed;
	_Atomic uint32_t first_ready;
	_Atomic uint32_t children_ready; /* have filled their memory */
	char first[128];
	_Atomic uint64_t activity[CHILDREN_MAX][ACTIVITY_MAX];
};

struct child_ends {
	int pipe_in;
	int pipe_out;
	int socket;
};

void tree_report(struct tree_state *state, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What a child answers to a token, over the pipe and over the socket. */
uint64_t token_answer(uint64_t token);

/* The child's life; returns when its pipe is closed or something cannot be set up. */
struct child_wants {
	uint64_t tick_ms;
	uint64_t memory_bytes; /* filled, and looked at */
	uint64_t threads;      /* that wait, beside the three that work */
};

int busy_child(struct tree_state *state, unsigned number, struct child_ends ends, const struct child_wants *wants);

/* busymemory.c: memory and threads of this process. */
int busy_memory_start(struct tree_state *state, unsigned child, uint64_t bytes, uint64_t threads);
void busy_memory_check(void);
