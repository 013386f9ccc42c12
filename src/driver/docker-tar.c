/*
 * A tar archive that flows by: see docker-tar.h. No threads, no state besides the object.
 *
 * Invariant: an extended header (pax, or GNU's long name) waits in `before` until the entry that it belongs to was decided on.
 */
#include "driver/docker-tar.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"

#define BLOCK 512U
#define EXTENDED_MAX (1U << 20)
#define NAME_MAX_BYTES 4096

/* Offsets in a header, POSIX.1-2017 pax, "ustar Interchange Format". */
enum { AT_NAME = 0, AT_SIZE = 124, AT_TYPE = 156, AT_MAGIC = 257, AT_PREFIX = 345 };
enum { NAME_BYTES = 100, SIZE_BYTES = 12, PREFIX_BYTES = 155 };

struct docker_tar {
	struct docker_tar_user user;
	uint8_t header[BLOCK];
	size_t header_length;
	uint64_t content, padding; /* still to come of this entry */
	enum docker_tar_action action;
	bool extended;	      /* the content is an extended header's */
	char extended_type;   /* 'x' or 'L' */
	struct buffer before; /* raw: extended headers of the entry to come */
	size_t text_at;	      /* where in `before` the content of the last one begins */
	char name[NAME_MAX_BYTES];
	bool has_name, has_size, ended;
	uint64_t size;
};

struct docker_tar *docker_tar_new(const struct docker_tar_user *user)
{
	struct docker_tar *t = calloc(1, sizeof(*t));

	if (t)
		t->user = *user;
	return t;
}

void docker_tar_free(struct docker_tar *t)
{
	if (!t)
		return;
	buffer_free(&t->before);
	free(t);
}

/* Octal digits, or, with the top bit set, base 256. */
static int read_size(const uint8_t *field, uint64_t *ret)
{
	uint64_t value = 0;
	size_t i = 0;

	if (field[0] & 0x80) {
		for (i = SIZE_BYTES - 8; i < SIZE_BYTES; i++)
			value = value << 8 | field[i];
		*ret = value;
		return value >> 62 ? -EBADMSG : 0;
	}
	while (i < SIZE_BYTES && field[i] == ' ')
		i++;
	for (; i < SIZE_BYTES && field[i] && field[i] != ' '; i++) {
		if (field[i] < '0' || field[i] > '7')
			return -EBADMSG;
		value = value << 3 | (uint64_t)(field[i] - '0');
	}
	*ret = value;
	return 0;
}

static void read_name(struct docker_tar *t)
{
	const char *h = (const char *)t->header;
	size_t prefix = strnlen(h + AT_PREFIX, PREFIX_BYTES), n = strnlen(h + AT_NAME, NAME_BYTES);

	if (t->has_name)
		return;
	t->name[0] = 0;
	if (prefix && !memcmp(h + AT_MAGIC, "ustar", 6)) {
		memcpy(t->name, h + AT_PREFIX, prefix);
		t->name[prefix] = '/';
		prefix++;
	} else {
		prefix = 0;
	}
	memcpy(t->name + prefix, h + AT_NAME, n);
	t->name[prefix + n] = 0;
}

/* "27 path=some/name\n", one after the other; the number counts all of it. */
static int read_pax(struct docker_tar *t, const char *text, size_t length)
{
	while (length) {
		char *end = NULL;
		size_t n = strtoul(text, &end, 10), value;
		const char *equals;

		if (!end || *end != ' ' || n > length || n < (size_t)(end - text) + 3 || text[n - 1] != '\n')
			return -EBADMSG;
		end++;
		equals = memchr(end, '=', n - (size_t)(end - text));
		if (!equals)
			return -EBADMSG;
		value = n - (size_t)(equals + 1 - text) - 1;
		if (equals - end == 4 && !memcmp(end, "path", 4) && value < sizeof(t->name)) {
			memcpy(t->name, equals + 1, value);
			t->name[value] = 0;
			t->has_name = true;
		} else if (equals - end == 4 && !memcmp(end, "size", 4)) {
			t->size = strtoull(equals + 1, NULL, 10);
			t->has_size = true;
		}
		text += n;
		length -= n;
	}
	return 0;
}

