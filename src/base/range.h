/*
 * Sets of half-open ranges [start, end) of 64-bit numbers: page-aligned addresses, mostly.
 *
 * Kept sorted, disjoint and merged. Additions in ascending order cost O(1); others O(n).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct range {
	uint64_t start;
	uint64_t end; /* exclusive; > start */
};

struct range_set {
	struct range *ranges;
	size_t n_ranges;
	size_t n_allocated;
};

#define _cleanup_range_set_ _cleanup_(range_set_free)

void range_set_free(struct range_set *set);

/* Adds, subtracts; an empty range changes nothing. 0 or -ENOMEM (and then the set is unchanged). */
int range_set_add(struct range_set *set, uint64_t start, uint64_t end);
int range_set_subtract(struct range_set *set, uint64_t start, uint64_t end);

/* dst becomes the union of both, in linear time. 0 or -ENOMEM (and then it is unchanged). */
int range_set_unite(struct range_set *dst, const struct range_set *src);

/* The index of the first range that ends after `at`; n_ranges when there is none. */
size_t range_set_find(const struct range_set *set, uint64_t at);
bool range_set_contains(const struct range_set *set, uint64_t at);

/* The part of [start, end) that begins at start and is wholly in (*ret_inside true) or wholly out of
 * the set: returns its end. start < end. */
uint64_t range_set_part(const struct range_set *set, uint64_t start, uint64_t end, bool *ret_inside);

/* The sum of the lengths. */
uint64_t range_set_total(const struct range_set *set);

/* Whether the array is what a range_set may hold: aligned to `align` (a power of two), ascending, disjoint,
 * not touching, none empty. For what comes from outside. */
bool range_array_valid(const struct range *ranges, size_t n, uint64_t align);
