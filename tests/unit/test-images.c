/*
 * Unit tests of CRIU's images on their way: a directory sent over a real channel and taken down by the other end, with
 * references into a real store; and what a sink must refuse.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/fd.h"
#include "migration/images.h"

#define PAGES 600 /* more than one chunk of data holds */
#define SPACE 3
#define BASE 0x7f0000000000ULL

struct world {
	char directory[64], from[96], to[96];
	struct store *store;
	struct dedup_index *dedup;
	struct session source, target;
	struct image_sink sink;
	/* of the taking thread */
	int result;
	struct error err;
};

static void fill_page(uint8_t *page, uint64_t tag)
{
	for (size_t i = 0; i < PAGE_BYTES / 8; i++)
		((uint64_t *)(void *)page)[i] = (tag + 1) * 0x9e3779b97f4a7c15ULL + i;
}

static int world_setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	int fds[2];

	strcpy(w->directory, "/tmp/phaul-images.XXXXXX");
	assert_non_null(mkdtemp(w->directory));
	snprintf(w->from, sizeof(w->from), "%s/from", w->directory);
	snprintf(w->to, sizeof(w->to), "%s/to", w->directory);
	assert_int_equal(mkdir(w->from, 0700) | mkdir(w->to, 0700), 0);
	assert_int_equal(store_new(0, &w->store, NULL), 0);
	assert_int_equal(dedup_new(&w->dedup, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(channel_new_plain(fds[0], fds[0], "beta", &w->source.control, NULL), 0);
	assert_int_equal(channel_new_plain(fds[1], fds[1], "alpha", &w->target.control, NULL), 0);
	assert_int_equal(image_sink_open(w->to, w->store, &w->sink, NULL), 0);
	*state = w;
	return 0;
}

static int world_teardown(void **state)
{
	struct world *w = *state;

	image_sink_close(&w->sink);
	session_free(&w->source);
	session_free(&w->target);
	dedup_free(w->dedup);
	store_free(w->store);
	dir_remove(w->directory);
	free(w);
	return 0;
}

static void save(const struct world *w, const char *name, const void *data, size_t length)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", w->from, name);
	assert_int_equal(fd_write_file(AT_FDCWD, path, data, length, 0600), 0);
}

static void assert_same(const struct world *w, const char *name)
{
	_cleanup_buffer_ struct buffer from = { 0 }, to = { 0 };
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", w->from, name);
	assert_int_equal(fd_read_file(AT_FDCWD, path, 64 << 20, &from), 0);
	snprintf(path, sizeof(path), "%s/%s", w->to, name);
	assert_int_equal(fd_read_file(AT_FDCWD, path, 64 << 20, &to), 0);
	assert_int_equal(to.length, from.length);
	assert_memory_equal(to.data, from.data, from.length);
}

/* Page `tag` is at the target; the source knows it by the content of page `believed`. */
static void hold_page(struct world *w, uint64_t tag, uint64_t believed)
{
	uint8_t page[PAGE_BYTES] __attribute__((aligned(64)));
	uint64_t address = BASE + tag * PAGE_BYTES;
	struct page_hash hash;

	fill_page(page, tag);
	assert_int_equal(store_put(w->store, SPACE, address, 1, ENCODING_RAW, page, PAGE_BYTES, NULL), 0);
	fill_page(page, believed);
	hash = page_hash_of(page);
	assert_int_equal(dedup_note(w->dedup, SPACE, address, &hash), 0);
}

static void *take_main(void *arg)
{
	struct world *w = arg;
	struct frame_header h;

	for (;;) {
		w->result = session_read_frame(&w->target, &h, &w->err);
		if (w->result == -ECONNRESET) {
			w->result = 0; /* that was all */
			return NULL;
		}
		if (!w->result)
			w->result = image_sink_take(&w->sink, &h, w->target.body.data, &w->err);
		if (w->result < 0) {
			channel_shutdown(w->target.control);
			return NULL;
		}
	}
}

/* Sends all and takes it down; the taker's result is in w. */
static void send_all(struct world *w, struct image_counters *counters)
{
	struct error err = { 0 };
	pthread_t taker;
	int r;

	assert_int_equal(pthread_create(&taker, NULL, take_main, w), 0);
	r = images_send(&w->source, w->from, false, w->dedup, counters, &err);
	if (!r)
		r = images_send(&w->source, w->from, true, w->dedup, counters, &err);
	(void)channel_finish(w->source.control, NULL);
	pthread_join(taker, NULL);
	if (r < 0 && !w->result)
		fail_msg("%s", err.text);
}

