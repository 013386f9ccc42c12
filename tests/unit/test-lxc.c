/*
 * The LXC driver's pure parts: reading and rewriting configurations, and the spec that one half sends to the other, which the other must not trust.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "driver/lxc-config.h"
#include "driver/lxc-spec.h"

#define TEXT                                                                                                           \
	"# a comment = nothing\n"                                                                                      \
	"lxc.include = /usr/share/lxc/config/common.conf\n"                                                            \
	"  lxc.uts.name=c1  \n"                                                                                        \
	"lxc.rootfs.path = overlay:/srv/base:/var/lib/lxc/c1/delta\n"                                                  \
	"lxc.net.0.link = br0\n"                                                                                       \
	"lxc.net.1.link = br0x\n"                                                                                      \
	"lxc.start.auto = 1\n"                                                                                         \
	"lxc.environment = \"A=1 2\"\n"                                                                                \
	"lxc.uts.name = c2"

static void test_values(void **state)
{
	char value[LXC_VALUE_MAX];

	(void)state;
	assert_true(lxc_config_value(TEXT, "lxc.uts.name", value, sizeof(value)));
	assert_string_equal(value, "c2"); /* the last one counts, without an end of line too */
	assert_true(lxc_config_value(TEXT, "lxc.environment", value, sizeof(value)));
	assert_string_equal(value, "A=1 2");
	assert_false(lxc_config_value(TEXT, "a comment", value, sizeof(value)));
	assert_false(lxc_config_value(TEXT, "lxc.uts", value, sizeof(value)));
	assert_false(lxc_config_value("", "lxc.uts.name", value, sizeof(value)));
	assert_false(lxc_config_value("no equal sign\n\n=\n", "lxc.uts.name", value, sizeof(value)));
}

static void moved(const char *text, const char *from, const char *to, const char *wanted)
{
	_cleanup_buffer_ struct buffer b = { 0 };

	assert_int_equal(lxc_config_move(text, from, to, &b), 0);
	assert_string_equal((char *)b.data, wanted);
}

static void test_move(void **state)
{
	(void)state;
	moved("k = dir:/l/c1/rootfs\n", "/l/c1", "/m/c2", "k = dir:/m/c2/rootfs\n");
	moved("k = overlay:/l/c1/a:/l/c1:/l/c1/b", "/l/c1", "/m", "k = overlay:/m/a:/m:/m/b");
	/* Only whole parts of paths. */
	moved("k = /l/c10/x /x/l/c1 /l/c1-old\n", "/l/c1", "/m", "k = /l/c10/x /x/l/c1 /l/c1-old\n");
	moved("/l/c1", "/l/c1", "/m", "/m");
	moved("", "/l/c1", "/m", "");
}

static void test_relink(void **state)
{
	_cleanup_buffer_ struct buffer b = { 0 };
	char value[LXC_VALUE_MAX];

	(void)state;
	assert_int_equal(lxc_config_relink(TEXT, "br0", "br7", &b), 0);
	assert_true(lxc_config_value((char *)b.data, "lxc.net.0.link", value, sizeof(value)));
	assert_string_equal(value, "br7");
	assert_true(lxc_config_value((char *)b.data, "lxc.net.1.link", value, sizeof(value)));
	assert_string_equal(value, "br0x");
	assert_non_null(strstr((char *)b.data, "# a comment = nothing\n"));
}

static void test_guard(void **state)
{
	static const char *const texts[] = { TEXT, TEXT "\n", "" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		_cleanup_buffer_ struct buffer once = { 0 }, twice = { 0 }, back = { 0 };
		char value[LXC_VALUE_MAX];

		assert_false(lxc_config_guarded(texts[i]));
		assert_int_equal(lxc_config_guard(texts[i], &once), 0);
		assert_true(lxc_config_guarded((char *)once.data));
		assert_true(lxc_config_value((char *)once.data, "lxc.start.auto", value, sizeof(value)));
		assert_string_equal(value, "0");
		assert_int_equal(lxc_config_guard((char *)once.data, &twice), 0);
		assert_string_equal((char *)twice.data, (char *)once.data);
		assert_int_equal(lxc_config_unguard((char *)once.data, &back), 0);
		/* An end of line that was missing stays. */
		assert_int_equal(strncmp((char *)back.data, texts[i], strlen(texts[i])), 0);
		assert_true(strlen((char *)back.data) <= strlen(texts[i]) + 1);
	}
}

