/*
 * PHAUL_TEST_SLOWDOWN=N: how many times slower than usual this machine is (an emulated one, say). Tests take so many times less work,
 * or allow so much more time, where it matters.
 */
#pragma once

#include <stdint.h>
#include <stdlib.h>

static inline uint64_t test_slowdown(void)
{
	const char *text = getenv("PHAUL_TEST_SLOWDOWN");
	uint64_t n = text ? strtoull(text, NULL, 10) : 1;

	return n ? n : 1;
}