static void test_directory(void **state)
{
	struct world *w = *state;
	_cleanup_free_ uint8_t *pages = malloc(PAGES * PAGE_BYTES + 100);
	struct image_counters counters = { 0 };
	struct error err = { 0 };

	for (uint64_t i = 0; i < PAGES; i++)
		fill_page(pages + i * PAGE_BYTES, i);
	memset(pages + PAGES * PAGE_BYTES, 0x77, 100);
	/* Runs of all kinds: the first and the last page, every third for a while, a long run. */
	for (uint64_t i = 0; i < PAGES; i++)
		if (i == 0 || i == PAGES - 1 || (i < 60 && i % 3 == 0) || (i > 400 && i < 580))
			hold_page(w, i, i);
	save(w, "pages-1.img", pages, PAGES * PAGE_BYTES + 100);
	save(w, "pages-2.img", pages, 0);
	save(w, "pages-3.img", pages, PAGE_BYTES - 1);
	save(w, "core-1.img", pages, 3000000 % (PAGES * PAGE_BYTES));
	save(w, "inventory.img", "CRIU", 4);
	/* As much as leaves together, a byte more, and a frame that does not fit in with others. */
	save(w, "files.img", pages, 16384);
	save(w, "mm-1.img", pages, 16385);
	save(w, "fs-1.img", pages, 65500);
	save(w, "empty.img", "", 0);
	save(w, ".hidden", "x", 1);
	send_all(w, &counters);
	if (w->result < 0)
		fail_msg("%s", w->err.text);
	assert_int_equal(counters.files, 9);
	assert_int_equal(counters.pages_referenced, 1 + 19 + 179 + 1);
	assert_int_equal(counters.pages_referenced + counters.pages_sent, PAGES);
	if (image_sink_finish(&w->sink, counters.files, &err) < 0)
		fail_msg("%s", err.text);
	assert_same(w, "pages-1.img");
	assert_same(w, "pages-2.img");
	assert_same(w, "pages-3.img");
	assert_same(w, "core-1.img");
	assert_same(w, "inventory.img");
	assert_same(w, "empty.img");
	assert_same(w, "files.img");
	assert_same(w, "mm-1.img");
	assert_same(w, "fs-1.img");
	/* Far less went over the wire than the files are long. */
	assert_true(channel_bytes_out(w->source.control) < counters.bytes - 190 * PAGE_BYTES);
	assert_int_equal(image_sink_finish(&w->sink, counters.files + 1, &err), -EPROTO);
}

/* The target holds something else than the source believes: noticed at once. */
static void test_false_reference(void **state)
{
	struct world *w = *state;
	_cleanup_free_ uint8_t *pages = malloc(4 * PAGE_BYTES);
	struct image_counters counters = { 0 };

	for (uint64_t i = 0; i < 4; i++)
		fill_page(pages + i * PAGE_BYTES, i);
	hold_page(w, 0, 0);
	hold_page(w, 7, 2); /* at the place of 7, with the bytes of 7, but known as 2 */
	save(w, "pages-1.img", pages, 4 * PAGE_BYTES);
	send_all(w, &counters);
	assert_int_equal(w->result, -EBADMSG);
	assert_non_null(strstr(w->err.text, "not what the source believes"));
}

/* One frame given to a sink. */
static int take(struct world *w, enum frame_type type, uint64_t fixed, const void *data, size_t length,
		struct error *err)
{
	_cleanup_free_ uint8_t *body = malloc(FRAME_OFFSET_BYTES + length);
	struct frame_header h = { type, (uint32_t)(FRAME_OFFSET_BYTES + length) };

	frame_encode_u64(body, fixed);
	memcpy(body + FRAME_OFFSET_BYTES, data, length);
	return image_sink_take(&w->sink, &h, body, err);
}

static int begin(struct world *w, const char *name, uint64_t size, struct error *err)
{
	return take(w, FRAME_IMAGE_BEGIN, size, name, strlen(name), err);
}

static void test_hostile_names(void **state)
{
	static const char *const names[] = { "../escaped", "/tmp/phaul-escaped", ".", "..", ".x", "a/b", "a\\b", "" };
	struct world *w = *state;
	struct error err = { 0 };
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_int_equal(begin(w, names[i], 1, &err), -EPROTO);
	/* What is there already, link or file, is neither followed nor replaced. */
	snprintf(path, sizeof(path), "%s/link.img", w->to);
	assert_int_equal(symlink("/tmp/phaul-escaped", path), 0);
	assert_int_equal(begin(w, "link.img", 1, &err), -EEXIST);
	assert_int_equal(access("/tmp/phaul-escaped", F_OK), -1);
	assert_int_equal(begin(w, "twice.img", 0, &err), 0);
	assert_int_equal(begin(w, "twice.img", 0, &err), -EEXIST);
}

