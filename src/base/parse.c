/*
 * Numbers out of what people write: see parse.h.
 *
 * strtoull(3) is not used: it takes signs, spaces and what follows the number. No state; any thread.
 */
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>

int parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct error *err)
{
	const char *p = text;
	uint64_t value = 0;

	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *p - '0', &value))
			break;
	if (p == text || *p || value < min || value > max)
		return error_set(err, EINVAL, "'%.40s' is not a whole number from %" PRIu64 " to %" PRIu64, text, min,
				 max);
	*ret = value;
	return 0;
}
