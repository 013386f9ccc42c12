/*
 * cli/: the option table, text from outside, and what is printed for events and results.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/clock.h"
#include "cli/live.h"
#include "cli/options.h"
#include "cli/plain.h"
#include "cli/report.h"
#include "cli/status.h"
#include "cli/text.h"

struct settings {
	struct log_options log;
	uint64_t number;
	const char *text;
	const char *list[3];
	bool set, clear;
};

#define AT(member) offsetof(struct settings, member)

static const struct option_entry entries[] = {
	{ "number", 'n', OPTION_NUMBER, "N", AT(number), 1, 9, "a number" },
	{ "text", 0, OPTION_TEXT, "T", AT(text), 0, 0, "a text" },
	{ "list", 0, OPTION_LIST, "L", AT(list), 0, 2, "twice at most" },
	{ "set", 's', OPTION_SET, NULL, AT(set), 0, 0, "set" },
	{ "no-clear", 0, OPTION_CLEAR, NULL, AT(clear), 0, 0, "clear" },
	LOG_OPTIONS(struct settings),
	{ .kind = OPTION_END },
};

static const struct option_table table = { "verb", "TYPE [ID]", "A verb.\n", entries };

#define PARSE(settings, positional, err, ...)                                                                          \
	({                                                                                                             \
		char *argv_[] = { (char *)"verb", __VA_ARGS__, NULL };                                                 \
		options_parse(&table, (int)ARRAY_SIZE(argv_) - 1, argv_, settings, positional, err);                   \
	})

static void test_options_take(void **state)
{
	struct settings s = { .clear = true };
	const char *positional[POSITIONAL_MAX];
	struct error err = { 0 };

	(void)state;
	assert_int_equal(PARSE(&s, positional, &err, "-n", "3", "type", "--text=x", "-sv", "--list", "a", "id",
			       "--list", "b", "--no-clear", "-vq"),
			 OPTIONS_GO);
	assert_int_equal(s.number, 3);
	assert_string_equal(s.text, "x");
	assert_string_equal(s.list[0], "a");
	assert_string_equal(s.list[1], "b");
	assert_null(s.list[2]);
	assert_true(s.set && !s.clear && s.log.quiet);
	assert_int_equal(s.log.verbose, 2);
	assert_string_equal(positional[0], "type");
	assert_string_equal(positional[1], "id");
}

static void test_options_may_be_left_out(void **state)
{
	struct settings s = { .number = 7 };
	const char *positional[POSITIONAL_MAX];

	(void)state;
	assert_int_equal(PARSE(&s, positional, NULL, "--", "--number"), OPTIONS_GO);
	assert_int_equal(s.number, 7);
	assert_string_equal(positional[0], "--number");
	assert_null(positional[1]);
}

static void test_options_refuse(void **state)
{
	static const struct {
		const char *argument[4];
		const char *sentence;
	} cases[] = {
		{ { "t", "--number", "10" },
		  "verb: --number: '10' is not a whole number from 1 to 9 (phaul verb --help)" },
		{ { "t", "--number" }, "verb: --number needs an argument: N (phaul verb --help)" },
		{ { "t", "-n" }, "verb: --number needs an argument: N (phaul verb --help)" },
		{ { "t", "--set=1" }, "verb: --set takes no argument (phaul verb --help)" },
		{ { "t", "--help=1" }, "verb: --help takes no argument (phaul verb --help)" },
		{ { "t", "--bogus" },
		  "verb: there is no option --bogus, or more than one that begins so (phaul verb --help)" },
		{ { "t", "-Z" }, "verb: there is no option -Z (phaul verb --help)" },
		{ { "t", "--text=" }, "verb: --text needs a T that is not empty (phaul verb --help)" },
		{ { "t", "--list=1", "--list=2", "--list=3" },
		  "verb: --list may be given at most 2 times (phaul verb --help)" },
		{ { "-s" }, "verb: it needs TYPE [ID] (phaul verb --help)" },
		{ { "t", "i", "more" }, "verb: 'more' is too much (phaul verb --help)" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *argv[6] = { (char *)"verb" };
		const char *positional[POSITIONAL_MAX];
		struct settings s = { 0 };
		struct error err = { 0 };
		int argc = 1;

		for (; argc < 5 && cases[i].argument[argc - 1]; argc++)
			argv[argc] = (char *)cases[i].argument[argc - 1];
		assert_int_equal(options_parse(&table, argc, argv, &s, positional, &err), -EINVAL);
		assert_string_equal(err.text, cases[i].sentence);
	}
}

static void test_text_clean(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "plain", "plain" },
		{ "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f" },
		{ "\xf0\x9f\x9a\x80", "\xf0\x9f\x9a\x80" },
		{ "a\nb\x1b[31m\x7f", "a?b?[31m?" },
		{ "\xc2\x9b"
		  "31m",
		  "?31m" }, /* C1: an escape sequence in disguise */
		{ "\xff", "\xef\xbf\xbd" },
		{ "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" },				    /* overlong */
		{ "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },		    /* a surrogate */
		{ "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" }, /* above U+10FFFF */
		{ "\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd" },				    /* cut */
	};
	char out[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(text_clean(cases[i].in, out, sizeof(out)), cases[i].out);
	assert_string_equal(text_clean("abc\xc3\xbc", out, 5), "abc"); /* no half character */
	assert_string_equal(text_clean("abc", out, 1), "");
}

