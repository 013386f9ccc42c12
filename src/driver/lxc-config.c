/*
 * Reading and rewriting the text of an LXC configuration: see lxc-config.h. No state, no I/O; any thread.
 */
#include "driver/lxc-config.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define GUARD "# phaul: this copy must not be started by the host\nlxc.start.auto = 0\n# phaul: end\n"

struct setting {
	char key[256], value[LXC_VALUE_MAX];
};

/* One line, without its end. false: nothing is set by it. */
static bool parse_line(const char *line, size_t length, struct setting *ret)
{
	const char *end = line + length, *equal = memchr(line, '=', length), *key_end, *value;

	while (line < end && isspace((unsigned char)*line))
		line++;
	if (line == end || *line == '#' || !equal || equal < line)
		return false;
	key_end = equal;
	value = equal + 1;
	while (key_end > line && isspace((unsigned char)key_end[-1]))
		key_end--;
	while (value < end && isspace((unsigned char)*value))
		value++;
	while (end > value && isspace((unsigned char)end[-1]))
		end--;
	if (end - value >= 2 && (*value == '"' || *value == '\'') && end[-1] == *value) {
		value++;
		end--;
	}
	snprintf(ret->key, sizeof(ret->key), "%.*s", (int)(key_end - line), line);
	snprintf(ret->value, sizeof(ret->value), "%.*s", (int)(end - value), value);
	return true;
}

int lxc_config_each(const char *text, int (*each)(void *context, const char *key, const char *value), void *context)
{
	struct setting s;
	int r = 0;

	while (*text && !r) {
		size_t length = strcspn(text, "\n");

		if (parse_line(text, length, &s))
			r = each(context, s.key, s.value);
		text += length + (text[length] == '\n');
	}
	return r;
}

struct wanted {
	const char *key;
	char *value;
	size_t size;
	bool found;
};

static int take_value(void *context, const char *key, const char *value)
{
	struct wanted *w = context;

	if (!strcmp(key, w->key)) {
		snprintf(w->value, w->size, "%s", value);
		w->found = true;
	}
	return 0;
}

bool lxc_config_value(const char *text, const char *key, char *ret, size_t size)
{
	struct wanted w = { .key = key, .value = ret, .size = size };

	lxc_config_each(text, take_value, &w);
	return w.found;
}

bool lxc_path_below(const char *path, const char *directory)
{
	size_t n = strlen(directory);

	return !strncmp(path, directory, n) && (!path[n] || path[n] == '/');
}

int lxc_path_move(const char *path, const char *from, const char *to, char *ret, size_t size)
{
	int n = lxc_path_below(path, from) ? snprintf(ret, size, "%s%s", to, path + strlen(from))
					   : snprintf(ret, size, "%s", path);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* What may stand around a path in a value: "overlay:/a:/b", "/a b none bind". */
static bool ends_path(char c)
{
	return !c || strchr("/: \t\n,\"'", c) != NULL;
}

int lxc_config_move(const char *text, const char *from, const char *to, struct buffer *ret)
{
	size_t n = strlen(from);
	const char *found, *rest = text;
	int r = 0;

	while (!r && (found = strstr(rest, from))) {
		bool whole = (found == text || strchr(":= \t\n,\"'", found[-1])) && ends_path(found[n]);

		r = buffer_append(ret, rest, (size_t)(found - rest));
		if (!r)
			r = buffer_append(ret, whole ? to : from, strlen(whole ? to : from));
		rest = found + n;
	}
	return r ? r : buffer_printf(ret, "%s", rest);
}

int lxc_config_relink(const char *text, const char *from, const char *to, struct buffer *ret)
{
	struct setting s;
	int r = 0;

	while (*text && !r) {
		size_t length = strcspn(text, "\n");
		const char *end = text + length + (text[length] == '\n');

		if (parse_line(text, length, &s) && !strncmp(s.key, "lxc.net.", 8) && strlen(s.key) > 13 &&
		    !strcmp(s.key + strlen(s.key) - 5, ".link") && !strcmp(s.value, from))
			r = buffer_printf(ret, "%s = %s\n", s.key, to);
		else
			r = buffer_append(ret, text, (size_t)(end - text));
		text = end;
	}
	return r ? r : buffer_printf(ret, "%s", "");
}

bool lxc_config_guarded(const char *text)
{
	return strstr(text, GUARD) != NULL;
}

int lxc_config_unguard(const char *text, struct buffer *ret)
{
	const char *found;
	int r = 0;

	while (!r && (found = strstr(text, GUARD))) {
		r = buffer_append(ret, text, (size_t)(found - text));
		text = found + strlen(GUARD);
	}
	return r ? r : buffer_printf(ret, "%s", text);
}

int lxc_config_guard(const char *text, struct buffer *ret)
{
	size_t n = strlen(text);

	if (lxc_config_guarded(text))
		return buffer_printf(ret, "%s", text);
	return buffer_printf(ret, "%s%s%s", text, n && text[n - 1] != '\n' ? "\n" : "", GUARD);
}
