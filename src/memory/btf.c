/*
 * BTF: see btf.h. One pass over the types notes where each begins; names are compared as they are asked for. No state; any thread.
 */
#include "memory/btf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btf.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/fd.h"

#define FILE_MAX_BYTES (256UL << 20)
#define NESTED_MAX 8 /* unnamed structures within one another */

void btf_free(struct btf *b)
{
	buffer_free(&b->file);
	free(b->types);
	*b = (struct btf){ 0 };
}

static const struct btf_type *type_at(const struct btf *b, uint32_t id)
{
	return id && id < b->n_types ? (const struct btf_type *)(const void *)b->types[id] : NULL;
}

static const char *name_at(const struct btf *b, uint32_t offset)
{
	return offset < b->strings_bytes ? b->strings + offset : "";
}

/* What follows the head of a type; -1: a kind that is not known, whose length is not either. */
static int64_t tail_bytes(const struct btf_type *t)
{
	int64_t n = BTF_INFO_VLEN(t->info);

	switch (BTF_INFO_KIND(t->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return 4;
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
	case BTF_KIND_DATASEC:
	case BTF_KIND_ENUM64:
		return n * 12;
	case BTF_KIND_ENUM:
	case BTF_KIND_FUNC_PROTO:
		return n * 8;
	case BTF_KIND_PTR:
	case BTF_KIND_FWD:
	case BTF_KIND_TYPEDEF:
	case BTF_KIND_VOLATILE:
	case BTF_KIND_CONST:
	case BTF_KIND_RESTRICT:
	case BTF_KIND_FUNC:
	case BTF_KIND_FLOAT:
	case BTF_KIND_TYPE_TAG:
		return 0;
	default:
		return -1;
	}
}

static int note_types(struct btf *b, const uint8_t *at, const uint8_t *end)
{
	size_t n = 1, allocated = 0;

	if (array_grow(&b->types, 0, &allocated, 1UL << 17, sizeof(*b->types)) < 0)
		return -ENOMEM;
	b->types[0] = NULL;
	while (at < end) {
		int64_t tail = end - at < (int64_t)sizeof(struct btf_type)
				       ? -1
				       : tail_bytes((const struct btf_type *)(const void *)at);

		if (tail < 0 || end - at - (int64_t)sizeof(struct btf_type) < tail)
			return -EBADMSG;
		if (array_grow(&b->types, n, &allocated, 0, sizeof(*b->types)) < 0)
			return -ENOMEM;
		b->types[n++] = at;
		at += (int64_t)sizeof(struct btf_type) + tail;
	}
	b->n_types = (uint32_t)n;
	return 0;
}

static int parse(struct btf *b)
{
	const struct btf_header *h = (const void *)b->file.data;
	const uint8_t *start;
	uint64_t room;

	if (b->file.length < sizeof(*h) || h->magic != BTF_MAGIC || h->version != BTF_VERSION ||
	    h->hdr_len > b->file.length || h->type_off % 4)
		return -EBADMSG;
	start = b->file.data + h->hdr_len;
	room = b->file.length - h->hdr_len;
	if (h->type_off > room || h->type_len > room - h->type_off || h->str_off > room || !h->str_len ||
	    h->str_len > room - h->str_off || start[h->str_off + h->str_len - 1])
		return -EBADMSG;
	b->strings = (const char *)start + h->str_off;
	b->strings_bytes = h->str_len;
	return note_types(b, start + h->type_off, start + h->type_off + h->type_len);
}

int btf_read(const char *path, struct btf *ret)
{
	struct btf b = { 0 };
	int r = fd_read_file(AT_FDCWD, path, FILE_MAX_BYTES, &b.file);

	if (!r)
		r = parse(&b);
	if (r < 0) {
		btf_free(&b);
		return r;
	}
	*ret = b;
	return 0;
}

static int find(const struct btf *b, uint32_t kind, const char *name)
{
	for (uint32_t id = 1; id < b->n_types; id++) {
		const struct btf_type *t = type_at(b, id);

		if (BTF_INFO_KIND(t->info) == kind && !strcmp(name_at(b, t->name_off), name))
			return (int)id;
	}
	return -ENOENT;
}

int btf_find_function(const struct btf *b, const char *name)
{
	return find(b, BTF_KIND_FUNC, name);
}

static int find_member_of(const struct btf *b, uint32_t id, const char *member, unsigned int depth, uint64_t *ret_bits)
{
	const struct btf_type *t = type_at(b, id);
	const struct btf_member *m;
	uint32_t kind = t ? BTF_INFO_KIND(t->info) : BTF_KIND_UNKN;

	if ((kind != BTF_KIND_STRUCT && kind != BTF_KIND_UNION) || depth == NESTED_MAX)
		return -ENOENT;
	m = (const void *)(t + 1);
	for (uint32_t i = 0; i < BTF_INFO_VLEN(t->info); i++) {
		uint64_t bits = BTF_INFO_KFLAG(t->info) ? BTF_MEMBER_BIT_OFFSET(m[i].offset) : m[i].offset, inner = 0;

		if (!strcmp(name_at(b, m[i].name_off), member)) {
			*ret_bits = bits;
			return 0;
		}
		if (!*name_at(b, m[i].name_off) && !find_member_of(b, m[i].type, member, depth + 1, &inner)) {
			*ret_bits = bits + inner;
			return 0;
		}
	}
	return -ENOENT;
}

int btf_find_member(const struct btf *b, const char *structure, const char *member, uint32_t *ret_offset)
{
	int id = find(b, BTF_KIND_STRUCT, structure);
	uint64_t bits = 0;
	int r = id < 0 ? id : find_member_of(b, (uint32_t)id, member, 0, &bits);

	if (r < 0 || bits % 8)
		return -ENOENT;
	*ret_offset = (uint32_t)(bits / 8);
	return 0;
}
