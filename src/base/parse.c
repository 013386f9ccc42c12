/*
 * Numbers out of what people write: see parse.h.
 *
 * strtoull(3) is not used: it takes signs, spaces and what follows the number. No state; any thread.
 */
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

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

int parse_rate(const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct error *err)
{
	static const struct {
		const char *name;
		uint64_t times, by;
	} units[] = { { "", 1, 1 },	   { "K", 1ULL << 10, 1 }, { "M", 1ULL << 20, 1 },   { "G", 1ULL << 30, 1 },
		      { "kbit", 1000, 8 }, { "mbit", 1000000, 8 }, { "gbit", 1000000000, 8 } };
	size_t digits = strspn(text, "0123456789");
	char number[24] = "";
	uint64_t value;

	if (digits && digits < sizeof(number))
		memcpy(number, text, digits);
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcasecmp(text + digits, units[i].name) != 0 ||
		    parse_u64(number, 1, UINT64_MAX, &value, NULL) < 0 ||
		    __builtin_mul_overflow(value, units[i].times, &value) || value / units[i].by < min ||
		    value / units[i].by > max)
			continue;
		*ret = value / units[i].by;
		return 0;
	}
	return error_set(err, EINVAL,
			 "'%.40s' is not a rate from %" PRIu64 " to %" PRIu64
			 " bytes per second, such as 40M (bytes) or 200mbit",
			 text, min, max);
}
