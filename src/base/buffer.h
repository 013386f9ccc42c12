/*
 * A growable run of bytes. Zero-initialised is empty; buffer_free() may be called any number of times.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct buffer {
	uint8_t *data;
	size_t length;	 /* bytes in use */
	size_t capacity; /* bytes allocated */
};

#define _cleanup_buffer_ _cleanup_(buffer_free)

void buffer_free(struct buffer *b);

/* Makes room for `extra` bytes behind what is there. 0 or -ENOMEM. */
int buffer_reserve(struct buffer *b, size_t extra);

/* Appends; 0 or -ENOMEM. */
int buffer_append(struct buffer *b, const void *data, size_t length);
int buffer_printf(struct buffer *b, const char *fmt, ...) _printf_(2, 3);

/* The last line of a program's words that says something, ended by a 0: in b, whose length is cut to its end. NULL: there is none, or no memory. */
const char *buffer_last_line(struct buffer *b);
