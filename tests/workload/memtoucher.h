/* The parts of memtoucher and what they share. See memtoucher.c for the whole. */
#pragma once

#include "common.h"
#include "region.h"

#include <pthread.h>

#define THREADS_MAX 64

enum feature {
	FEATURE_DONTNEED,
	FEATURE_REMAP,
	FEATURE_RELRO,
	FEATURE_HIDDEN,
	FEATURE_GUARD,
	FEATURE_MLOCK,
	FEATURE_HUGETLB,
	FEATURE_THP,
	FEATURE_EXE,
	FEATURE_HEAP,
	FEATURE_STACK,
	FEATURE_COW,
	FEATURE_MAX,
};

struct settings {
	uint64_t bytes;	      /* of private memory, all threads together */
	uint64_t rate;	      /* bytes rewritten per second in it */
	uint64_t verify_rate; /* bytes verified per second in it, besides what is rewritten */
	uint64_t threads;
	uint64_t shared_bytes;	/* of each of the two kinds of shared memory; 0: none */
	uint64_t fork_every_ms; /* 0: never */
	uint64_t map_every_ms;	/* 0: never */
	enum page_content content;
	bool feature[FEATURE_MAX];
	uint64_t seed;
};

extern const char *const feature_names[FEATURE_MAX];

/* ---- touch.c: the private memory, its threads, the forked child, the churn of mappings ---- */

struct toucher {
	const struct settings *settings;
	struct owner owner;
	struct region region;
	pthread_t thread;
	pthread_barrier_t *filled;
	unsigned number;
	pid_t forked;
	uint64_t fork_due_ns;
	unsigned fork_turns;
};

void *toucher_main(void *argument);

struct churner {
	const struct settings *settings;
	struct owner owner;
	pthread_t thread;
};

void *churner_main(void *argument);

/* ---- sharing.c: memory that two processes write ---- */

struct sharing;

/* Maps both kinds and fills them. Before the fork. */
int sharing_new(const struct settings *settings, struct owner *owner, struct sharing **ret_sharing);
/* One step of one side: verifies a share of the pages and rewrites some. `full`: verifies all. */
void sharing_step(struct sharing *sharing, struct owner *owner, bool full);

/* ---- kinds.c: small regions of special kinds, kept by one thread ---- */

struct kinds {
	const struct settings *settings;
	struct owner owner;
	pthread_t thread;
	struct sharing *sharing;	    /* NULL: none */
	void *main_stack;		    /* MAIN_STACK_PAGES pages in main's frame, page aligned */
	struct region regions[FEATURE_MAX]; /* table NULL: not there */
	char skipped[FEATURE_MAX][96];	    /* why a wanted feature is not there; empty: it is */
	uint8_t *guards[2];
	uint64_t passes;
};

#define MAIN_STACK_PAGES 8

int kinds_init(struct kinds *kinds, const struct settings *settings, struct state *state, void *main_stack);
void *kinds_main(void *argument);
/* The same for the second process, which owns its copy of the "cow" region only. Never returns. */
_Noreturn void kinds_child(struct kinds *kinds, struct owner owner, pid_t parent);
