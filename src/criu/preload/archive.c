/*
 * Making and writing an archive: see archive.h.
 *
 * The tar is put together in memory, so that nothing has been written when something turns up that is not simple.
 * Source: POSIX.1-2017, pax (ustar); RFC 1951 (stored blocks), RFC 1952 (gzip).
 */
#include "archive.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "gzip.h"

#define DEPTH_MAX 16
#define ID_MAX 07777777u /* seven octal digits */

void archive_free(struct archive *a)
{
	free(a->bytes);
	*a = (struct archive){ 0 };
}

uint32_t archive_checksum(const struct tar_header *h)
{
	const uint8_t *bytes = (const uint8_t *)h;
	const size_t from = offsetof(struct tar_header, checksum), to = from + sizeof(h->checksum);
	uint32_t sum = 0;

	for (size_t i = 0; i < sizeof(*h); i++)
		sum += i >= from && i < to ? ' ' : bytes[i];
	return sum;
}

uint32_t archive_crc(const uint8_t *bytes, size_t n)
{
	uint32_t table[256], crc = ~0u;

	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
		table[i] = c;
	}
	for (size_t i = 0; i < n; i++)
		crc = table[(crc ^ bytes[i]) & 255] ^ crc >> 8;
	return ~crc;
}

/* Room for n bytes more, zeroed, in whole blocks. NULL: the archive would be too large. */
static uint8_t *extend(struct archive *a, size_t n)
{
	uint8_t *at = a->bytes + a->n;

	n = (n + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
	if (n > ARCHIVE_MAX - a->n)
		return NULL;
	a->n += n;
	return at;
}

static char type_of(const struct stat *st)
{
	switch (st->st_mode & S_IFMT) {
	case S_IFDIR:
		return '5';
	case S_IFREG:
		return '0';
	case S_IFLNK:
		return '2';
	case S_IFCHR:
		return '3';
	case S_IFBLK:
		return '4';
	case S_IFIFO:
		return '6';
	default:
		return 0;
	}
}

static int add_header(struct archive *a, int parent_fd, const char *name, const char *path, const struct stat *st)
{
	struct tar_header *h = (struct tar_header *)extend(a, sizeof(*h));
	bool device = S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode), content = S_ISREG(st->st_mode);
	char link[sizeof(h->link) + 1];
	ssize_t n;

	if (!h || strlen(path) >= sizeof(h->name) || st->st_uid > ID_MAX || st->st_gid > ID_MAX || st->st_mtime < 0 ||
	    st->st_mtime > 077777777777 || (device && (major(st->st_rdev) > ID_MAX || minor(st->st_rdev) > ID_MAX)) ||
	    (content && st->st_nlink > 1) || (content && st->st_size > ARCHIVE_MAX))
		return -ENOTSUP;
	memcpy(h->name, path, strlen(path));
	if (name && S_ISLNK(st->st_mode)) {
		n = readlinkat(parent_fd, name, link, sizeof(link));
		if (n <= 0)
			return n ? -errno : -ENOTSUP;
		if ((size_t)n >= sizeof(h->link))
			return -ENOTSUP;
		memcpy(h->link, link, (size_t)n);
	}
	snprintf(h->mode, sizeof(h->mode), "%07o", st->st_mode & 07777u);
	snprintf(h->uid, sizeof(h->uid), "%07o", st->st_uid);
	snprintf(h->gid, sizeof(h->gid), "%07o", st->st_gid);
	snprintf(h->size, sizeof(h->size), "%011lo", content ? (unsigned long)st->st_size : 0);
	snprintf(h->mtime, sizeof(h->mtime), "%011lo", (unsigned long)st->st_mtime);
	snprintf(h->major, sizeof(h->major), "%07o", device ? major(st->st_rdev) : 0);
	snprintf(h->minor, sizeof(h->minor), "%07o", device ? minor(st->st_rdev) : 0);
	memcpy(h->magic, "ustar\00000", sizeof(h->magic));
	h->type = type_of(st);
	snprintf(h->checksum, sizeof(h->checksum), "%06o", archive_checksum(h));
	return 0;
}

