/* Migration identifiers: see uuid.h. No state; any thread.
 * Invariant: format and parse are inverse, so one migration has one spelling in paths, journals and tables.
 */
#include "base/uuid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

int uuid_new(struct uuid *ret)
{
	struct uuid id;
	struct timespec now;
	uint64_t ms;

	if (getrandom(id.bytes, sizeof(id.bytes), 0) != (ssize_t)sizeof(id.bytes))
		return -EIO;
	clock_gettime(CLOCK_REALTIME, &now);
	ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	for (int i = 0; i < 6; i++)
		id.bytes[i] = (uint8_t)(ms >> (8 * (5 - i)));
	id.bytes[6] = (uint8_t)((id.bytes[6] & 0x0f) | 0x70);
	id.bytes[8] = (uint8_t)((id.bytes[8] & 0x3f) | 0x80);
	*ret = id;
	return 0;
}

void uuid_format(const struct uuid *id, char text[UUID_TEXT_SIZE])
{
	char *p = text;

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		p += sprintf(p, "%02x", id->bytes[i]);
	}
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_parse(const char *text, struct uuid *ret)
{
	struct uuid id;
	const char *p = text;

	if (strlen(text) != UUID_TEXT_SIZE - 1)
		return false;
	for (int i = 0; i < 16; i++) {
		int high, low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-')
			return false;
		high = hex_digit(p[0]);
		low = hex_digit(p[1]);
		if (high < 0 || low < 0)
			return false;
		id.bytes[i] = (uint8_t)(high << 4 | low);
		p += 2;
	}
	*ret = id;
	return true;
}
