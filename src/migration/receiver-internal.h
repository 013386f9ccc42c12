/*
 * The receiver's insides, shared by receiver.c (channels and rounds) and receiver-derive.c (pages made of others).
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/gentle.h"
#include "migration/receiver.h"
#include "wire/frame.h"

#define CHANNELS_MAX 64

struct receiver_thread {
	struct gentle gentle;
	struct receiver *receiver;
	struct channel *channel;
	pthread_t thread;
	bool joined;
	uint32_t index;		/* the source's */
	uint32_t round;		/* the last barrier it brought */
	_Atomic uint64_t pages; /* stored since */
	uint8_t *scratch;	/* what came */
	uint8_t *derived;	/* what became of it, where that takes a buffer of its own; NULL: not yet */
};

struct receiver {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct store *store;
	struct error failure;
	int failure_fd; /* eventfd, raised with the failure */
	bool gentle;	/* new threads, too */
	bool stopping;
	_Atomic uint32_t waiting; /* threads that wait for pages of another */
	size_t n_threads;
	struct receiver_thread threads[CHANNELS_MAX];
};

/* So many more pages of this channel are in the store. */
void receiver_count(struct receiver_thread *t, uint32_t pages);

/* A frame of deltas or duplicates, whose payload is in t->scratch, into the store. */
int receiver_derive(struct receiver_thread *t, const struct frame_pages *pages, uint32_t payload, struct error *err);
