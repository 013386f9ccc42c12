/*
 * Unit tests of control messages: limits from both sides, the largest that may come, memory that is not spent, unknown kinds, torn bytes.
 */
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "message-fixture.h"
#include "wire/frame.h"

/* Counts: the last that passes and the first that does not. Repeated fields all have the same shape. */
#define COUNT(kind_name, field_name, part, member, max)                                                                \
	do {                                                                                                           \
		struct wire_sample s;                                                                                  \
		__typeof__((part).member) many = calloc((max) + 1, sizeof(*many));                                     \
		struct error err = { 0 };                                                                              \
                                                                                                                       \
		assert_non_null(many);                                                                                 \
		wire_sample_init(&s, KIND(kind_name));                                                                 \
		for (size_t i = 0; i <= (max); i++)                                                                    \
			many[i] = (part).member[0];                                                                    \
		(part).member = many;                                                                                  \
		(part).n_##member = (max);                                                                             \
		if (pass(&s.control, &err) < 0)                                                                        \
			fail_msg("%s at its limit: %s", field_name, err.text);                                         \
		(part).n_##member = (max) + 1;                                                                         \
		assert_int_equal(pass(&s.control, &err), -EPROTO);                                                     \
		if (!strstr(err.text, field_name))                                                                     \
			fail_msg("%s: %s", field_name, err.text);                                                      \
		free(many);                                                                                            \
	} while (0)

static void test_counts_of_plan(void **state)
{
	(void)state;
	COUNT(PLAN, "files or pids", s.workload, files, MESSAGE_FILES_MAX);
	COUNT(PLAN, "files or pids", s.workload, pids, MESSAGE_PIDS_MAX);
	COUNT(PLAN, "addresses or sync_paths", s.plan, addresses, MESSAGE_ADDRESSES_MAX);
	COUNT(PLAN, "addresses or sync_paths", s.plan, sync_paths, MESSAGE_SYNC_PATHS_MAX);
}

static void test_count_of_neighbours(void **state)
{
	(void)state;
	COUNT(PLAN, "plan.neighbours", s.plan, neighbours, MESSAGE_NEIGHBOURS_MAX);
}

static void test_counts_of_answers(void **state)
{
	(void)state;
	COUNT(PLAN_REPLY, "plan_reply.obstacles", s.plan_reply, obstacles, MESSAGE_OBSTACLES_MAX);
	COUNT(STATE, "state.arrived", s.state, arrived, MESSAGE_CHANNELS_MAX);
	COUNT(ARM, "arm.way", s.way, external, MESSAGE_EXTERNAL_MAX);
	COUNT(FINISH, "finish.present", s.finish, present, (size_t)FRAME_SPACE_MAX);
}

/* Everything that a plan may carry at once still fits what unpacking may take. */
static void test_largest_plan(void **state)
{
	_cleanup_free_ Phaul__Wire__File **files = calloc(MESSAGE_FILES_MAX, sizeof(*files));
	_cleanup_free_ int32_t *pids = calloc(MESSAGE_PIDS_MAX, sizeof(*pids));
	_cleanup_buffer_ struct buffer packed = { 0 };
	struct wire_sample s;
	struct error err = { 0 };

	(void)state;
	wire_sample_init(&s, KIND(PLAN));
	s.file[0].path = path_of(205); /* 65536 times: nearly what a frame holds */
	for (size_t i = 0; i < MESSAGE_FILES_MAX; i++)
		files[i] = &s.file[0];
	for (size_t i = 0; i < MESSAGE_PIDS_MAX; i++)
		pids[i] = (int32_t)(1 + i);
	s.workload.files = files;
	s.workload.n_files = MESSAGE_FILES_MAX;
	s.workload.pids = pids;
	s.workload.n_pids = MESSAGE_PIDS_MAX;
	assert_true(phaul__wire__control__get_packed_size(&s.control) > FRAME_CONTROL_MAX * 9ULL / 10);
	if (pass(&s.control, &err) < 0)
		fail_msg("%s", err.text);
	s.file[0].path = path_of(260);
	assert_int_equal(message_encode(&s.control, &packed, &err), -EMSGSIZE);
	assert_int_equal(packed.length, 0);
}

