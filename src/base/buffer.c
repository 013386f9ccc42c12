/* A growable run of bytes: see buffer.h. Not for use by two threads at once.
 * Invariant: length <= capacity, and after buffer_printf() a NUL stands behind the last byte, not counted
 * in length.
 */
#include "base/buffer.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

void buffer_free(struct buffer *b)
{
	free(b->data);
	*b = (struct buffer){ 0 };
}

int buffer_reserve(struct buffer *b, size_t extra)
{
	size_t want, capacity = b->capacity ? b->capacity : 256;
	uint8_t *data;

	if (__builtin_add_overflow(b->length, extra, &want))
		return -ENOMEM;
	if (want <= b->capacity)
		return 0;
	while (capacity < want)
		if (__builtin_mul_overflow(capacity, (size_t)2, &capacity))
			return -ENOMEM;
	data = realloc(b->data, capacity);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->capacity = capacity;
	return 0;
}

int buffer_append(struct buffer *b, const void *data, size_t length)
{
	int r = buffer_reserve(b, length);

	if (r < 0)
		return r;
	if (length)
		memcpy(b->data + b->length, data, length);
	b->length += length;
	return 0;
}

int buffer_printf(struct buffer *b, const char *fmt, ...)
{
	va_list ap;
	int n, r;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return -EINVAL;
	r = buffer_reserve(b, (size_t)n + 1);
	if (r < 0)
		return r;
	va_start(ap, fmt);
	vsnprintf((char *)b->data + b->length, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->length += (size_t)n;
	return 0;
}

const char *buffer_last_line(struct buffer *b)
{
	char *newline;

	while (b->length && (b->data[b->length - 1] == '\n' || b->data[b->length - 1] == ' '))
		b->length--;
	if (!b->length || buffer_reserve(b, 1) < 0)
		return NULL;
	b->data[b->length] = 0;
	newline = strrchr((char *)b->data, '\n');
	return newline ? newline + 1 : (const char *)b->data;
}
