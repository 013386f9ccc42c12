/*
 * What goes before rsync's own bytes on a stream: how the source wants the server half to be run.
 *
 *   u32 length (little endian) of what follows, at most SYNC_HEADER_MAX
 *   u8  kind: 'd' a directory's content, 'f' one file
 *       options of `rsync --server`, each terminated by NUL
 *
 * It comes from a peer: nothing but the options of a fixed table is taken, and never a path.
 */
#pragma once

#include "base/buffer.h"
#include "base/error.h"

#define SYNC_HEADER_MAX 4096
#define SYNC_OPTIONS_MAX 32
#define SYNC_VERB "rsync-stream"

struct sync_header {
	bool directory;
	char *options[SYNC_OPTIONS_MAX]; /* point into text */
	size_t n_options;
	char text[SYNC_HEADER_MAX + 1];
};

/* Whole header for the arguments that rsync gave its remote shell, "--server" first; without the length 0: -EINVAL. */
int sync_header_encode(bool directory, const char *const *options, size_t n, struct buffer *ret);

/* The `length` bytes behind the length field. -EINVAL and a sentence when anything in it is not allowed. */
int sync_header_decode(const uint8_t *data, size_t length, struct sync_header *ret, struct error *err);
