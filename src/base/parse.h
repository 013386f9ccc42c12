/* Numbers out of what people write. */
#pragma once

#include <stdint.h>

#include "base/error.h"

/* A whole decimal number from min to max: digits only, no sign, no space, nothing behind it. -EINVAL otherwise, and err says
 * what was written and what may be ("'0' is not a whole number from 1 to 64"). *ret is untouched then. */
int parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct error *err);

/* A rate in bytes per second: a whole number with K, M or G (bytes, 1024 each; also none), or with kbit, mbit, gbit (bits, 1000 each):
 * "40M", "200mbit". From min to max bytes. -EINVAL as above. */
int parse_rate(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct error *err);
