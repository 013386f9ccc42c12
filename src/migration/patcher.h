/*
 * The target's side of large files that go block by block: says what it has of them, and puts in what the source sends.
 *
 * One channel and a thread of its own, which answers until the channel ends. No file pass may be at work meanwhile: one that waits for its list is not.
 */
#pragma once

#include "transport/channel.h"

struct patcher;

/* Where tree number i goes on this host; NULL with a sentence: nowhere. `context` and what it is asked of must stay until the end. */
typedef const char *(*patcher_path_fn)(const void *context, uint32_t i, struct error *err);

/* Takes the channel over. */
int patcher_new(struct channel *channel, patcher_path_fn path, const void *context, struct patcher **ret,
		struct error *err);

/* Ends it at once, what it is in the middle of included. */
void patcher_free(struct patcher *p);