static int add_content(struct archive *a, int parent_fd, const char *name, const struct stat *st)
{
	uint8_t *at = extend(a, (size_t)st->st_size);
	int fd = at ? openat(parent_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
	off_t done = 0;
	ssize_t n = 1;

	if (fd < 0)
		return at ? -errno : -ENOTSUP;
	while (done < st->st_size && n > 0) {
		n = read(fd, at + done, (size_t)(st->st_size - done));
		done += n > 0 ? n : 0;
	}
	close(fd);
	return done == st->st_size ? 0 : -ENOTSUP;
}

static int add_directory(struct archive *a, int fd, const char *path, dev_t device, int depth);

/* path: of the directory, with a slash behind it. */
static int add_entry(struct archive *a, int parent_fd, const char *path, const char *name, dev_t device, int depth)
{
	char full[sizeof(((struct tar_header *)0)->name) + 2];
	struct stat st;
	int fd, r;

	if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISSOCK(st.st_mode))
		return 0;
	if (st.st_dev != device || !type_of(&st))
		return -ENOTSUP;
	if (snprintf(full, sizeof(full), "%s%s%s", path, name, S_ISDIR(st.st_mode) ? "/" : "") >= (int)sizeof(full))
		return -ENOTSUP;
	r = add_header(a, parent_fd, name, full, &st);
	if (!r && S_ISREG(st.st_mode) && st.st_size)
		r = add_content(a, parent_fd, name, &st);
	if (r < 0 || !S_ISDIR(st.st_mode))
		return r;
	fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : add_directory(a, fd, full, device, depth + 1);
}

/* Takes fd over. */
static int add_directory(struct archive *a, int fd, const char *path, dev_t device, int depth)
{
	DIR *directory = fdopendir(fd);
	int r = depth > DEPTH_MAX ? -ENOTSUP : 0;

	if (!directory) {
		close(fd);
		return -ENOMEM;
	}
	while (!r) {
		const struct dirent *e;

		errno = 0;
		e = readdir(directory);
		if (!e) {
			r = -errno;
			break;
		}
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = add_entry(a, dirfd(directory), path, e->d_name, device, depth);
	}
	closedir(directory);
	return r;
}

int archive_make(int directory_fd, struct archive *ret)
{
	struct archive a = { .bytes = calloc(1, ARCHIVE_MAX) };
	struct stat st;
	int fd, r;

	if (!a.bytes)
		return -ENOMEM;
	r = fstat(directory_fd, &st) < 0 ? -errno : add_header(&a, -1, NULL, "./", &st);
	if (!r) {
		fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = fd < 0 ? -errno : add_directory(&a, fd, "./", st.st_dev, 0);
	}
	/* Two blocks of zeros end it. */
	if (!r && !extend(&a, (size_t)2 * TAR_BLOCK))
		r = -ENOTSUP;
	if (r < 0)
		archive_free(&a);
	else
		*ret = a;
	return r;
}

static int write_full(int fd, const void *bytes, size_t n)
{
	const uint8_t *at = bytes;

	while (n) {
		ssize_t done = write(fd, at, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		at += done;
		n -= (size_t)done;
	}
	return 0;
}

int archive_write(const struct archive *a, int fd)
{
	size_t blocks = (a->n + GZIP_BLOCK_MAX - 1) / GZIP_BLOCK_MAX;
	uint8_t *out = malloc(GZIP_HEAD_BYTES + blocks * GZIP_BLOCK_HEAD_BYTES + a->n + GZIP_TAIL_BYTES), *at = out;
	int r;

	if (!out)
		return -ENOMEM;
	memcpy(at, gzip_head, GZIP_HEAD_BYTES);
	at += GZIP_HEAD_BYTES;
	for (size_t done = 0, n; done < a->n; done += n) {
		n = a->n - done < GZIP_BLOCK_MAX ? a->n - done : GZIP_BLOCK_MAX;
		*at++ = done + n == a->n; /* the last one; kind 0, stored */
		gzip_put(&at, (uint32_t)n, 2);
		gzip_put(&at, ~(uint32_t)n, 2);
		memcpy(at, a->bytes + done, n);
		at += n;
	}
	gzip_put(&at, archive_crc(a->bytes, a->n), 4);
	gzip_put(&at, (uint32_t)a->n, 4);
	r = write_full(fd, out, (size_t)(at - out));
	free(out);
	return r;
}
