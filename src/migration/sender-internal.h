/*
 * The sender's insides, shared by sender.c (the rounds) and sender-life.c (threads and channels come and go).
 */
#pragma once

#include <pthread.h>

#include "base/gentle.h"
#include "migration/sender.h"

#define GATHER_BYTES (256U << 10) /* frames are collected up to that */

struct sender_thread {
	struct sender *sender;
	struct channel *channel;
	pthread_t thread;
	bool started;
	uint32_t started_at; /* turns before it was started are not its own */
	struct codec *codec;
	struct page_runs sent; /* in this round, in the order it went */
	uint8_t *pages;	       /* one piece */
	uint8_t *gather;
	size_t gathered;
	struct gentle gentle;
	uint64_t write_bytes, write_ns;	 /* since the link's rate was last told to the codec */
	struct sender_counters counters; /* of the piece at hand; added under the lock */
};

struct sender {
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	const struct page_runs *runs;
	size_t next_run;
	uint64_t next_page; /* within that run */
	uint32_t round;	    /* of the barrier */
	uint32_t turn;	    /* one per start; threads compare it with the one they finished */
	uint32_t busy;	    /* threads that have not sent the barrier yet */
	bool stop, compress;
	struct error failure; /* number != 0: a thread failed */
	struct sender_counters this_round, all;
	uint64_t bytes_before; /* on channels that are gone */
	struct dedup_index *dedup;
	size_t n_threads;
	struct sender_thread *threads;
};

/* A channel's thread: rounds, until the sender stops. */
void *sender_thread_main(void *arg);