static void test_text_quantities(void **state)
{
	char out[TEXT_QUANTITY_MAX];

	(void)state;
	assert_string_equal(text_bytes(0, out), "0 bytes");
	assert_string_equal(text_bytes(999, out), "999 bytes");
	assert_string_equal(text_bytes(4096, out), "4.0 KiB");
	assert_string_equal(text_bytes(512ULL << 20, out), "512 MiB");
	assert_string_equal(text_bytes(UINT64_MAX, out), "16 EiB");
	assert_string_equal(text_duration(0, out), "0.0 ms");
	assert_string_equal(text_duration(41600000, out), "41 ms");
	assert_string_equal(text_duration(2340000000, out), "2.3 s");
	assert_string_equal(text_duration(72 * NS_PER_S, out), "1 min 12 s");
}

/* Parses one line back; the test fails where it is no JSON object on one line. */
static json_t *parse_line(const struct buffer *b)
{
	json_t *object;

	assert_true(b->length > 1);
	assert_ptr_equal(memchr(b->data, '\n', b->length), b->data + b->length - 1);
	object = json_loadb((const char *)b->data, b->length, 0, NULL);
	assert_true(json_is_object(object));
	return object;
}

static void assert_text(const json_t *object, const char *key, const char *text)
{
	assert_true(json_is_string(json_object_get(object, key)));
	assert_string_equal(json_string_value(json_object_get(object, key)), text);
}

static void test_report_events(void **state)
{
	struct migration_event events[] = {
		{ .kind = EVENT_PHASE, .phase = "copy" },
		{ .kind = EVENT_OBSTACLE,
		  .obstacle = { OBSTACLE_REFUSES, true,
				"a\xff"
				"b\n",
				"" } },
		{ .kind = EVENT_PROGRESS, .progress = { 2, 3, 4, 5, 6, 7000000 } },
		{ .kind = EVENT_ITERATION,
		  .round = 2,
		  .iteration = { .pages = 10, .pages_zero = 1, .bytes = 4096, .ns = 1500000, .dirty_pages = 3 } },
		{ .kind = EVENT_SYNC, .path = "/srv", .ns = 1000000 },
	};
	static const char *const names[] = { "phase", "obstacle", "progress", "iteration", "sync" };
	struct migration_event none = { 0 };
	struct buffer nothing = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		_cleanup_buffer_ struct buffer b = { 0 };
		json_t *object;

		assert_int_equal(report_event(&events[i], &b), 0);
		object = parse_line(&b);
		assert_text(object, "event", names[i]);
		if (events[i].kind == EVENT_OBSTACLE) {
			assert_text(object, "what",
				    "a\xef\xbf\xbd"
				    "b?");
			assert_text(object, "kind", "refuses");
			assert_text(object, "at", "target");
		}
		if (events[i].kind == EVENT_ITERATION) {
			assert_true(json_number_value(json_object_get(object, "ms")) == 1.5);
			assert_int_equal(json_integer_value(json_object_get(object, "dirty_pages")), 3);
		}
		json_decref(object);
	}
	assert_int_equal(report_event(&none, &nothing), 0);
	assert_int_equal(nothing.length, 0);
}

static void test_report_result(void **state)
{
	static const char *const numbers[] = { "total_ms",   "frozen_ms",  "bytes_wire",
					       "pages_sent", "pages_zero", "pages_total" };
	static const char *const strings[] = { "id", "outcome", "reason", "engine", "target" };
	static struct migration_result r = { .outcome = OUTCOME_REFUSED,
					     .reason = "no\x80"
						       "where",
					     .total_ns = 2500000,
					     .phases = { { "copy", 1000000 }, { "freeze", 2000000 } },
					     .n_phases = 2,
					     .iterations = { { .pages = 7 }, { .pages = 2 } },
					     .n_iterations = 2,
					     .target = "beta" };
	_cleanup_buffer_ struct buffer b = { 0 };
	json_t *object;

	(void)state;
	assert_int_equal(report_result(&r, &b), 0);
	object = parse_line(&b);
	assert_text(object, "event", "result");
	assert_text(object, "outcome", "aborted");
	assert_text(object, "reason", "no\xef\xbf\xbdwhere");
	assert_true(json_is_true(json_object_get(object, "refused")));
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		assert_true(json_is_number(json_object_get(object, numbers[i])));
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
		assert_true(json_is_string(json_object_get(object, strings[i])));
	assert_true(json_number_value(json_object_get(object, "total_ms")) == 2.5);
	assert_true(json_number_value(json_object_get(json_object_get(object, "phases"), "freeze")) == 2);
	assert_int_equal(json_array_size(json_object_get(object, "iterations")), 2);
	json_decref(object);
}

