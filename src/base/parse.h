/* Numbers out of what people write. */
#pragma once

#include <stdint.h>

#include "base/error.h"

/* A whole decimal number from min to max: digits only, no sign, no space, nothing behind it. -EINVAL otherwise, and err says
 * what was written and what may be ("'0' is not a whole number from 1 to 64"). *ret is untouched then. */
int parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct error *err);
