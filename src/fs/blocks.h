/*
 * Large files that change in a few places: the sums of their blocks, and the blocks that are not as their sums say.
 *
 * rsync looks through such a file on both hosts, one after the other, and a workload that stands still waits for that. With the sums of what the
 * target has, taken before, the source finds by itself what differs (migration/source-blocks.c).
 *
 * A file here is a regular one with one name: writing into another would change what stands under its other names.
 */
#pragma once

#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "base/buffer.h"
#include "base/error.h"
#include "fs/sync.h"

#define BLOCK_BYTES 8192U
#define BLOCK_SUM_BYTES 16U		       /* XXH3-128, its canonical form */
#define BLOCKS_PIECE_BYTES (32U * BLOCK_BYTES) /* the longest run that is handed out at once */
#define BLOCKS_FIND_MAX (1U << 20)	       /* entries of a tree that are looked at: some seconds */
#define BLOCKS_FILE_MIN (256U << 10)	       /* what is smaller is rsync's */

/* Whether it is a file as above, and a large one. */
bool blocks_suit(const struct stat *st);

/* Looks through a tree, on its own file system and without what it excludes, for such files that were written since then; names are relative to it. What cannot be
 * read is passed over, and what comes behind BLOCKS_FIND_MAX entries. */
void blocks_find(const struct sync_tree *tree, time_t since,
		 void (*found)(void *context, const char *name, uint64_t size), void *context);

/* A file below a directory, reached without following a symbolic link. A descriptor; -EINVAL: it is not a file as above; or a negative errno. */
int blocks_open(int directory_fd, const char *name, int flags, struct stat *ret);

/* Appends the sums of the blocks from `offset` (a whole number of them) on, `length` bytes or to the end of the file; the last block may be short.
 * Negative errno. */
int blocks_sum(int fd, uint64_t offset, uint64_t length, struct buffer *ret);

/* A run of blocks that differ: at most BLOCKS_PIECE_BYTES; the bytes are there until the call returns. 0, or what ends the comparison. */
typedef int (*blocks_take_fn)(void *context, uint64_t offset, const void *data, size_t length, struct error *err);

/* Hands out what is not as `sums` (of the blocks from the beginning on) say, and all behind the last of them, in ascending order. */
int blocks_compare(int fd, const struct buffer *sums, blocks_take_fn take, void *context, struct error *err);
