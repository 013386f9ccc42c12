/*
 * What the running kernel says about its own types: a reader for /sys/kernel/btf/vmlinux.
 *
 * Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
 */
#pragma once

#include <stdint.h>

#include "base/buffer.h"

struct btf {
	struct buffer file;
	const uint8_t **types; /* by id; 0 is void */
	uint32_t n_types;
	const char *strings;
	uint32_t strings_bytes;
};

/* -ENOENT: this kernel has none; -EBADMSG: not understood. */
int btf_read(const char *path, struct btf *ret);
void btf_free(struct btf *b);

/* The id of a function; -ENOENT: there is none of that name. */
int btf_find_function(const struct btf *b, const char *name);

/* Where in a structure, in bytes, a member of its own or of an unnamed part lies. -ENOENT: not there, or not on a byte. */
int btf_find_member(const struct btf *b, const char *structure, const char *member, uint32_t *ret_offset);
