/*
 * Text for people: see text.h.
 *
 * UTF-8 as in RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. No state; any thread.
 */
#include "cli/text.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

static const char replacement[] = "\xef\xbf\xbd";

/* The length of the well-formed character at p, 0 if there is none. The NUL at the end stops every look ahead. */
static size_t character_length(const unsigned char *p)
{
	size_t length;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	length = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	for (size_t i = 1; i < length; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
	    (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return length;
}

/* C0, DEL and C1 (U+0080 to U+009F, of which U+009B starts an escape sequence). */
static bool is_control(const unsigned char *p, size_t length)
{
	return length == 1 ? p[0] < 0x20 || p[0] == 0x7f : length == 2 && p[0] == 0xc2 && p[1] < 0xa0;
}

char *text_clean(const char *in, char *out, size_t size)
{
	const unsigned char *p = (const unsigned char *)in;
	size_t n = 0;

	while (*p) {
		size_t length = character_length(p), take = length;
		const char *from = (const char *)p;

		if (!length) {
			from = replacement;
			take = sizeof(replacement) - 1;
			length = 1;
		} else if (is_control(p, length)) {
			from = "?";
			take = 1;
		}
		if (n + take >= size)
			break;
		memcpy(out + n, from, take);
		n += take;
		p += length;
	}
	out[n] = 0;
	return out;
}

char *text_bytes(uint64_t bytes, char out[TEXT_QUANTITY_MAX])
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	size_t unit = 0;

	for (; value >= 1000 && unit < sizeof(units) / sizeof(units[0]) - 1; unit++)
		value /= 1024;
	snprintf(out, TEXT_QUANTITY_MAX, unit && value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return out;
}

char *text_duration(uint64_t ns, char out[TEXT_QUANTITY_MAX])
{
	uint64_t seconds = ns / NS_PER_S;

	if (ns < 10 * NS_PER_MS)
		snprintf(out, TEXT_QUANTITY_MAX, "%.1f ms", (double)ns / (double)NS_PER_MS);
	else if (ns < NS_PER_S)
		snprintf(out, TEXT_QUANTITY_MAX, "%" PRIu64 " ms", (uint64_t)(ns / NS_PER_MS));
	else if (ns < 60 * NS_PER_S)
		snprintf(out, TEXT_QUANTITY_MAX, "%.1f s", (double)ns / (double)NS_PER_S);
	else
		snprintf(out, TEXT_QUANTITY_MAX, "%" PRIu64 " min %" PRIu64 " s", seconds / 60, seconds % 60);
	return out;
}