static void test_paths(void **state)
{
	static const char *const good[] = { "/a", "/a/b.c", "/var/lib/lxc/c1/..data", "/a/.b" };
	static const char *const bad[] = { "",	   "/",	   "a",	   "/a/",  "//a",  "/a//b", "/..",  "/a/../b", "/a/.",
					   "/./a", "/a b", "/a:b", "/a,b", "/a\n", "/a\"",  "/a#b", "/a\\040" };
	char path[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(lxc_path_valid(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(lxc_path_valid(bad[i]));
	assert_int_equal(lxc_path_move("/l/c1/rootfs", "/l/c1", "/m/c2", path, sizeof(path)), 0);
	assert_string_equal(path, "/m/c2/rootfs");
	assert_int_equal(lxc_path_move("/l/c10", "/l/c1", "/m/c2", path, sizeof(path)), 0);
	assert_string_equal(path, "/l/c10");
	assert_int_equal(lxc_path_move("/l/c1/rootfs", "/l/c1", "/m/c2", path, 8), -ENAMETOOLONG);
}

static void test_names(void **state)
{
	static const char *const bad[] = {
		"",    ".",   "..",  ".a", "-a",
		"a/b", "a b", "a\n", "ü",  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	};

	(void)state;
	assert_true(lxc_name_valid("c1"));
	assert_true(lxc_name_valid("web_1.example-2"));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(lxc_name_valid(bad[i]));
}

#define GOOD                                                                                                           \
	"{\"name\":\"c2\",\"source_name\":\"c1\",\"source_place\":\"/"                                                 \
	"l\",\"moved_name\":\"c1-moved-1\",\"config\":\"a = b\","                                                      \
	"\"rootfs\":\"overlay\",\"layers\":[\"/base\",\"/l/c1/low\",\"/l/c1/delta\"],\"needs\":[\"/"                   \
	"data\"],\"mounts\":[\"srv\"],"                                                                                \
	"\"bridges\":[\"br0\"]}"

static void test_spec(void **state)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 }, again = { 0 };
	_cleanup_free_ char *text = NULL;
	struct error err = { 0 };
	char name[32];

	(void)state;
	assert_int_equal(lxc_spec_decode(GOOD, &s, &err), 0);
	assert_string_equal(s.name, "c2");
	assert_null(s.place);
	assert_int_equal(s.rootfs, LXC_ROOTFS_OVERLAY);
	/* A lower layer elsewhere must be at the target; one of the container's own comes along. */
	assert_null(lxc_spec_tree_name(&s, 0, name));
	assert_string_equal(lxc_spec_tree_name(&s, 1, name), "lower1");
	assert_string_equal(lxc_spec_tree_name(&s, 2, name), "upper");
	assert_int_equal(lxc_spec_encode(&s, &text, &err), 0);
	assert_int_equal(lxc_spec_decode(text, &again, &err), 0);
	assert_int_equal(again.n_layers, 3);
	assert_string_equal(again.mounts[0], "srv");
}

/* One thing in it is made wrong at a time. */
static void test_hostile_spec(void **state)
{
	static const struct {
		const char *old, *new;
	} changes[] = {
		{ "\"c2\"", "\"../c2\"" },
		{ "\"c2\"", "7" },
		{ "\"/l\"", "\"l\"" },
		{ "\"c1\"", "\"c/1\"" },
		{ "\"c1-moved-1\"", "\"\"" },
		{ "\"overlay\"", "\"loop\"" },
		{ "\"overlay\"", "\"dir\"" },
		{ "\"overlay\"", "\"invalid\"" },
		{ "\"/base\"", "\"/base/../etc\"" },
		{ "\"/base\"", "\"/a,b\"" },
		{ "\"/data\"", "\"data\"" },
		{ "\"srv\"", "\"/srv\"" },
		{ "\"srv\"", "\"../srv\"" },
		{ "\"br0\"", "\"../br0\"" },
		{ "\"br0\"", "\"a-name-that-is-too-long\"" },
		{ "[\"/data\"]", "\"/data\"" },
		{ "\"a = b\"", "null" },
		{ "}", "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		const char *at = strstr(GOOD, changes[i].old);
		char text[1024];
		struct lxc_spec s = { 0 };
		struct error err = { 0 };

		assert_non_null(at);
		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - GOOD), GOOD, changes[i].new,
			 at + strlen(changes[i].old));
		assert_int_equal(lxc_spec_decode(text, &s, &err), -EBADMSG);
		assert_non_null(strstr(err.text, "no usable"));
		assert_null(s.name);
	}
	{
		struct lxc_spec s = { 0 };

		assert_int_equal(lxc_spec_decode(NULL, &s, NULL), -EBADMSG);
		assert_int_equal(lxc_spec_decode("[]", &s, NULL), -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values), cmocka_unit_test(test_move),	    cmocka_unit_test(test_relink),
		cmocka_unit_test(test_guard),  cmocka_unit_test(test_paths),	    cmocka_unit_test(test_names),
		cmocka_unit_test(test_spec),   cmocka_unit_test(test_hostile_spec),
	};

	return cmocka_run_group_tests_name("lxc", tests, NULL, NULL);
}