static void test_pieces(void **state)
{
	static const uint8_t page[PAGE_BYTES];
	struct world *w = *state;
	struct error err = { 0 };

	/* before any name */
	assert_int_equal(take(w, FRAME_IMAGE_DATA, 0, "x", 1, &err), -EPROTO);
	/* beyond the end, by a byte and by the whole */
	assert_int_equal(begin(w, "beyond.img", 4, &err), 0);
	assert_int_equal(take(w, FRAME_IMAGE_DATA, 0, "12345", 5, &err), -EPROTO);
	assert_int_equal(take(w, FRAME_IMAGE_DATA, UINT64_MAX, "1", 1, &err), -EPROTO);
	assert_int_equal(take(w, FRAME_IMAGE_DATA, 0, "1234", 4, &err), 0);
	assert_int_equal(take(w, FRAME_IMAGE_DATA, 4, "5", 1, &err), -EPROTO);
	/* missing: at the next file, and at the end */
	assert_int_equal(begin(w, "missing.img", 4, &err), 0);
	assert_int_equal(take(w, FRAME_IMAGE_DATA, 0, "123", 3, &err), 0);
	assert_int_equal(begin(w, "next.img", 4, &err), -EPROTO);
	assert_non_null(strstr(err.text, "3 of 4 bytes of the image missing.img"));
	assert_int_equal(begin(w, "last.img", 4, &err), 0);
	assert_int_equal(image_sink_finish(&w->sink, 3, &err), -EPROTO);
	/* larger than any image */
	assert_int_equal(begin(w, "huge.img", FRAME_IMAGE_MAX + 1, &err), -EPROTO);
	assert_int_equal(take(w, FRAME_IMAGE_DATA, 0, page, sizeof(page), &err), -EPROTO);
}

/* The file system of the images is the host's: a peer fills neither it nor its table of files. */
static void test_room(void **state)
{
	static const uint8_t page[PAGE_BYTES];
	struct world *w = *state;
	struct error err = { 0 };
	char name[32];
	int r = 0, files = 0;

	assert_true(w->sink.room > 0);
	w->sink.room = 8 * PAGE_BYTES;
	assert_int_equal(begin(w, "large.img", 100 * PAGE_BYTES, &err), 0);
	for (uint64_t at = 0; !r && at < 100 * PAGE_BYTES; at += PAGE_BYTES)
		r = take(w, FRAME_IMAGE_DATA, at, page, sizeof(page), &err);
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(w->sink.received, 7 * PAGE_BYTES);
	w->sink.received = w->sink.size;
	w->sink.room = 8 * PAGE_BYTES;
	for (r = 0; !r && files < 100; files += !r) {
		snprintf(name, sizeof(name), "empty-%d.img", files);
		r = begin(w, name, 0, &err);
	}
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(files, 8);
}

/* As many bytes as the file is long, but twice at one place and never at another. */
static void test_overlapping(void **state)
{
	static const uint8_t page[PAGE_BYTES] = { 1 };
	struct world *w = *state;
	struct error err = { 0 };
	int r;

	assert_int_equal(begin(w, "holes.img", 2 * PAGE_BYTES, &err), 0);
	assert_int_equal(take(w, FRAME_IMAGE_DATA, 0, page, sizeof(page), &err), 0);
	r = take(w, FRAME_IMAGE_DATA, 0, page, sizeof(page), &err);
	if (!r)
		r = image_sink_finish(&w->sink, 1, &err);
	assert_int_equal(r, -EPROTO);
}

static void test_references(void **state)
{
	struct world *w = *state;
	struct frame_reference good = { .address = BASE, .space = SPACE }, r;
	uint8_t page[PAGE_BYTES] __attribute__((aligned(64))), wire[FRAME_REFERENCE_BYTES];
	struct error err = { 0 };
	struct page_hash hash;

	hold_page(w, 0, 0);
	fill_page(page, 0);
	hash = page_hash_of(page);
	good.low = hash.low;
	good.high = hash.high;
	assert_int_equal(begin(w, "pages-1.img", PAGE_BYTES, &err), 0);
	for (int i = 0; i < 4; i++) {
		static const int expected[] = { -ENOENT, -ENOENT, -EBADMSG, -EBADMSG };
		int got;

		r = good;
		r.address += i == 0 ? PAGE_BYTES : 0; /* never received */
		r.space += i == 1;		      /* no such space */
		r.low ^= i == 2;
		r.high ^= i == 3;
		frame_encode_reference(wire, &r);
		got = take(w, FRAME_IMAGE_REFERENCES, 0, wire, sizeof(wire), &err);
		if (got != expected[i])
			fail_msg("reference %d: %d %s", i, got, err.text);
	}
	frame_encode_reference(wire, &good);
	assert_int_equal(take(w, FRAME_IMAGE_REFERENCES, PAGE_BYTES, wire, sizeof(wire), &err), -EPROTO);
	assert_int_equal(take(w, FRAME_IMAGE_REFERENCES, 0, wire, sizeof(wire), &err), 0);
	assert_int_equal(image_sink_finish(&w->sink, 1, &err), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_directory),  TEST(test_false_reference), TEST(test_hostile_names),
		TEST(test_pieces),     TEST(test_overlapping),	   TEST(test_room),
		TEST(test_references),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
