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

static void error_tidy(char *text)
{
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = ' ';
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
