/*
 * The content of a small file system in memory, as one archive: what `tar --create --gzip --numeric-owner` makes of it and `tar --extract --gzip` takes,
 * but made in the process, and stored rather than compressed. For a CRIU, which otherwise starts tar, and tar a shell and gzip, for every
 * tmpfs, in the freeze.
 *
 * Only what is simple: directories, devices, links, pipes and few small files. Anything else is tar's business: -ENOTSUP.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define ARCHIVE_MAX (2u << 20) /* bytes of the tar; beyond it compressing pays */

#define TAR_BLOCK 512u

/* POSIX.1-2017, pax, "ustar Interchange Format": numbers are octal digits. */
struct tar_header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
	char magic[8]; /* "ustar", 0, "00" */
	char uname[32], gname[32], major[8], minor[8], prefix[155], rest[12];
};

_Static_assert(sizeof(struct tar_header) == TAR_BLOCK, "a header is a block");

struct archive {
	uint8_t *bytes; /* the tar */
	size_t n;
};

void archive_free(struct archive *a);

/* Of all that lies below the directory, on its file system; sockets are left out. -ENOTSUP; another negative errno. */
int archive_make(int directory_fd, struct archive *ret);

/* As gzip, to fd. */
int archive_write(const struct archive *a, int fd);

/* What archive_write() wrote, from where fd stands on, without moving it; all of it is checked. -ENOTSUP: it is something else. */
int archive_read(int fd, struct archive *ret);

/* Into an empty directory. No name leads out of it. Negative errno: parts may be there. */
int archive_extract(const struct archive *a, int directory_fd);

uint32_t archive_checksum(const struct tar_header *h);
uint32_t archive_crc(const uint8_t *bytes, size_t n);
