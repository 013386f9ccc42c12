/*
 * Reading an archive and making of it what it was: see archive.h.
 *
 * Invariants: an archive comes from another host. Its frame, its check sums, its numbers and all of its names are looked at before anything is made. Whatever
 * is made is made in a directory that was reached without a symbolic link, below the one that was given.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "archive.h"
#include "gzip.h"

/* What a header says, once checked. */
struct entry {
	char path[101],
		link[101]; /* path: below the directory, without a slash at either end; empty: the directory itself */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	dev_t device;
	struct timespec mtime;
	const uint8_t *content;
	size_t size;
};

/* Octal digits and then nothing but zeros and spaces. */
static int number(const char *field, size_t size, uint64_t *ret)
{
	size_t i = 0;

	for (*ret = 0; i < size && field[i] >= '0' && field[i] <= '7'; i++)
		*ret = *ret << 3 | (uint64_t)(field[i] - '0');
	for (size_t j = i; j < size; j++)
		if (field[j] && field[j] != ' ')
			return -EBADMSG;
	return i ? 0 : -EBADMSG;
}

/* Each part is a name. */
static bool path_plain(const char *path)
{
	while (*path) {
		size_t n = strcspn(path, "/");

		if (!n || (n == 1 && path[0] == '.') || (n == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		path += n;
		if (*path == '/' && !*++path)
			return false;
	}
	return true;
}

static int parse_type(char type, mode_t *ret)
{
	static const struct {
		char type;
		mode_t mode;
	} types[] = { { '5', S_IFDIR }, { '0', S_IFREG }, { '2', S_IFLNK },
		      { '3', S_IFCHR }, { '4', S_IFBLK }, { '6', S_IFIFO } };

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (types[i].type == type) {
			*ret = types[i].mode;
			return 0;
		}
	return -EBADMSG;
}

static int parse_name(const struct tar_header *h, struct entry *e)
{
	size_t n = strnlen(h->name, sizeof(h->name));

	if (h->prefix[0] || n < 2 || h->name[0] != '.' || h->name[1] != '/')
		return -EBADMSG;
	memcpy(e->path, h->name + 2, n - 2);
	if (S_ISDIR(e->mode) && n > 2 && e->path[n - 3] == '/')
		e->path[n - 3] = 0;
	memcpy(e->link, h->link, strnlen(h->link, sizeof(h->link)));
	return path_plain(e->path) && (e->path[0] || S_ISDIR(e->mode)) && (e->link[0] || !S_ISLNK(e->mode)) ? 0
													    : -EBADMSG;
}

static int parse(const struct archive *a, size_t *at, struct entry *ret)
{
	const struct tar_header *h = (const struct tar_header *)(a->bytes + *at);
	uint64_t mode, uid, gid, size, mtime, check, major, minor;
	size_t room = a->n - *at - TAR_BLOCK;
	struct entry e = { 0 };

	if (memcmp(h->magic, "ustar\00000", sizeof(h->magic)) != 0 ||
	    number(h->checksum, sizeof(h->checksum), &check) < 0 || check != archive_checksum(h) ||
	    number(h->mode, sizeof(h->mode), &mode) < 0 || number(h->uid, sizeof(h->uid), &uid) < 0 ||
	    number(h->gid, sizeof(h->gid), &gid) < 0 || number(h->size, sizeof(h->size), &size) < 0 ||
	    number(h->mtime, sizeof(h->mtime), &mtime) < 0 || number(h->major, sizeof(h->major), &major) < 0 ||
	    number(h->minor, sizeof(h->minor), &minor) < 0 || parse_type(h->type, &e.mode) < 0 || mode > 07777 ||
	    size > room || (size && !S_ISREG(e.mode)))
		return -EBADMSG;
	if (parse_name(h, &e) < 0)
		return -EBADMSG;
	e.mode |= (mode_t)mode;
	e.uid = (uid_t)uid;
	e.gid = (gid_t)gid;
	e.device = makedev((unsigned int)major, (unsigned int)minor);
	e.mtime.tv_sec = (time_t)mtime;
	e.content = a->bytes + *at + TAR_BLOCK;
	e.size = size;
	*at += TAR_BLOCK + (size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
	*ret = e;
	return 0;
}

/* *at: 0 for the first one. 0: no more. */
static int next(const struct archive *a, size_t *at, struct entry *ret)
{
	static const uint8_t zeros[TAR_BLOCK];

	if (*at + TAR_BLOCK > a->n)
		return -EBADMSG; /* it has an end */
	if (memcmp(a->bytes + *at, zeros, TAR_BLOCK) == 0)
		return 0;
	return parse(a, at, ret) < 0 ? -EBADMSG : 1;
}

static int check(const struct archive *a)
{
	struct entry e;
	size_t at = 0;
	int r;

	do
		r = next(a, &at, &e);
	while (r > 0);
	return r;
}

/* Takes the frame off, in place. */
static int unwrap(struct archive *a)
{
	const uint8_t *at = a->bytes + GZIP_HEAD_BYTES, *end = a->bytes + a->n;
	uint8_t *to = a->bytes;
	bool last = false;

	while (!last) {
		uint32_t n, complement;

		if ((size_t)(end - at) < GZIP_BLOCK_HEAD_BYTES + GZIP_TAIL_BYTES || *at > 1)
			return -EBADMSG;
		last = *at++;
		n = gzip_get(&at, 2);
		complement = gzip_get(&at, 2);
		if ((n ^ complement) != 0xffff || (size_t)(end - at) < n + GZIP_TAIL_BYTES)
			return -EBADMSG;
		memmove(to, at, n);
		to += n;
		at += n;
	}
	a->n = (size_t)(to - a->bytes);
	if (gzip_get(&at, 4) != archive_crc(a->bytes, a->n) || gzip_get(&at, 4) != a->n || at != end)
		return -EBADMSG;
	return a->n % TAR_BLOCK ? -EBADMSG : check(a);
}

int archive_read(int fd, struct archive *ret)
{
	const size_t max = ARCHIVE_MAX + 4096;
	struct archive a = { .bytes = malloc(max) };
	off_t from = lseek(fd, 0, SEEK_CUR);
	ssize_t n = 1;
	int r = 0;

	if (!a.bytes)
		return -ENOMEM;
	while (from >= 0 && n > 0 && a.n < max) {
		n = pread(fd, a.bytes + a.n, max - a.n, from + (off_t)a.n);
		a.n += n > 0 ? (size_t)n : 0;
	}
	if (from < 0 || n || a.n < GZIP_HEAD_BYTES || memcmp(a.bytes, gzip_head, GZIP_HEAD_BYTES) != 0)
		r = -ENOTSUP;
	if (!r)
		r = unwrap(&a);
	if (r < 0)
		archive_free(&a);
	else
		*ret = a;
	return r;
}

/* The directory that the path's last part is made in; *ret_name: that part. */
static int open_parent(int directory_fd, const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	const struct open_how how = { .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
				      .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV };
	char parent[sizeof(((struct entry *)0)->path)] = ".";
	long fd;

	*ret_name = slash ? slash + 1 : path;
	if (slash) {
		memcpy(parent, path, (size_t)(slash - path));
		parent[slash - path] = 0;
	}
	fd = syscall(SYS_openat2, directory_fd, parent, &how, sizeof(how));
	return fd < 0 ? -errno : (int)fd;
}

static int make_file(int parent_fd, const char *name, const struct entry *e)
{
	int fd = openat(parent_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), r = 0;

	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < e->size && !r;) {
		ssize_t n = write(fd, e->content + done, e->size - done);

		if (n < 0 && errno != EINTR)
			r = -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	return r;
}

/* Owner, permissions (after the owner, who would take the set-user-ID bit away) and time. */
static int set_attributes(int parent_fd, const char *name, const struct entry *e)
{
	const struct timespec times[2] = { e->mtime, e->mtime };

	if (fchownat(parent_fd, name, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
	    (!S_ISLNK(e->mode) && fchmodat(parent_fd, name, e->mode & 07777, 0) < 0) ||
	    utimensat(parent_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

static int make_entry(int directory_fd, const struct entry *e)
{
	const char *name;
	int fd, r = 0;

	if (!e->path[0])
		return 0; /* it is there */
	fd = open_parent(directory_fd, e->path, &name);
	if (fd < 0)
		return fd;
	if (S_ISDIR(e->mode))
		r = mkdirat(fd, name, 0700) < 0 ? -errno : 0;
	else if (S_ISLNK(e->mode))
		r = symlinkat(e->link, fd, name) < 0 ? -errno : 0;
	else if (S_ISREG(e->mode))
		r = make_file(fd, name, e);
	else
		r = mknodat(fd, name, (e->mode & S_IFMT) | 0600, e->device) < 0 ? -errno : 0;
	if (!r && !S_ISDIR(e->mode))
		r = set_attributes(fd, name, e);
	close(fd);
	return r;
}

/* When all is in it: what is made in a directory changes its time. */
static int finish_directory(int directory_fd, const struct entry *e)
{
	const char *name;
	int fd, r;

	if (!e->path[0])
		return set_attributes(directory_fd, ".", e);
	fd = open_parent(directory_fd, e->path, &name);
	if (fd < 0)
		return fd;
	r = set_attributes(fd, name, e);
	close(fd);
	return r;
}

int archive_extract(const struct archive *a, int directory_fd)
{
	struct entry e;
	size_t at = 0;
	int r;

	while ((r = next(a, &at, &e)) > 0) {
		r = make_entry(directory_fd, &e);
		if (r < 0)
			return r;
	}
	at = 0;
	while (!r && (r = next(a, &at, &e)) > 0)
		r = S_ISDIR(e.mode) ? finish_directory(directory_fd, &e) : 0;
	return r;
}
