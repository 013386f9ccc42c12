/*
 * Text for people and for JSON out of bytes that may come from a peer or from a program's log.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Copies `in` to `out` (size >= 1, cut at a whole character if need be): valid UTF-8 stays, control characters (a terminal
 * would obey them) become '?', and what is not UTF-8 becomes U+FFFD. Returns out. */
char *text_clean(const char *in, char *out, size_t size);

#define TEXT_QUANTITY_MAX 32

/* "812 KiB", "1.4 GiB" and "41 ms", "2.3 s", "1 min 12 s". Return out. */
char *text_bytes(uint64_t bytes, char out[TEXT_QUANTITY_MAX]);
char *text_duration(uint64_t ns, char out[TEXT_QUANTITY_MAX]);
