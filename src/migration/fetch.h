/*
 * The target's side of post-copy: asks the source for the pages that faults wait for, and takes in all that come.
 *
 * Two channels, one thread each: over the urgent one go requests, over the other first the list of what is missing, then nothing.
 * Pages come over both. When either breaks, so does the other; the pages not yet here stay missing, and new channels take their place.
 */
#pragma once

#include "memory/pager.h"
#include "transport/channel.h"

struct fetch;

/* The pager must outlive it. */
int fetch_new(struct pager *pager, struct fetch **ret, struct error *err);

/* Takes the channel over, as number 0 (urgent) or 1, in the place of what had that number before. */
int fetch_attach(struct fetch *f, uint32_t index, struct channel *channel, struct error *err);

/* Breaks the channels, joins the threads. */
void fetch_free(struct fetch *f);
