/*
 * The frame of a gzip file of stored blocks that is told apart from anybody else's by its comment. Both of archive.c and unarchive.c, nobody else's.
 * Source: RFC 1952 (head and tail), RFC 1951, 3.2.4 (stored blocks).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define GZIP_BLOCK_MAX 65535u
#define GZIP_BLOCK_HEAD_BYTES 5u /* the kind, the length, its complement */
#define GZIP_TAIL_BYTES 8u	 /* the check sum, the length */

/* Magic number, deflate, "a comment follows", no time, no hints, Unix. */
static const uint8_t gzip_head[] = { 0x1f, 0x8b, 8, 0x10, 0, 0, 0, 0, 0, 3, 'p', 'h', 'a', 'u', 'l', 0 };
#define GZIP_HEAD_BYTES sizeof(gzip_head)

/* Little-endian. */
static inline void gzip_put(uint8_t **at, uint32_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		*(*at)++ = (uint8_t)(value >> (8 * i));
}

static inline uint32_t gzip_get(const uint8_t **at, int bytes)
{
	uint32_t value = 0;

	for (int i = 0; i < bytes; i++)
		value |= (uint32_t) * (*at)++ << (8 * i);
	return value;
}
