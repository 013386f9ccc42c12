/*
 * Docker's files as they flow by: archives of images, bundles of containers. Pure functions.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "driver/docker-bundle.h"
#include "driver/docker-tar.h"

#define BLOCK 512

/* -- archives */

struct seen {
	char names[512];
	struct buffer out;
	const char *drop, *read;
};

static enum docker_tar_action judge(void *context, const char *name, uint64_t bytes)
{
	struct seen *s = context;
	size_t n = strlen(s->names);

	snprintf(s->names + n, sizeof(s->names) - n, "%s=%llu ", name, (unsigned long long)bytes);
	if (s->drop && !strcmp(name, s->drop))
		return DOCKER_TAR_DROP;
	if (s->read)
		return strcmp(name, s->read) ? DOCKER_TAR_DROP : DOCKER_TAR_READ;
	return DOCKER_TAR_KEEP;
}

static int keep(void *context, const void *data, size_t length)
{
	struct seen *s = context;

	return length ? buffer_append(&s->out, data, length) : 0;
}

static void add_entry(struct buffer *b, const char *name, char type, const char *content, size_t length)
{
	char header[BLOCK] = { 0 };
	static const char zeros[BLOCK];

	snprintf(header, 100, "%s", name);
	snprintf(header + 124, 12, "%011zo", length);
	header[156] = type;
	memcpy(header + 257,
	       "ustar\0"
	       "00",
	       8);
	assert_int_equal(buffer_append(b, header, BLOCK), 0);
	assert_int_equal(buffer_append(b, content, length), 0);
	assert_int_equal(buffer_append(b, zeros, (BLOCK - length % BLOCK) % BLOCK), 0);
}

static void add_end(struct buffer *b)
{
	static const char zeros[2 * BLOCK];

	assert_int_equal(buffer_append(b, zeros, sizeof(zeros)), 0);
}

/* 0, or what the feeding or the end said. */
static int flow(const struct buffer *b, size_t piece, struct seen *s)
{
	const struct docker_tar_user user = { judge, keep, s };
	struct docker_tar *t = docker_tar_new(&user);
	int r = 0;

	assert_non_null(t);
	for (size_t at = 0; at < b->length && !r; at += piece)
		r = docker_tar_feed(t, b->data + at, b->length - at < piece ? b->length - at : piece);
	if (!r)
		r = docker_tar_finish(t);
	docker_tar_free(t);
	return r;
}

static void make_archive(struct buffer *b)
{
	char content[1300];

	memset(content, 'c', sizeof(content));
	add_entry(b, "dir/", '5', "", 0);
	add_entry(b, "dir/layer.tar", '0', content, sizeof(content));
	add_entry(b, "ignored", 'x', "20 path=a/long/name\n22 mtime=1600000000.5\n", 42);
	add_entry(b, "short", '0', content, BLOCK);
	add_entry(b, "manifest.json", '0', "[{}]", 4);
	add_end(b);
}

static void test_tar_kept(void **state)
{
	(void)state;
	for (size_t piece = 1; piece < 4096; piece = piece * 3 + 1) {
		struct buffer b = { 0 };
		struct seen s = { 0 };

		make_archive(&b);
		assert_int_equal(flow(&b, piece, &s), 0);
		assert_int_equal(s.out.length, b.length - 2 * BLOCK);
		assert_memory_equal(s.out.data, b.data, s.out.length);
		buffer_free(&b);
		buffer_free(&s.out);
	}
}

static void test_tar_dropped(void **state)
{
	struct buffer b = { 0 };
	struct seen s = { .drop = "dir/layer.tar" };

	(void)state;
	make_archive(&b);
	assert_int_equal(flow(&b, 100, &s), 0);
	assert_int_equal(s.out.length, b.length - 2 * BLOCK - BLOCK - 3 * BLOCK);
	buffer_free(&s.out);
	buffer_free(&b);
}

/* A name in an extended header is the entry's, and goes where the entry goes. */
static void test_tar_extended(void **state)
{
	struct buffer b = { 0 };
	struct seen s = { .drop = "a/long/nam" };

	(void)state;
	add_entry(&b, "ignored", 'x', "19 path=a/long/nam\n", 19);
	add_entry(&b, "short", '0', "x", 1);
	add_entry(&b, "ignored", 'L', "gnu/name", 9);
	add_entry(&b, "short", '0', "y", 1);
	add_entry(&b, "last", '0', "z", 1);
	add_end(&b);
	assert_int_equal(flow(&b, 7, &s), 0);
	assert_string_equal(s.names, "a/long/nam=1 gnu/name=1 last=1 ");
	assert_int_equal(s.out.length, 6 * BLOCK);
	buffer_free(&s.out);
	buffer_free(&b);
}

