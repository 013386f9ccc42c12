/*
 * libphaul-criu.so, openat() of /proc/PID/smaps: answered from /proc/PID/maps and from what phaul says of the flags.
 *
 * To print a mapping's entry in smaps the kernel looks at every page of it, 5 ms and more per GiB in the freeze. CRIU reads two
 * lines of it: the one that maps has as well, and VmFlags. phaul knows the flags in another way (memory/vma-flags.h) and
 * writes them into a pipe that is opened here at the first question, when all tasks are stopped: "PID START END FLAGS", the
 * addresses hexadecimal, ascending within a process. The mappings are taken from the kernel now; unless each
 * of them is among those of the list, smaps is opened as it is.
 *
 * Only in CRIU versions whose use of smaps was read and tested (protocol.h). Source: criu/proc_parse.c (parse_smaps), criu/util.c
 * (do_open_proc), proc(5).
 */
/* openat and openat64 are two functions here. */
#undef _FILE_OFFSET_BITS

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "library.h"

struct entry {
	uint64_t start, end;
	int pid;
	const char *flags; /* into text */
};

static int (*real_openat)(int, const char *, int, ...);
static struct entry *entries; /* in the order of the list */
static size_t n_entries;
static bool asked;

/* All of a file, ended by a 0; NULL: not to be had. */
static char *read_whole(int fd, size_t *ret_length)
{
	size_t length = 0, allocated = 65536;
	char *text = malloc(allocated);
	ssize_t n = -1;

	while (text) {
		n = read(fd, text + length, allocated - length - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		length += (size_t)n;
		if (allocated - length < 4096) {
			char *grown = realloc(text, allocated *= 2);

			if (!grown) {
				n = -1;
				break;
			}
			text = grown;
		}
	}
	if (n < 0) {
		free(text);
		return NULL;
	}
	text[length] = 0;
	*ret_length = length;
	return text;
}

void library_skip_flags(void)
{
	int fd = asked ? -1 : library_open_pipe(library.flags_path);

	asked = true;
	if (fd >= 0)
		close(fd);
}

/* Takes the whole list or nothing: one bad line, and smaps is left alone. */
static void load(void)
{
	int fd = library_open_pipe(library.flags_path);
	size_t length = 0, allocated = 0, n = 0;
	char *text = fd >= 0 ? read_whole(fd, &length) : NULL, *line = text, *end;

	asked = true;
	if (fd >= 0)
		close(fd);
	for (; line && *line; line = end + 1) {
		struct entry e;
		int used = 0;

		end = strchr(line, '\n');
		if (!end)
			return; /* cut off */
		*end = 0;
		if (sscanf(line, "%d %lx %lx %n", &e.pid, &e.start, &e.end, &used) < 3 || !used)
			return;
		e.flags = line + used;
		if (n == allocated) {
			struct entry *grown =
				reallocarray(entries, allocated = allocated ? allocated * 2 : 256, sizeof(e));

			if (!grown)
				return;
			entries = grown;
		}
		entries[n++] = e;
	}
	n_entries = n;
}

/* The process whose directory in /proc this is; 0: it is something else. */
static int directory_pid(int fd)
{
	char path[64], target[64];
	int pid, used = 0;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return 0;
	target[n] = 0;
	return sscanf(target, "/proc/%d%n", &pid, &used) == 1 && !target[used] ? pid : 0;
}

/* maps with the flags behind each line, into `out`; false: a mapping is not in the list. */
static bool compose(int pid, char *maps, FILE *out)
{
	size_t at = 0;
	char *end;

	while (at < n_entries && entries[at].pid != pid)
		at++;
	if (at == n_entries)
		return false;
	for (char *line = maps; *line; line = end + 1) {
		uint64_t from, to;

		end = strchr(line, '\n');
		if (!end)
			return false;
		*end = 0;
		if (sscanf(line, "%lx-%lx ", &from, &to) != 2)
			return false;
		while (at < n_entries && entries[at].pid == pid && entries[at].start < from)
			at++;
		if (at == n_entries || entries[at].pid != pid || entries[at].start != from || entries[at].end != to)
			return false;
		fprintf(out, "%s\nVmFlags: %s\n", line, entries[at].flags);
	}
	return true;
}

/* A file that reads like smaps of the process, as far as CRIU reads it; -1: it must be the real one. */
static int answer(int directory_fd, int pid)
{
	int maps_fd = real_openat(directory_fd, "maps", O_RDONLY | O_CLOEXEC), fd = -1;
	size_t length = 0;
	char *maps = maps_fd >= 0 ? read_whole(maps_fd, &length) : NULL;
	FILE *out = NULL;

	if (maps_fd >= 0)
		close(maps_fd);
	if (maps && length)
		fd = memfd_create("smaps", MFD_CLOEXEC);
	if (fd >= 0)
		out = fdopen(dup(fd), "w");
	if (!out || !compose(pid, maps, out) || fflush(out) || lseek(fd, 0, SEEK_SET) < 0) {
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	if (out)
		fclose(out);
	free(maps);
	return fd;
}

static int open_at(int directory_fd, const char *path, int flags, mode_t mode)
{
	static bool said;
	int pid, fd;

	if (!real_openat)
		*(void **)&real_openat = dlsym(RTLD_NEXT, "openat64");
	if (!library.flags_path[0] || strcmp(path, "smaps") != 0 || (flags & O_ACCMODE) != O_RDONLY)
		return real_openat(directory_fd, path, flags, mode);
	pid = directory_pid(directory_fd);
	if (!asked)
		load();
	fd = pid && n_entries ? answer(directory_fd, pid) : -1;
	if (fd < 0)
		return real_openat(directory_fd, path, flags, mode);
	library_say(&said, "mappings without a look at their pages");
	return fd;
}

EXPORTED int openat(int fd, const char *file, int oflag, ...)
{
	mode_t mode;
	va_list ap;

	va_start(ap, oflag);
	mode = oflag & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return open_at(fd, file, oflag, mode);
}

EXPORTED int openat64(int fd, const char *file, int oflag, ...)
{
	mode_t mode;
	va_list ap;

	va_start(ap, oflag);
	mode = oflag & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return open_at(fd, file, oflag, mode);
}
