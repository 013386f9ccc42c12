/*
 * base/parse: what is a number and what is not, and the sentence that says so.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/parse.h"

static void test_u64_takes(void **state)
{
	static const struct {
		const char *text;
		uint64_t min, max, value;
	} cases[] = {
		{ "0", 0, 10, 0 },
		{ "10", 0, 10, 10 },
		{ "007", 1, 10, 7 },
		{ "65535", 1, 65535, 65535 },
		{ "18446744073709551615", 0, UINT64_MAX, UINT64_MAX },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t value = 42;
		struct error err = { 0 };

		assert_int_equal(parse_u64(cases[i].text, cases[i].min, cases[i].max, &value, &err), 0);
		assert_int_equal(value, cases[i].value);
		assert_int_equal(err.number, 0);
	}
}

static void test_u64_refuses(void **state)
{
	static const char *const cases[] = { "",
					     " 1",
					     "1 ",
					     "+1",
					     "-1",
					     "0x1",
					     "1k",
					     "1.0",
					     "0",
					     "101",
					     "one",
					     "18446744073709551616",
					     "99999999999999999999999999",
					     "1\n" };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t value = 42;
		struct error err = { 0 };

		assert_int_equal(parse_u64(cases[i], 1, 100, &value, &err), -EINVAL);
		assert_int_equal(value, 42);
		assert_int_equal(err.number, EINVAL);
		assert_non_null(strstr(err.text, "is not a whole number from 1 to 100"));
	}
}

/* 2^64 + 1 must not come back as 1. */
static void test_u64_overflow(void **state)
{
	uint64_t value = 42;

	(void)state;
	assert_int_equal(parse_u64("18446744073709551617", 0, UINT64_MAX, &value, NULL), -EINVAL);
	assert_int_equal(value, 42);
}

static void test_rates(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* 0: refused */
	} rows[] = { { "65536", 65536 },
		     { "64K", 65536 },
		     { "40M", 40 << 20 },
		     { "1g", 1 << 30 },
		     { "200mbit", 25000000 },
		     { "1gbit", 125000000 },
		     { "800KBIT", 100000 },
		     { "1K", 0 },
		     { "", 0 },
		     { "M", 0 },
		     { "-5M", 0 },
		     { "5 M", 0 },
		     { "5MB", 0 },
		     { "5mbits", 0 },
		     { "1.5M", 0 },
		     { "2G", 0 },
		     { "18446744073709551615G", 0 },
		     { "99999999999999999999999999", 0 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint64_t value = 7;
		int r = parse_rate(rows[i].text, 65536, 1 << 30, &value, NULL);

		if (r != (rows[i].bytes ? 0 : -EINVAL) || value != (rows[i].bytes ? rows[i].bytes : 7))
			fail_msg("'%s' is %d, %llu", rows[i].text, r, (unsigned long long)value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rates),
		cmocka_unit_test(test_u64_takes),
		cmocka_unit_test(test_u64_refuses),
		cmocka_unit_test(test_u64_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