static void test_tar_read(void **state)
{
	struct buffer b = { 0 };
	struct seen s = { .read = "manifest.json" };

	(void)state;
	make_archive(&b);
	assert_int_equal(flow(&b, 1000, &s), 0);
	assert_int_equal(s.out.length, 4);
	assert_memory_equal(s.out.data, "[{}]", 4);
	buffer_free(&s.out);
	buffer_free(&b);
}

static void test_tar_bad(void **state)
{
	struct buffer b = { 0 }, end = { 0 };
	struct seen s = { 0 };

	(void)state;
	make_archive(&b);
	b.length -= 2 * BLOCK; /* cut off where an entry ends */
	assert_int_equal(flow(&b, 1000, &s), -EBADMSG);
	b.data[257] = 'X';
	assert_int_equal(flow(&b, 1000, &s), -EBADMSG);
	b.data[257] = 'u';
	b.data[124] = '9';
	assert_int_equal(flow(&b, 1000, &s), -EBADMSG);
	b.length = 0;
	add_entry(&b, "ignored", 'x', "99 path=a\n", 10);
	add_entry(&b, "short", '0', "x", 1);
	add_end(&b);
	assert_int_equal(flow(&b, 1000, &s), -EBADMSG);
	add_end(&end);
	assert_int_equal(flow(&end, 3, &s), 0);
	buffer_free(&s.out);
	buffer_free(&b);
	buffer_free(&end);
}

/* -- bundles */

#define HOOK "{\"path\":\"/proc/12/exe\",\"args\":[\"libnetwork-setkey\",\"-exec-root=/run/docker\",\"abc\",\"def\"]}"
#define OTHER "{\"path\":\"/bin/other\"}"
#define SPACES "\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"network\"},{\"type\":\"uts\"}]"
#define FILLED                                                                                                         \
	"\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"network\",\"path\":\"/run/netns/x\"},{\"type\":\"uts\"}]"
#define LIMIT "\"rlimits\":[{\"hard\":18446744073709551615}]"

static void test_bundle(void **state)
{
	static const struct {
		const char *before, *after; /* NULL: refused */
	} cases[] = {
		{ "{" LIMIT ",\"hooks\":{\"prestart\":[" HOOK "]},\"linux\":{" SPACES "}}",
		  "{" LIMIT ",\"hooks\":{\"prestart\":[]},\"linux\":{" FILLED "}}" },
		{ "{\"linux\":{" SPACES "},\"hooks\":{\"prestart\":[" OTHER "," HOOK "]}}",
		  "{\"linux\":{" FILLED "},\"hooks\":{\"prestart\":[" OTHER "]}}" },
		{ "{\"hooks\":{\"prestart\":[" HOOK "," OTHER "]},\"linux\":{" SPACES "}}",
		  "{\"hooks\":{\"prestart\":[" OTHER "]},\"linux\":{" FILLED "}}" },
		{ "{\"hooks\":{\"prestart\":[" OTHER "]},\"linux\":{" SPACES "}}", NULL },
		{ "{\"hooks\":{\"prestart\":[" HOOK "]},\"linux\":{" FILLED "}}", NULL },
		{ "{\"linux\":{" SPACES "}}", NULL },
		{ "", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buffer out = { 0 };
		struct error err = { 0 };
		json_t *hook = NULL;
		int r = docker_bundle_edit(cases[i].before, strlen(cases[i].before), "/run/netns/x", &out, &hook, &err);

		assert_int_equal(r, cases[i].after ? 0 : -ENOENT);
		if (cases[i].after) {
			assert_int_equal(out.length, strlen(cases[i].after));
			assert_memory_equal(out.data, cases[i].after, out.length);
			assert_int_equal(json_array_size(hook), 5);
			assert_string_equal(json_string_value(json_array_get(hook, 0)), "/proc/12/exe");
			assert_string_equal(json_string_value(json_array_get(hook, 1)), "libnetwork-setkey");
		}
		json_decref(hook);
		buffer_free(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tar_kept),     cmocka_unit_test(test_tar_dropped),
		cmocka_unit_test(test_tar_extended), cmocka_unit_test(test_tar_read),
		cmocka_unit_test(test_tar_bad),	     cmocka_unit_test(test_bundle),
	};

	return cmocka_run_group_tests_name("docker-files", tests, NULL, NULL);
}
