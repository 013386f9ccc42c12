/*
 * /proc/PID/maps: see maps.h. No state; any thread.
 *
 * A process may have 100 000 mappings and maps is read in every round, so numbers are parsed by hand and nothing is
 * allocated per line.
 */
#include "memory/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/array.h"
#include "base/fd.h"

#define MAPS_TEXT_MAX (1UL << 30)

void maps_free(struct maps *m)
{
	free(m->maps);
	*m = (struct maps){ 0 };
}

/* A number in base 10 or 16 that must be followed by `end`; NULL when it is not there. */
static const char *parse_number(const char *p, unsigned int base, char end, uint64_t *ret)
{
	const char *first = p;
	uint64_t value = 0;

	for (;; p++) {
		unsigned int digit;

		if (*p >= '0' && *p <= '9')
			digit = (unsigned int)(*p - '0');
		else if (base == 16 && *p >= 'a' && *p <= 'f')
			digit = (unsigned int)(*p - 'a') + 10;
		else
			break;
		if (value > (UINT64_MAX - digit) / base)
			return NULL;
		value = value * base + digit;
	}
	if (p == first || *p != end)
		return NULL;
	*ret = value;
	return p + 1;
}

static bool begins(const char *name, size_t length, const char *prefix)
{
	size_t n = strlen(prefix);

	return length >= n && !memcmp(name, prefix, n);
}

static enum map_name name_of(const char *name, size_t length, const struct map *map)
{
	if (!length)
		return map->inode ? MAP_NAME_FILE : MAP_NAME_NONE;
	if (*name == '[' && !map->inode) {
		/* Unknown names in brackets are special mappings of the kernel, which nobody may copy. */
		if (begins(name, length, "[heap]") || begins(name, length, "[stack") || begins(name, length, "[anon:"))
			return MAP_NAME_NONE;
		return MAP_NAME_KERNEL;
	}
	if (begins(name, length, "/dev/zero"))
		return MAP_NAME_ZERO;
	if (begins(name, length, "/memfd:CRIUMFD"))
		return MAP_NAME_CRIU;
	return MAP_NAME_FILE;
}

/* One line without its newline. */
static int parse_line(const char *p, const char *end, struct map *map)
{
	uint64_t major_number, minor_number;
	const char *flags;

	*map = (struct map){ 0 };
	p = parse_number(p, 16, '-', &map->start);
	p = p ? parse_number(p, 16, ' ', &map->end) : NULL;
	if (!p || end - p < 5 || p[4] != ' ' || map->start >= map->end)
		return -EBADMSG;
	flags = p;
	p = parse_number(p + 5, 16, ' ', &map->offset);
	p = p ? parse_number(p, 16, ':', &major_number) : NULL;
	p = p ? parse_number(p, 16, ' ', &minor_number) : NULL;
	p = p ? parse_number(p, 10, ' ', &map->inode) : NULL; /* the kernel puts a space even where no name follows */
	if (!p || p > end || major_number > UINT32_MAX || minor_number > UINT32_MAX)
		return -EBADMSG;
	map->readable = flags[0] == 'r';
	map->writable = flags[1] == 'w';
	map->executable = flags[2] == 'x';
	map->shared = flags[3] == 's';
	map->device = makedev((unsigned int)major_number, (unsigned int)minor_number);
	while (p < end && *p == ' ')
		p++;
	map->name = name_of(p, (size_t)(end - p), map);
	map->vdso = map->name == MAP_NAME_KERNEL && begins(p, (size_t)(end - p), "[vdso]");
	return 0;
}

static int maps_append(struct maps *m, const struct map *map)
{
	if (array_grow(&m->maps, m->n_maps, &m->n_allocated, 128, sizeof(*m->maps)) < 0)
		return -ENOMEM;
	m->maps[m->n_maps++] = *map;
	return 0;
}

int maps_parse(const char *text, size_t length, struct maps *m)
{
	const char *end = text + length;

	for (const char *line = text; line < end;) {
		const char *newline = memchr(line, '\n', (size_t)(end - line));
		struct map map;
		int r;

		if (!newline)
			return -EBADMSG;
		r = parse_line(line, newline, &map);
		/* The file is produced in pieces; a mapping that changes in between may show twice. */
		if (!r && m->n_maps && map.start < m->maps[m->n_maps - 1].end)
			map.start = MIN(m->maps[m->n_maps - 1].end, map.end);
		if (!r && map.start < map.end)
			r = maps_append(m, &map);
		if (r < 0)
			return r;
		line = newline + 1;
	}
	return 0;
}

int maps_read(pid_t pid, struct maps *ret, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	_cleanup_maps_ struct maps m = { 0 };
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	r = fd_read_file(AT_FDCWD, path, MAPS_TEXT_MAX, &text);
	if (!r && text.length)
		r = maps_parse((const char *)text.data, text.length, &m);
	if (r == -ENOENT || (!r && !m.n_maps))
		r = -ESRCH;
	if (r < 0)
		return error_errno(err, -r, "cannot read the mappings of process %d (%s)", (int)pid, path);
	*ret = m;
	m = (struct maps){ 0 };
	return 0;
}

size_t maps_find(const struct maps *m, uint64_t at)
{
	size_t low = 0, high = m->n_maps;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (m->maps[middle].end > at)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

void maps_surroundings(const struct maps *m, size_t i, uint64_t *ret_start, uint64_t *ret_end)
{
	const uint64_t kernel = 1ULL << 63; /* [vsyscall] lies there, where no call of ours may reach */
	bool last = i + 1 == m->n_maps || m->maps[i + 1].start >= kernel;

	*ret_start = i ? m->maps[i - 1].end : m->maps[i].start;
	*ret_end = last ? m->maps[i].end : m->maps[i + 1].start;
}

void maps_parse_locked(const char *text, struct maps *m)
{
	struct map *current = NULL;

	for (const char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		uint64_t start;

		if (parse_number(line, 16, '-', &start)) {
			size_t i = maps_find(m, start);

			current = i < m->n_maps && m->maps[i].start == start ? &m->maps[i] : NULL;
		} else if (current && !strncmp(line, "VmFlags:", 8)) {
			const char *end = strchrnul(line, '\n');
			const char *flag = memmem(line, (size_t)(end - line), " lo", 3);

			current->locked = flag && (flag[3] == ' ' || flag[3] == '\n' || !flag[3]);
		}
	}
}

int maps_mark_locked(pid_t pid, struct maps *m, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	r = fd_read_file(AT_FDCWD, path, MAPS_TEXT_MAX, &text);
	if (r < 0)
		return error_errno(err, -r, "cannot read which memory of process %d is locked (%s)", (int)pid, path);
	if (text.length)
		maps_parse_locked((const char *)text.data, m);
	return 0;
}

int status_read_number(pid_t pid, const char *field, uint64_t *ret)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	size_t n = strlen(field);
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	r = fd_read_file(AT_FDCWD, path, 1 << 20, &text);
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	for (char *line = (char *)text.data; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
		if (!strncmp(line, field, n) && line[n] == ':') {
			*ret = strtoull(line + n + 1, NULL, 10);
			return 0;
		}
	return -ENOENT;
}
