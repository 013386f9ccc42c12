/*
 * manifest.json of a checkpoint: what it is, what it needs, and the size and checksum of each of its files.
 */
#pragma once

#include "driver/driver.h"

#define MANIFEST_VERSION 1
#define MANIFEST_PLAN "plan"
#define MANIFEST_IMAGES "images"
#define MANIFEST_TREES "trees"
#define MANIFEST_COMPRESSED ".zst"

struct manifest {
	char type[16], id[256],
		machine[64]; /* the last as uname(2) calls the architecture; written by manifest_write() */
	int criu_version;
	bool compressed;
	struct checkpoint_way way; /* of the dump; the restore needs the same. external is not kept */
};

/* Lists DIR/plan and all of DIR/images with their checksums, and writes DIR/manifest.json, synced. *ret_bytes: of what is listed. */
int manifest_write(const char *directory, const struct manifest *m, uint64_t *ret_bytes, struct error *err);

/* Reads it and compares every file: -EBADMSG names the first that is not as it was. */
int manifest_read(const char *directory, struct manifest *ret, uint64_t *ret_bytes, struct error *err);

/* Every image of a directory as zstd beside it, the original removed; and back into another directory, where images that are not
 * compressed are linked, or copied to another file system. */
int manifest_compress(const char *images, struct error *err);
int manifest_expand(const char *images, const char *to, struct error *err);
