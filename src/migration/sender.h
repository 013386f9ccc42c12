/*
 * The sender: the source's data channels, one thread each, that read pages of the workload, encode and send them.
 *
 * A round is a list of page runs; the threads take pieces of it until it is used up, and each ends it with a barrier.
 */
#pragma once

#include <stdbool.h>

#include "memory/codec.h"
#include "memory/dedup.h"
#include "memory/space.h"
#include "transport/channel.h"

struct sender;

/* What was sent since the sender was made, or in the round under way. */
struct sender_counters {
	uint64_t pages;				/* taken from the list, zero and gone ones included */
	uint64_t pages_gone;			/* went away before they could be read */
	uint64_t bytes;				/* of frames, before encryption */
	struct encoding_count by[ENCODING_MAX]; /* of frames as well */
};

/* Takes the n channels over. dedup gets the hashes of pages that come back in CRIU's images. encodings: a set, of what may be used beside zero
 * and raw. */
int sender_new(struct channel **channels, size_t n, struct dedup_index *dedup, uint32_t encodings, struct sender **ret,
	       struct error *err);

enum sender_turn {
	SENDER_ROUND, /* the rounds before were acknowledged */
	SENDER_AGAIN, /* the same round goes on with what did not arrive before a link broke; its counters go on, too */
	SENDER_LAST,  /* tasks stopped; beside what was acknowledged there may be pages of the same list under way */
};

/* Starts a round; `runs` must stay until it is over. */
int sender_start(struct sender *s, uint32_t round, const struct page_runs *runs, enum sender_turn turn,
		 struct error *err);

/* Whether the threads leave the processors to others: while the workload runs, and copying has time. Any time. */
void sender_set_gentle(struct sender *s, bool gentle);

/* Waits for its end (all channels have sent the barrier): 1 over, 0 the deadline passed, or the first failure. */
int sender_wait(struct sender *s, uint64_t deadline_ns, struct error *err);

/* Cuts the round under way short: what no thread has taken yet is appended to `ret` and will not be sent. Wait for its end all the
 * same. 0, -ENOMEM (and nothing was cut). */
int sender_cut(struct sender *s, struct page_runs *ret);

/* What all channels together may send; not owned. */
void sender_set_pacer(struct sender *s, struct pacer *pacer);

/* Of the round under way (or the last one), and of all. */
void sender_progress(struct sender *s, struct sender_counters *ret_round, struct sender_counters *ret_all);

/* Bytes that went over the wire on these channels, encryption included. */
uint64_t sender_bytes_out(struct sender *s);

/* Breaks the channels, joins the threads: nothing is sent any more. Idempotent. */
void sender_stop(struct sender *s);

/* After sender_stop(): what a channel was given in the round, in order (sent.h). The sender's, until the next start. */
const struct page_runs *sender_sent(const struct sender *s, size_t channel);

/* After sender_stop(): takes new channels, as many as before, in the place of the old ones, with new threads. */
int sender_rejoin(struct sender *s, struct channel **channels, struct error *err);

/* sender_stop(), and forgets all. */
void sender_free(struct sender *s);
