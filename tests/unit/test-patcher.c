/*
 * Unit tests of migration/patcher.c, which takes large files in block by block: a source over a socket pair, two directories, a small tmpfs.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "fs/blocks.h"
#include "migration/patcher.h"
#include "migration/session.h"

#define PATIENCE_MS 20000
#define KIND(name) PHAUL__WIRE__CONTROL__KIND_##name

struct world {
	char top[64], tree[80];
	struct session source;
	struct patcher *patcher;
};

static const char *tree_path(const void *context, uint32_t i, struct error *err)
{
	const struct world *w = context;

	if (i == 1)
		return w->tree;
	error_set(err, EPROTO, "there is no tree %u", i);
	return NULL;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct channel *target;
	int fds[2];

	strcpy(w->top, "/tmp/phaul-patcher.XXXXXX");
	assert_non_null(mkdtemp(w->top));
	snprintf(w->tree, sizeof(w->tree), "%s/tree", w->top);
	assert_int_equal(mkdir(w->tree, 0700), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(channel_new_plain(fds[0], fds[0], "beta", &w->source.control, NULL), 0);
	assert_int_equal(channel_new_plain(fds[1], fds[1], "alpha", &target, NULL), 0);
	channel_set_timeout(w->source.control, PATIENCE_MS);
	assert_int_equal(patcher_new(target, tree_path, w, &w->patcher, NULL), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	patcher_free(w->patcher);
	session_free(&w->source);
	assert_int_equal(dir_remove(w->top), 0);
	free(w);
	return 0;
}

static const char *in_tree(const struct world *w, const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", w->tree, name);
	return path;
}

static void make_file(const struct world *w, const char *name, size_t length)
{
	_cleanup_free_ char *data = malloc(length);

	memset(data, 'o', length);
	assert_int_equal(fd_write_file(AT_FDCWD, in_tree(w, name), data, length, 0640), 0);
}

static ProtobufCBinaryData bytes_of(const char *text)
{
	return (ProtobufCBinaryData){ .len = strlen(text), .data = (uint8_t *)text };
}

static Phaul__Wire__Control *ask(struct world *w, uint32_t tree, const char *name, struct error *err)
{
	Phaul__Wire__Sums sums = PHAUL__WIRE__SUMS__INIT;
	CONTROL_OF(request, sums, SUMS, &sums);
	Phaul__Wire__Control *reply = NULL;

	sums.path = tree;
	sums.name = bytes_of(name);
	sums.length = 4 * BLOCK_BYTES;
	return session_call(&w->source, &request, KIND(SUMS_REPLY), &reply, err) < 0 ? NULL : reply;
}

static void patch(struct world *w, const char *name, uint64_t offset, const char *text)
{
	Phaul__Wire__Patch part = PHAUL__WIRE__PATCH__INIT;
	CONTROL_OF(message, patch, PATCH, &part);

	part.path = 1;
	part.name = bytes_of(name);
	part.offset = offset;
	part.data = bytes_of(text);
	assert_int_equal(session_send(&w->source, &message, NULL), 0);
}

static void patch_end(struct world *w, const char *name, uint64_t size)
{
	Phaul__Wire__PatchEnd part = PHAUL__WIRE__PATCH_END__INIT;
	CONTROL_OF(message, patch_end, PATCH_END, &part);

	part.path = 1;
	part.name = bytes_of(name);
	part.size = size;
	part.mtime_s = 1234567890;
	part.mtime_ns = 987654321;
	assert_int_equal(session_send(&w->source, &message, NULL), 0);
}

static int ping(struct world *w, struct error *err)
{
	Phaul__Wire__Ping part = PHAUL__WIRE__PING__INIT;
	CONTROL_OF(request, ping, PING, &part);

	return session_call(&w->source, &request, KIND(PING), NULL, err);
}

static void test_patch(void **state)
{
	struct world *w = *state;
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	_cleanup_buffer_ struct buffer content = { 0 }, sums = { 0 };
	_cleanup_close_ int fd = -1;
	struct stat st;

	make_file(w, "base", 3 * BLOCK_BYTES + 5);
	reply = ask(w, 1, "base", NULL);
	assert_non_null(reply);
	assert_true(reply->sums_reply->patchable);
	assert_int_equal(reply->sums_reply->size, 3 * BLOCK_BYTES + 5);
	assert_int_equal(stat(in_tree(w, "base"), &st), 0);
	assert_int_equal(reply->sums_reply->mtime_s, st.st_mtim.tv_sec);
	assert_int_equal(reply->sums_reply->mtime_ns, st.st_mtim.tv_nsec);
	fd = open(in_tree(w, "base"), O_RDONLY | O_CLOEXEC);
	assert_int_equal(blocks_sum(fd, 0, 4 * BLOCK_BYTES, &sums), 0);
	assert_int_equal(reply->sums_reply->sums.len, sums.length);
	assert_memory_equal(reply->sums_reply->sums.data, sums.data, sums.length);

	patch(w, "base", BLOCK_BYTES, "new");
	patch(w, "base", 2 * BLOCK_BYTES, "also");
	patch_end(w, "base", 2 * BLOCK_BYTES + 4);
	assert_int_equal(ping(w, NULL), 0);
	assert_int_equal(stat(in_tree(w, "base"), &st), 0);
	assert_int_equal(st.st_size, 2 * BLOCK_BYTES + 4);
	assert_int_equal(st.st_mtim.tv_sec, 1234567890);
	assert_int_equal(st.st_mtim.tv_nsec, 987654321);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(fd_read_file(AT_FDCWD, in_tree(w, "base"), 1 << 20, &content), 0);
	assert_memory_equal(content.data, "ooo", 3);
	assert_memory_equal(content.data + BLOCK_BYTES, "newooo", 6);
	assert_memory_equal(content.data + 2 * BLOCK_BYTES, "also", 4);
}

/* Said to be none, and the next question is answered all the same. */
static void test_not_patchable(void **state)
{
	static const char *const names[] = { "one", "two", "link", "gone", "out/passwd" };
	struct world *w = *state;
	char two[256];

	make_file(w, "one", 10);
	snprintf(two, sizeof(two), "%s", in_tree(w, "two"));
	assert_int_equal(link(in_tree(w, "one"), two), 0);
	make_file(w, "file", 10);
	assert_int_equal(symlink("file", in_tree(w, "link")), 0);
	assert_int_equal(symlink("/etc", in_tree(w, "out")), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_message_ Phaul__Wire__Control *reply = ask(w, 1, names[i], NULL);

		assert_non_null(reply);
		if (reply->sums_reply->patchable)
			fail_msg("%s is said to be patchable", names[i]);
	}
}

