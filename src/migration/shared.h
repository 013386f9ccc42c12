/*
 * Whether a directory of this host and one of another are the same, on storage that both see: proved by a file that one makes and the
 * other finds. Its name and its content are 16 random bytes each.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define SHARED_NONCE_BYTES 16

struct shared_mark {
	int directory_fd;
	char file[64];
	uint8_t name[SHARED_NONCE_BYTES], content[SHARED_NONCE_BYTES];
	struct {
		int64_t s, ns;
	} modified; /* the directory, before */
};

/* Makes the file in `path`, or beside it when it is a file (`file`). What an earlier one that was killed left is removed. */
int shared_mark_make(const char *path, bool file, struct shared_mark *ret, struct error *err);

/* Removes the file, and gives the directory its time back. */
void shared_mark_remove(struct shared_mark *m);

/* The other side: whether it is there, for `path` as it is called here. Follows no symbolic link. */
bool shared_seen(const char *path, bool file, const uint8_t name[static SHARED_NONCE_BYTES],
		 const uint8_t content[static SHARED_NONCE_BYTES]);
