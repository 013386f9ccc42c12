/*
 * The receiver: the target's data channels, one thread each, that put what arrives straight into the store.
 */
#pragma once

#include "memory/store.h"
#include "transport/channel.h"

struct receiver;

/* The store must outlive it. */
int receiver_new(struct store *store, struct receiver **ret, struct error *err);

/* Takes the channel over and starts its thread. index: the source's number of it. -EPROTO: there is one of that number. */
int receiver_add(struct receiver *r, uint32_t index, struct channel *channel, struct error *err);

/* Whether the threads leave the processors of this host to others: until the freeze. Any time. */
void receiver_set_gentle(struct receiver *r, bool gentle);

/* Waits until every channel has brought the barrier of this round (or a later one): 1 it has, 0 the deadline passed, or the
 * first failure of any channel. */
int receiver_wait(struct receiver *r, uint32_t round, uint64_t deadline_ns, struct error *err);

/* Readable once a channel has failed: for loops that watch more than one thing. Owned by the receiver. */
int receiver_failure_fd(const struct receiver *r);

/* The first failure as a negative errno, or 0. */
int receiver_failure(struct receiver *r, struct error *err);

/* Breaks the channels, joins the threads: nothing is stored any more, and what came can be counted. Idempotent. */
void receiver_stop(struct receiver *r);

/* What came on one channel: the last barrier, and how many pages after it. */
struct receiver_arrived {
	uint32_t index, round;
	uint64_t pages;
};

/* After receiver_stop(): fills up to `max`, gives how many there were. */
size_t receiver_arrived(const struct receiver *r, struct receiver_arrived *ret, size_t max);

/* After receiver_stop(): as new, with the same store and no channel. */
void receiver_reset(struct receiver *r);

/* receiver_stop(), and forgets all. */
void receiver_free(struct receiver *r);