/* The tree itself has become a link: nothing outside is written. */
static void test_tree_is_a_link(void **state)
{
	struct world *w = *state;
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	char other[80];

	snprintf(other, sizeof(other), "%s/other", w->top);
	assert_int_equal(rename(w->tree, other), 0);
	assert_int_equal(symlink(other, w->tree), 0);
	make_file(w, "file", 10);
	reply = ask(w, 1, "file", NULL);
	assert_non_null(reply);
	assert_false(reply->sums_reply->patchable);
}

static void test_no_such_tree(void **state)
{
	struct world *w = *state;
	struct error err = { 0 };

	assert_null(ask(w, 2, "file", &err));
	assert_string_equal(err.text, "there is no tree 2");
	/* It has said its last word. */
	assert_int_equal(session_send_ready(&w->source, NULL), 0);
}

static void test_unknown_file(void **state)
{
	struct world *w = *state;
	struct error err = { 0 };

	patch(w, "gone", 0, "text");
	assert_int_equal(ping(w, &err), -ESTALE);
	assert_non_null(strstr(err.text, "the file gone cannot be patched"));
	assert_int_equal(access(in_tree(w, "gone"), F_OK), -1);
}

static void test_not_due(void **state)
{
	struct world *w = *state;
	struct error err = { 0 };

	assert_int_equal(session_send_ready(&w->source, NULL), 0);
	assert_int_equal(ping(w, &err), -EPROTO);
	assert_non_null(strstr(err.text, "sent ready on the channel of large files"));
}

/* A file that was not finished keeps no time stamp that rsync would believe. */
static void test_full(void **state)
{
	struct world *w = *state;
	struct error err = { 0 };
	_cleanup_free_ char *text = malloc((128U << 10) + 1);
	struct stat st;

	assert_int_equal(mount("tmpfs", w->tree, "tmpfs", 0, "size=64k"), 0);
	make_file(w, "file", 10);
	memset(text, 'x', 128U << 10);
	text[128U << 10] = 0;
	patch(w, "file", 0, text);
	patch_end(w, "file", 128U << 10);
	assert_int_equal(ping(w, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "cannot write to file at the target"));
	assert_int_equal(stat(in_tree(w, "file"), &st), 0);
	assert_int_not_equal(st.st_mtim.tv_sec, 1234567890);
	patcher_free(TAKE_PTR(w->patcher)); /* the file is open */
	assert_int_equal(umount(w->tree), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_patch),	 TEST(test_not_patchable), TEST(test_tree_is_a_link), TEST(test_no_such_tree),
		TEST(test_unknown_file), TEST(test_not_due),	   TEST(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