/* Millions of empty parts, two bytes each: refused before they take a gigabyte. */
static void test_memory_is_bounded(void **state)
{
	const size_t n = (FRAME_CONTROL_MAX - 16) / 2;
	_cleanup_free_ uint8_t *message = malloc(16 + 2 * n);
	Phaul__Wire__Control *m = NULL;
	struct error err = { 0 };
	struct mallinfo2 before = mallinfo2();
	size_t at = 0;

	(void)state;
	/* control.plan_reply: field 4, its length as a varint of 4 bytes; obstacles: field 1, length 0 */
	message[at++] = 0x22;
	for (size_t left = 2 * n, i = 0; i < 4; i++, left >>= 7)
		message[at++] = (uint8_t)((left & 0x7f) | (i < 3 ? 0x80 : 0));
	for (size_t i = 0; i < n; i++) {
		message[at++] = 0x0a;
		message[at++] = 0;
	}
	assert_int_equal(message_decode(message, at, &m, &err), -EPROTO);
	assert_non_null(strstr(err.text, "memory"));
	assert_null(m);
	/* And all of it was given back. */
	assert_true(mallinfo2().uordblks <= before.uordblks + (1 << 20));
}

static void test_unknown_kinds(void **state)
{
	static const struct {
		const char *bytes;
		size_t length;
		const char *words;
	} rows[] = {
		{ "", 0, "kind this phaul does not know" },
		{ "\xba\x06\x00", 3, "kind this phaul does not know" }, /* field 103, length 0 */
		{ "\x08\x01", 2, "cannot be parsed" },			/* field 1 as a number */
		{ "\x0a\x05", 2, "cannot be parsed" },			/* five bytes announced */
		{ "\xff\xff\xff\xff\xff\xff", 6, "cannot be parsed" },
		{ "{\"hello\":1}", 11, "" },
	};
	Phaul__Wire__Control *m = NULL;
	struct error err = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(message_decode((const uint8_t *)rows[i].bytes, rows[i].length, &m, &err), -EPROTO);
		if (!strstr(err.text, rows[i].words))
			fail_msg("row %zu: %s", i, err.text);
		assert_null(m);
	}
}

/* A message torn at any length either still parses to something that passes, or is refused: never more. Read from
 * blocks of exactly that length, for the sanitizers. */
static void test_torn(void **state)
{
	(void)state;
	for (int kind = 1; kind <= WIRE_SAMPLE_KINDS; kind++) {
		_cleanup_buffer_ struct buffer packed = { 0 };
		struct wire_sample s;
		size_t refused = 0;

		wire_sample_init(&s, (Phaul__Wire__Control__KindCase)kind);
		assert_int_equal(message_encode(&s.control, &packed, NULL), 0);
		for (size_t length = 0; length < packed.length; length++) {
			_cleanup_free_ uint8_t *torn = malloc(MAX(length, 1U));
			_cleanup_message_ Phaul__Wire__Control *m = NULL;
			struct error err = { 0 };

			memcpy(torn, packed.data, length);
			if (message_decode(torn, length, &m, &err) < 0) {
				assert_int_equal(err.number, EPROTO);
				refused++;
			}
		}
		/* The outer field is longer than what is there, always. */
		assert_int_equal(refused, packed.length);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_of_plan),
		cmocka_unit_test(test_count_of_neighbours),
		cmocka_unit_test(test_counts_of_answers),
		cmocka_unit_test(test_largest_plan),
		cmocka_unit_test(test_memory_is_bounded),
		cmocka_unit_test(test_unknown_kinds),
		cmocka_unit_test(test_torn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
