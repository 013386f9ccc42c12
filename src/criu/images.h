/* CRIU's image files, as far as criu/ needs them. Inside criu/ only. Source: criu/image.c, criu/protobuf.c, images/. */
#pragma once

#include <sys/types.h>

#include "base/buffer.h"

#define IMAGE_HEAD 8 /* the two magic numbers */

/* One image file in memory, read entry by entry: "u32 length, message" behind two magic numbers. */
struct image {
	struct buffer data;
	size_t at; /* the next entry */
};

#define _cleanup_image_ _cleanup_(image_free)

void image_free(struct image *image);

/* magic: the second number. -ENOENT, -EBADMSG when it is another kind of file. */
int image_read(int directory_fd, const char *name, uint32_t magic, struct image *ret);

/* 1 and the entry (valid as long as the image), 0 at the end, -EBADMSG. */
int image_next(struct image *image, const uint8_t **ret_entry, size_t *ret_length);

/* The pids of pstree.img, root first, as in the tree's own pid namespace. The caller frees. */
int images_read_pids(const char *directory, pid_t **ret, size_t *ret_n);

/* The nftables table (inet) of the CRIU run with that id. */
void criu_table_of_run(const char *id, size_t length, char *ret, size_t size);

/* The one that the inventory names, if the lock is one. -ENOENT, or another negative errno. */
int criu_inventory_table(const char *images_directory, char *ret, size_t size);
