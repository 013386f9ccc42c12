/*
 * For tests of control messages: a message is packed, unpacked and packed again; texts of any length.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "wire-sample.h"
#include "wire/message.h"

#define KIND(name) PHAUL__WIRE__CONTROL__KIND_##name

/* What message_decode() says of it; what passes comes back as it was. */
static inline int pass(const Phaul__Wire__Control *m, struct error *err)
{
	_cleanup_buffer_ struct buffer packed = { 0 }, again = { 0 };
	_cleanup_message_ Phaul__Wire__Control *back = NULL;
	int r = message_encode(m, &packed, err);

	assert_int_equal(r, 0);
	r = message_decode(packed.data, packed.length, &back, err);
	if (r < 0)
		return r;
	assert_int_equal(back->kind_case, m->kind_case);
	assert_int_equal(message_encode(back, &again, err), 0);
	assert_int_equal(again.length, packed.length);
	assert_memory_equal(again.data, packed.data, packed.length);
	return 0;
}

/* Texts of a length; static, one for each, because a sample may hold several. */
static inline char *text_of(size_t length)
{
	static char texts[8][5001];
	static unsigned int next;
	char *text = texts[next++ % 8];

	assert_true(length <= 5000);
	memset(text, 'x', length);
	text[length] = 0;
	return text;
}

static inline char *path_of(size_t length)
{
	char *path = text_of(length);

	path[0] = '/';
	return path;
}
