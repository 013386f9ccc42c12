/*
 * Unit tests of fs/blocks.c: what is told to differ, put into the old file, makes the new one of it, and nothing else is told.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "fs/blocks.h"

#define FILE_BYTES (3 * BLOCKS_PIECE_BYTES + 5 * BLOCK_BYTES + 100)

struct fixture {
	char directory[64];
	int dir_fd;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->directory, "/tmp/phaul-blocks.XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	f->dir_fd = open(f->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->dir_fd >= 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close(f->dir_fd);
	assert_int_equal(dir_remove(f->directory), 0);
	free(f);
	return 0;
}

/* A file whose bytes are all different from block to block. */
static int make_file(const struct fixture *f, const char *name, size_t length)
{
	int fd = openat(f->dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint8_t *data = malloc(length + 1);

	assert_true(fd >= 0);
	for (size_t i = 0; i < length; i++)
		data[i] = (uint8_t)(i * 7 + i / BLOCK_BYTES);
	assert_int_equal(fd_write_full(fd, data, length), 0);
	free(data);
	return fd;
}

struct told {
	int old_fd;
	size_t runs, bytes;
	uint64_t end;
};

static int put(void *context, uint64_t offset, const void *data, size_t length, struct error *err)
{
	struct told *t = context;

	(void)err;
	assert_true(offset >= t->end && offset % BLOCK_BYTES == 0 && length && length <= BLOCKS_PIECE_BYTES);
	assert_int_equal(pwrite(t->old_fd, data, length, (off_t)offset), length);
	t->end = offset + length;
	t->runs++;
	t->bytes += length;
	return 0;
}

static void assert_same(int a, int b)
{
	struct stat sa, sb;
	uint8_t x[BLOCK_BYTES], y[BLOCK_BYTES];

	assert_int_equal(fstat(a, &sa), 0);
	assert_int_equal(fstat(b, &sb), 0);
	assert_int_equal(sa.st_size, sb.st_size);
	for (off_t at = 0; at < sa.st_size; at += BLOCK_BYTES) {
		ssize_t n = pread(a, x, sizeof(x), at);

		assert_int_equal(pread(b, y, sizeof(y), at), n);
		assert_memory_equal(x, y, (size_t)n);
	}
}

/* Compares `fd` with the sums of `old_fd`, and makes the old one like it. */
static struct told bring(int fd, int old_fd)
{
	_cleanup_buffer_ struct buffer sums = { 0 };
	struct told t = { .old_fd = old_fd };
	struct stat st;

	/* In spans, as a source asks for them. */
	assert_int_equal(fstat(old_fd, &st), 0);
	for (uint64_t at = 0; at < (uint64_t)st.st_size; at += 2 * BLOCKS_PIECE_BYTES)
		assert_int_equal(blocks_sum(old_fd, at, 2 * BLOCKS_PIECE_BYTES, &sums), 0);
	assert_int_equal(sums.length, ((uint64_t)st.st_size + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_SUM_BYTES);
	assert_int_equal(blocks_compare(fd, &sums, put, &t, NULL), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(ftruncate(old_fd, st.st_size), 0);
	assert_same(fd, old_fd);
	return t;
}

static void test_changes(void **state)
{
	struct fixture *f = *state;
	int old = make_file(f, "old", FILE_BYTES), new = make_file(f, "new", FILE_BYTES);
	struct told t = bring(new, old);

	assert_int_equal(t.runs, 0);
	/* One byte; two blocks that touch, over the end of a piece; one in the last, short block. */
	assert_int_equal(pwrite(new, "x", 1, 3 * BLOCK_BYTES + 17), 1);
	assert_int_equal(pwrite(new, "xyz", 3, BLOCKS_PIECE_BYTES - 1), 3);
	assert_int_equal(pwrite(new, "x", 1, FILE_BYTES - 1), 1);
	t = bring(new, old);
	assert_int_equal(t.runs, 4);
	assert_int_equal(t.bytes, 3 * BLOCK_BYTES + 100);
	close(old);
	close(new);
}

static void test_length(void **state)
{
	struct fixture *f = *state;
	int old = make_file(f, "old", FILE_BYTES), new = make_file(f, "new", FILE_BYTES + 3 * BLOCK_BYTES);
	struct told t = bring(new, old);

	/* From the short block on. */
	assert_int_equal(t.bytes, 3 * BLOCK_BYTES + 100);
	assert_int_equal(ftruncate(new, 2 * BLOCK_BYTES + 1), 0);
	t = bring(new, old);
	assert_int_equal(t.bytes, 1);
	assert_int_equal(ftruncate(new, 0), 0);
	assert_int_equal(bring(new, old).runs, 0);
	assert_int_equal(ftruncate(new, 100), 0);
	assert_int_equal(bring(new, old).bytes, 100);
	close(old);
	close(new);
}

static void test_holes(void **state)
{
	struct fixture *f = *state;
	int old = make_file(f, "old", 100), new = make_file(f, "new", 100);
	struct told t;

	assert_int_equal(ftruncate(old, 16 * BLOCKS_PIECE_BYTES), 0);
	assert_int_equal(ftruncate(new, 16 * BLOCKS_PIECE_BYTES), 0);
	assert_int_equal(pwrite(new, "x", 1, 9 * BLOCKS_PIECE_BYTES + 1), 1);
	/* Zeros that are written are the same as a hole. */
	assert_int_equal(pwrite(new, "\0", 1, 5 * BLOCKS_PIECE_BYTES), 1);
	t = bring(new, old);
	assert_int_equal(t.runs, 1);
	assert_int_equal(t.bytes, BLOCK_BYTES);
	/* What was written has become a hole. */
	assert_int_equal(
		fallocate(new, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 9 * BLOCKS_PIECE_BYTES, BLOCKS_PIECE_BYTES),
		0);
	assert_int_equal(bring(new, old).bytes, BLOCK_BYTES);
	close(old);
	close(new);
}

static int refuse(void *context, uint64_t offset, const void *data, size_t length, struct error *err)
{
	(void)context, (void)offset, (void)data, (void)length;
	return error_set(err, EPIPE, "enough");
}

static void test_stops(void **state)
{
	struct fixture *f = *state;
	struct buffer none = { 0 };
	struct error err = { 0 };
	int fd = make_file(f, "file", FILE_BYTES);

	assert_int_equal(blocks_compare(fd, &none, refuse, NULL, &err), -EPIPE);
	assert_string_equal(err.text, "enough");
	close(fd);
}

static void test_open(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	int fd = make_file(f, "file", 10);

	close(fd);
	fd = blocks_open(f->dir_fd, "file", O_RDWR, &st);
	assert_true(fd >= 0);
	assert_int_equal(st.st_size, 10);
	close(fd);
	assert_int_equal(mkdirat(f->dir_fd, "sub", 0700), 0);
	assert_int_equal(blocks_open(f->dir_fd, "sub", O_RDONLY, &st), -EINVAL);
	assert_int_equal(mkfifoat(f->dir_fd, "fifo", 0600), 0);
	assert_int_equal(blocks_open(f->dir_fd, "fifo", O_RDWR, &st), -EINVAL);
	assert_int_equal(symlinkat("file", f->dir_fd, "link"), 0);
	assert_int_equal(blocks_open(f->dir_fd, "link", O_RDWR, &st), -ELOOP);
	assert_int_equal(symlinkat(".", f->dir_fd, "around"), 0);
	assert_int_equal(blocks_open(f->dir_fd, "around/file", O_RDWR, &st), -ELOOP);
	assert_int_equal(blocks_open(f->dir_fd, "../etc/passwd", O_RDONLY, &st), -EXDEV);
	assert_int_equal(blocks_open(f->dir_fd, "gone", O_RDWR, &st), -ENOENT);
	assert_int_equal(linkat(f->dir_fd, "file", f->dir_fd, "second", 0), 0);
	assert_int_equal(blocks_open(f->dir_fd, "file", O_RDWR, &st), -EINVAL);
}

struct names {
	char text[256];
	uint64_t bytes;
};

static void take_name(void *context, const char *name, uint64_t size)
{
	struct names *n = context;

	snprintf(n->text + strlen(n->text), sizeof(n->text) - strlen(n->text), "%s ", name);
	n->bytes += size;
}

static void test_find(void **state)
{
	static const char *const excludes[] = { "not", NULL };
	struct fixture *f = *state;
	struct sync_tree tree = { .path = f->directory, .excludes = excludes };
	struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	struct names names = { 0 };

	assert_int_equal(mkdirat(f->dir_fd, "sub", 0700), 0);
	assert_int_equal(mkdirat(f->dir_fd, "not", 0700), 0);
	close(make_file(f, "small", BLOCKS_FILE_MIN - 1));
	close(make_file(f, "sub/large", BLOCKS_FILE_MIN));
	close(make_file(f, "not/large", BLOCKS_FILE_MIN));
	close(make_file(f, "old", BLOCKS_FILE_MIN));
	close(make_file(f, "two", BLOCKS_FILE_MIN));
	assert_int_equal(utimensat(f->dir_fd, "old", old, 0), 0);
	assert_int_equal(linkat(f->dir_fd, "two", f->dir_fd, "sub/second", 0), 0);
	assert_int_equal(symlinkat("sub/large", f->dir_fd, "link"), 0);
	blocks_find(&tree, 1001, take_name, &names);
	assert_string_equal(names.text, "sub/large ");
	assert_int_equal(names.bytes, BLOCKS_FILE_MIN);
	tree.excludes = NULL;
	tree.path = "/nowhere";
	blocks_find(&tree, 0, take_name, &names);
	assert_string_equal(names.text, "sub/large ");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(test_changes), TEST(test_length), TEST(test_holes),
					    TEST(test_stops),	TEST(test_open),   TEST(test_find) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