/* All of a buffer as one string. */
static const char *text_of(struct buffer *b)
{
	assert_int_equal(buffer_append(b, "", 1), 0);
	return (const char *)b->data;
}

static void test_plain_failures(void **state)
{
	static struct migration_result r;
	static struct migration_options o = { .type = "pid", .id = "7", .target_text = "beta" };
	static const struct {
		enum migration_outcome outcome;
		bool check;
		size_t refusing, phases;
		int number;
		const char *sentence;
	} cases[] = {
		{ OUTCOME_ABORTED, false, 0, 3, EIO, "cannot migrate pid 7: it broke; the source still runs" },
		{ OUTCOME_REFUSED, false, 2, 3, 0,
		  "cannot migrate pid 7: 2 obstacles stand in the way; the source still runs" },
		{ OUTCOME_REFUSED, false, 0, 3, 0, "cannot migrate pid 7: it broke; the source still runs" },
		{ OUTCOME_REFUSED, true, 1, 3, 0, "pid 7 cannot move to beta: an obstacle stands in the way" },
		{ OUTCOME_ABORTED, true, 0, 3, EIO, "cannot check whether pid 7 can move to beta: it broke" },
		{ OUTCOME_ABORTED, false, 0, 1, ESRCH, "cannot migrate pid 7: it broke" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buffer_ struct buffer b = { 0 };

		r = (struct migration_result){ .outcome = cases[i].outcome,
					       .reason = "it broke",
					       .n_phases = cases[i].phases,
					       .number = cases[i].number };
		o.check_only = cases[i].check;
		assert_int_equal(plain_failure(&o, &r, cases[i].refusing, &b), 0);
		assert_string_equal(text_of(&b), cases[i].sentence);
	}
	r = (struct migration_result){ .outcome = OUTCOME_UNKNOWN, .reason = "the link broke" };
	o.check_only = false;
	{
		_cleanup_buffer_ struct buffer b = { 0 };

		assert_int_equal(plain_failure(&o, &r, 0, &b), 0);
		assert_non_null(strstr(text_of(&b), "`phaul status 00000000-"));
	}
}

static void test_plain_obstacle(void **state)
{
	struct obstacle o = { OBSTACLE_REFUSES, false, "there is no rsync", "install rsync" };
	_cleanup_buffer_ struct buffer b = { 0 };

	(void)state;
	assert_int_equal(plain_obstacle(&o, &b), 0);
	o.kind = OBSTACLE_WARNS;
	o.cure[0] = 0;
	assert_int_equal(plain_obstacle(&o, &b), 0);
	assert_string_equal(text_of(&b),
			    "refused: there is no rsync\n  cure: install rsync\nwarning: there is no rsync\n");
}

static void test_live_line(void **state)
{
	struct live l = { .fd = -1, .phase = "copy" };
	char line[256];

	(void)state;
	l.progress_known = true;
	l.progress = (struct migration_progress){ 2, 256, 512, 100 << 20, 256, 43 * NS_PER_MS };
	live_format(&l, 1500 * NS_PER_MS, 200, line, sizeof(line));
	assert_string_equal(line, "1.5 s  round 2: 1.0 MiB left, 100 MiB/s, dirty 1.0 MiB/s, freeze ~43 ms");
	live_format(&l, 0, 10, line, sizeof(line));
	assert_int_equal(strlen(line), 10);
	l.phase = "freeze";
	live_format(&l, 0, 200, line, sizeof(line));
	assert_string_equal(line, "0.0 s  freezing");
}

/* Whatever a journal can say is explained, and only ends count as finished. */
static void test_status_words(void **state)
{
	(void)state;
	for (int i = STATE_PLANNED; i < STATE_MAX; i++)
		for (int side = SIDE_SOURCE; side < SIDE_MAX; side++)
			for (int driven = 0; driven < 2; driven++) {
				struct journal_summary s = { .side = (enum migration_side)side,
							     .state = (enum migration_state)i,
							     .driven = driven };
				bool known = i == STATE_PLANNED, told;

				for (int from = STATE_PLANNED; from < STATE_MAX; from++)
					known = known || state_may_follow(s.side, (enum migration_state)from, s.state);
				told = strcmp(status_explain(&s), "The journal names no state.") != 0;
				assert_int_equal(told, known);
			}
	assert_true(state_finished(STATE_SETTLED) && state_finished(STATE_RUNNING) && state_finished(STATE_ABORTED));
	assert_false(state_finished(STATE_COMMITTED) || state_finished(STATE_PREPARED) ||
		     state_finished(STATE_RESUMING) || state_finished(STATE_FROZEN));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options_take),	cmocka_unit_test(test_options_may_be_left_out),
		cmocka_unit_test(test_options_refuse),	cmocka_unit_test(test_text_clean),
		cmocka_unit_test(test_text_quantities), cmocka_unit_test(test_report_events),
		cmocka_unit_test(test_report_result),	cmocka_unit_test(test_plain_failures),
		cmocka_unit_test(test_plain_obstacle),	cmocka_unit_test(test_live_line),
		cmocka_unit_test(test_status_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