/* All of an extended header is there: what it says of the next entry. */
static int take_extended(struct docker_tar *t)
{
	const char *text;
	size_t length;

	/* For strtoul(): a record that is not one ends at the latest here. */
	if (buffer_reserve(&t->before, 1) < 0)
		return -ENOMEM;
	t->before.data[t->before.length] = 0;
	text = (const char *)t->before.data + t->text_at;
	length = t->before.length - t->text_at;
	if (t->extended_type == 'x')
		return read_pax(t, text, length);
	length = strnlen(text, length);
	if (length >= sizeof(t->name))
		return -E2BIG;
	memcpy(t->name, text, length);
	t->name[length] = 0;
	t->has_name = true;
	return 0;
}

static int begin_extended(struct docker_tar *t, char type)
{
	if (!t->content || t->content > EXTENDED_MAX || t->before.length > EXTENDED_MAX)
		return -EBADMSG;
	t->extended = true;
	t->extended_type = type;
	if (buffer_append(&t->before, t->header, BLOCK) < 0)
		return -ENOMEM;
	t->text_at = t->before.length;
	return 0;
}

static int begin_entry(struct docker_tar *t)
{
	int r = 0;

	read_name(t);
	t->extended = false;
	t->action = t->user.entry(t->user.context, t->name, t->content);
	if (t->action == DOCKER_TAR_KEEP) {
		r = t->user.out(t->user.context, t->before.data, t->before.length);
		if (!r)
			r = t->user.out(t->user.context, t->header, BLOCK);
	}
	t->before.length = 0;
	t->has_name = t->has_size = false;
	return r;
}

static int take_header(struct docker_tar *t)
{
	static const uint8_t zeros[BLOCK];
	char type = (char)t->header[AT_TYPE];
	int r;

	if (!memcmp(t->header, zeros, BLOCK)) {
		t->ended = true;
		return t->before.length ? -EBADMSG : 0;
	}
	if (memcmp(t->header + AT_MAGIC, "ustar", 5) != 0)
		return -EBADMSG;
	r = read_size(t->header + AT_SIZE, &t->content);
	if (r < 0)
		return r;
	if (type == 'x' || type == 'L')
		r = begin_extended(t, type);
	else if (t->has_size)
		t->content = t->size;
	/* Links, directories and devices have no content, whatever the size says. */
	if (type >= '1' && type <= '6')
		t->content = 0;
	t->padding = (BLOCK - t->content % BLOCK) % BLOCK;
	return r < 0 || t->extended ? r : begin_entry(t);
}

/* What of this entry has arrived: content, then padding. */
static int take_content(struct docker_tar *t, const uint8_t *data, size_t n, bool padding)
{
	int r = 0;

	if (t->extended)
		r = buffer_append(&t->before, data, n);
	else if (t->action == DOCKER_TAR_KEEP || (t->action == DOCKER_TAR_READ && !padding))
		r = t->user.out(t->user.context, data, n);
	*(padding ? &t->padding : &t->content) -= n;
	if (r || !t->extended)
		return r;
	if (!padding && !t->content)
		r = take_extended(t);
	if (!t->content && !t->padding)
		t->extended = false;
	return r;
}

int docker_tar_feed(struct docker_tar *t, const void *data, size_t length)
{
	const uint8_t *p = data;
	int r = 0;

	while (length && !r) {
		bool inside = t->content || t->padding, padding = !t->content;
		uint64_t due = t->content ? t->content : t->padding;
		size_t n = inside ? (size_t)(due < length ? due : length) : BLOCK - t->header_length;

		if (t->ended)
			return 0;
		n = n < length ? n : length;
		if (inside) {
			r = take_content(t, p, n, padding);
		} else {
			memcpy(t->header + t->header_length, p, n);
			t->header_length += n;
			if (t->header_length == BLOCK) {
				t->header_length = 0;
				r = take_header(t);
			}
		}
		p += n;
		length -= n;
	}
	return r;
}

int docker_tar_finish(const struct docker_tar *t)
{
	return t->ended ? 0 : -EBADMSG;
}
