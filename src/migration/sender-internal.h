/*
 * The sender's insides, shared by sender.c (the rounds), sender-encode.c (what becomes of a page) and sender-life.c (threads and channels
 * come and go).
 */
#pragma once

#include <pthread.h>

#include "base/gentle.h"
#include "memory/duplicates.h"
#include "memory/last-sent.h"
#include "memory/link-meter.h"
#include "migration/sender.h"
#include "wire/frame.h"

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
	struct link_meter meter;
	struct duplicates_search search;
	uint8_t *payload;		 /* of a frame that refers to what the target has; NULL: such are not sent */
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
	bool stop;
	uint32_t encodings;
	struct pacer *pacer;	       /* not owned */
	struct duplicates *duplicates; /* NULL: not looked for */
	struct last_sent *last_sent;   /* NULL: not kept, or not yet */
	bool last_sent_over;	       /* it brought nothing */
	struct error failure;	       /* number != 0: a thread failed */
	struct sender_counters this_round, all;
	uint64_t bytes_before; /* on channels that are gone */
	struct dedup_index *dedup;
	size_t n_threads;
	struct sender_thread *threads;
};

/* A channel's thread: rounds, until the sender stops. */
void *sender_thread_main(void *arg);

/* One frame of pages into the channel, or behind those that are gathered. Counted. */
int sender_send_frame(struct sender_thread *t, const struct frame_pages *pages, const uint8_t *payload,
		      uint32_t payload_bytes, struct error *err);

/* Sends pages that stand together and all exist: their bytes. */
int sender_send_run(struct sender_thread *t, const struct page_run *run, const uint8_t *data, struct error *err);

/* Before a round, while no thread works: what is known of what the target has. */
int sender_encode_begin(struct sender *s, const struct page_runs *runs, enum sender_turn turn, uint32_t round);

/* The link is gone: nothing is known any more. */
void sender_encode_forget(struct sender *s);
