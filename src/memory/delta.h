/*
 * What changed in a page: words of eight bytes that are not what they were.
 *
 *     n * { u16 words to skip, u16 words that follow, 1 or more; those words }        little-endian
 *
 * Skips end before the page does, and what is behind the last words is as it was; no bytes at all: nothing changed. Pure; any thread.
 */
#pragma once

#include <stddef.h>

#include "base/page.h"

#define DELTA_PAGE_MAX 2048 /* a page whose changes take more goes whole */

/* The number of bytes, at most DELTA_PAGE_MAX, or -1: they take more. */
int delta_encode(const uint8_t *before, const uint8_t *now, uint8_t out[DELTA_PAGE_MAX]);

/* From a peer, onto the version before. 0, or -EBADMSG and then the page is neither. */
int delta_apply(uint8_t *page, const uint8_t *delta, size_t bytes);
