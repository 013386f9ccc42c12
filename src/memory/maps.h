/*
 * /proc/PID/maps as an array: what each mapping is, without its path.
 *
 * Source: Documentation/filesystems/proc.rst. The kernel writes a newline in a path as \012, so a line is a mapping.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

enum map_name {
	MAP_NAME_NONE,	 /* anonymous: no name, [heap], [stack], [anon:...] */
	MAP_NAME_KERNEL, /* what the kernel maps itself: [vdso], [vvar...], [vsyscall], [uprobes], ... */
	MAP_NAME_FILE,	 /* a path, deleted or not; device and inode say which */
	MAP_NAME_ZERO,	 /* /dev/zero: private mappings of it are anonymous memory */
	MAP_NAME_CRIU,	 /* CRIU's own helper memory in a frozen task */
	MAP_NAME_MAX,
};

struct map {
	uint64_t start, end;
	uint64_t offset; /* bytes, in the file */
	uint64_t device; /* makedev() */
	uint64_t inode;	 /* 0: anonymous */
	enum map_name name;
	bool readable, writable, executable, shared;
	bool vdso;
	bool locked; /* only after maps_mark_locked() */
};

struct maps {
	struct map *maps;
	size_t n_maps, n_allocated;
};

#define _cleanup_maps_ _cleanup_(maps_free)

void maps_free(struct maps *m);

/* Appends what the text says; text must end in NUL and is not changed. -EBADMSG: not such a file. */
int maps_parse(const char *text, size_t length, struct maps *m);

/* Reads /proc/PID/maps, ascending. -ESRCH: no such process or no memory of its own (ended). */
int maps_read(pid_t pid, struct maps *ret, struct error *err);

/* Marks the mappings whose VmFlags in such a text of /proc/PID/smaps say "lo". Addresses that m lacks are skipped. */
void maps_parse_locked(const char *text, struct maps *m);

/* The same from /proc/PID/smaps, which is slow; read only when VmLck of /proc/PID/status is not 0. */
int maps_mark_locked(pid_t pid, struct maps *m, struct error *err);

/* The first mapping that ends after `at`, or n_maps. */
size_t maps_find(const struct maps *m, uint64_t at);

/* The bytes from the end of the mapping before maps[i] to the start of the one behind it: what grows or comes beside maps[i] later lies in them. */
void maps_surroundings(const struct maps *m, size_t i, uint64_t *ret_start, uint64_t *ret_end);

/* A field "Name:\t<number>" of /proc/PID/status, in the unit it has there. -ENOENT: no such field. */
int status_read_number(pid_t pid, const char *field, uint64_t *ret);
