/*
 * Blocks of large files: see blocks.h. No state; any thread.
 *
 * A piece at a time, so that it is still in the processor's cache when it is summed up. What lies in a hole is not read: its sums are those of zeros.
 */
#include "fs/blocks.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/fd.h"

_Static_assert(sizeof(XXH128_canonical_t) == BLOCK_SUM_BYTES, "a sum is an XXH3-128");

bool blocks_suit(const struct stat *st)
{
	return S_ISREG(st->st_mode) && st->st_nlink == 1 && (uint64_t)st->st_size >= BLOCKS_FILE_MIN;
}

void blocks_find(const struct sync_tree *tree, time_t since,
		 void (*found)(void *context, const char *name, uint64_t size), void *context)
{
	char *const paths[] = { (char *)tree->path, NULL };
	FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
	size_t skip = strlen(tree->path) + 1;
	size_t left = BLOCKS_FIND_MAX;
	FTSENT *e;

	while (walk && left-- && (e = fts_read(walk))) {
		const char *name = e->fts_level ? e->fts_path + skip : "";

		if (e->fts_level && sync_tree_excludes(tree, name))
			fts_set(walk, e, FTS_SKIP);
		else if (e->fts_info == FTS_F && blocks_suit(e->fts_statp) && e->fts_statp->st_mtime >= since)
			found(context, name, (uint64_t)e->fts_statp->st_size);
	}
	if (walk)
		fts_close(walk);
}

int blocks_open(int directory_fd, const char *name, int flags, struct stat *ret)
{
	/* What is no file must not make us wait for its other end. */
	int fd = fd_open_beneath(directory_fd, name, flags | O_NONBLOCK | O_CLOEXEC, 0), r = 0;

	if (fd < 0)
		return fd;
	if (fstat(fd, ret) < 0)
		r = -errno;
	else if (!S_ISREG(ret->st_mode) || ret->st_nlink != 1)
		r = -EINVAL;
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

static void sum_up(const void *data, size_t length, uint8_t *ret)
{
	XXH128_canonicalFromHash((XXH128_canonical_t *)(void *)ret, XXH3_128bits(data, length));
}

/* One piece of a file, and where the next data is. */
struct piece {
	int fd;
	uint64_t data_at; /* there is none between the piece read last and this */
	size_t length;
	bool hole;
	uint8_t sums[BLOCKS_PIECE_BYTES / BLOCK_BYTES * BLOCK_SUM_BYTES], zero_sum[BLOCK_SUM_BYTES];
	uint8_t bytes[BLOCKS_PIECE_BYTES];
};

static struct piece *piece_new(int fd)
{
	struct piece *p = malloc(sizeof(*p));

	if (!p)
		return NULL;
	p->fd = fd;
	p->data_at = 0;
	memset(p->bytes, 0, BLOCK_BYTES);
	sum_up(p->bytes, BLOCK_BYTES, p->zero_sum);
	return p;
}

static size_t piece_blocks(const struct piece *p)
{
	return (p->length + BLOCK_BYTES - 1) / BLOCK_BYTES;
}

/* As much as there is of `wanted` bytes, read until the end of the file. */
static int read_bytes(struct piece *p, uint64_t offset, size_t wanted)
{
	while (p->length < wanted) {
		ssize_t n = pread(p->fd, p->bytes + p->length, wanted - p->length, (off_t)(offset + p->length));

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			break;
		p->length += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Up to `wanted` bytes and their sums. Whole pieces that lie in a hole are told of as such, and nothing is read. */
static int piece_read(struct piece *p, uint64_t offset, size_t wanted)
{
	int r;

	if (p->data_at <= offset) {
		off_t at = lseek(p->fd, (off_t)offset, SEEK_DATA);

		/* A file system without holes, or its end: the bytes say the rest. */
		p->data_at = at < 0 ? offset : (uint64_t)at;
	}
	p->hole = wanted % BLOCK_BYTES == 0 && p->data_at >= offset + wanted;
	p->length = p->hole ? wanted : 0;
	r = p->hole ? 0 : read_bytes(p, offset, wanted);
	for (size_t i = 0; i < piece_blocks(p) && !r; i++) {
		uint8_t *sum = p->sums + i * BLOCK_SUM_BYTES;

		if (p->hole)
			memcpy(sum, p->zero_sum, BLOCK_SUM_BYTES);
		else
			sum_up(p->bytes + i * BLOCK_BYTES, MIN((size_t)BLOCK_BYTES, p->length - i * BLOCK_BYTES), sum);
	}
	return r;
}

int blocks_sum(int fd, uint64_t offset, uint64_t length, struct buffer *ret)
{
	_cleanup_free_ struct piece *p = piece_new(fd);
	int r = p ? 0 : -ENOMEM;

	while (!r && length) {
		size_t wanted = (size_t)MIN(length, (uint64_t)BLOCKS_PIECE_BYTES);

		r = piece_read(p, offset, wanted);
		if (!r)
			r = buffer_append(ret, p->sums, piece_blocks(p) * BLOCK_SUM_BYTES);
		if (!r && p->length < wanted)
			break;
		offset += wanted;
		length -= wanted;
	}
	return r;
}

/* Runs of blocks of one piece. */
static int take_runs(struct piece *p, uint64_t offset, const struct buffer *sums, blocks_take_fn take, void *context,
		     struct error *err)
{
	size_t first = (size_t)(offset / BLOCK_BYTES), n = piece_blocks(p), from = n;
	int r = 0;

	for (size_t i = 0; i <= n && !r; i++) {
		size_t at = (first + i) * BLOCK_SUM_BYTES;
		bool differs = i < n && (at + BLOCK_SUM_BYTES > sums->length ||
					 memcmp(sums->data + at, p->sums + i * BLOCK_SUM_BYTES, BLOCK_SUM_BYTES) != 0);

		if (differs && from == n)
			from = i;
		if (differs || from == n)
			continue;
		if (p->hole)
			memset(p->bytes, 0, sizeof(p->bytes));
		r = take(context, offset + from * BLOCK_BYTES, p->bytes + from * BLOCK_BYTES,
			 MIN(i * BLOCK_BYTES, p->length) - from * BLOCK_BYTES, err);
		from = n;
	}
	return r;
}

int blocks_compare(int fd, const struct buffer *sums, blocks_take_fn take, void *context, struct error *err)
{
	_cleanup_free_ struct piece *p = piece_new(fd);
	uint64_t offset = 0;
	int r;

	if (!p)
		return error_set(err, ENOMEM, "no memory to compare files");
	do {
		r = piece_read(p, offset, BLOCKS_PIECE_BYTES);
		if (r < 0)
			return error_errno(err, -r, "cannot read a file that is compared");
		r = take_runs(p, offset, sums, take, context, err);
		offset += p->length;
	} while (!r && p->length == BLOCKS_PIECE_BYTES);
	return r;
}
