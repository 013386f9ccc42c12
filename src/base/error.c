/*
 * Errors that a person can act on: formatting only.
 *
 * Invariants: text is always terminated and holds no newline or control character (it ends up in one
 * line of a log, of JSON, of a terminal). No state; any thread.
 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

void error_tidy(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		if (*p < ' ' || *p == 127)
			*p = ' ';
		/* In UTF-8 C2 80 .. C2 9F are control characters too, which some terminals obey. */
		if (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
			p[0] = p[1] = ' ';
	}
}

int error_set(struct error *err, int number, const char *fmt, ...)
{
	va_list ap;

	if (number <= 0)
		number = EIO;
	if (!err)
		return -number;
	err->number = number;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	error_tidy(err->text);
	return -number;
}

int error_errno(struct error *err, int number, const char *fmt, ...)
{
	char text[ERROR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return error_set(err, number, "%s: %s", text, strerror(number > 0 ? number : EIO));
}

int error_wrap(struct error *err, const char *fmt, ...)
{
	char context[ERROR_TEXT_MAX], inner[ERROR_TEXT_MAX];
	va_list ap;

	if (!err)
		return -EIO;
	va_start(ap, fmt);
	vsnprintf(context, sizeof(context), fmt, ap);
	va_end(ap);
	memcpy(inner, err->text, sizeof(inner));
	return error_set(err, err->number, "%s: %s", context, inner);
}
