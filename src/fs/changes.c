/*
 * From "this name changed" to rsync's list: see changes.h.
 *
 * What a name is now is asked of the file system, not of what happened: a name that is gone is listed so that the target loses it; a
 * directory that is new is listed with all below it. Of a file with several names rsync must see all, or it makes copies of
 * it: the tree is searched for them by inode number, which costs no stat.
 */
#include "fs/changes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/array.h"

struct changes {
	const struct sync_tree *tree;
	int fd; /* the tree */
	dev_t device;
	char **names;
	size_t n, n_allocated;
	ino_t *linked; /* files with several names, of which one is listed */
	size_t n_linked, n_linked_allocated;
};

int changes_new(const struct sync_tree *tree, struct changes **ret, struct error *err)
{
	struct changes *c = calloc(1, sizeof(*c));
	struct stat st;

	if (!c)
		return error_set(err, ENOMEM, "no memory for the list of changed files");
	c->tree = tree;
	c->fd = open(tree->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->fd < 0 || fstat(c->fd, &st) < 0) {
		int r = error_errno(err, errno, "cannot read the directory %s", tree->path);

		changes_free(c);
		return r;
	}
	c->device = st.st_dev;
	*ret = c;
	return 0;
}

void changes_free(struct changes *c)
{
	if (!c)
		return;
	close_fd(&c->fd);
	for (size_t i = 0; i < c->n; i++)
		free(c->names[i]);
	free(c->names);
	free(c->linked);
	free(c);
}

static int add_name(struct changes *c, const char *path, const char *end, struct error *err)
{
	if (array_grow(&c->names, c->n, &c->n_allocated, 256, sizeof(*c->names)) < 0 ||
	    asprintf(&c->names[c->n], "./%s%s", path, end) < 0)
		return error_set(err, ENOMEM, "no memory for the list of changed files");
	c->n++;
	return 0;
}

static int note_links(struct changes *c, const struct stat *st, struct error *err)
{
	if (S_ISDIR(st->st_mode) || st->st_nlink < 2 || st->st_dev != c->device)
		return 0;
	if (array_grow(&c->linked, c->n_linked, &c->n_linked_allocated, 16, sizeof(*c->linked)) < 0)
		return error_set(err, ENOMEM, "no memory for the list of changed files");
	c->linked[c->n_linked++] = st->st_ino;
	return 0;
}

static int join(char *path, const char *directory, const char *name)
{
	int n = !strcmp(name, ".") ? snprintf(path, PATH_MAX, "%s", directory)
				   : snprintf(path, PATH_MAX, "%s%s%s", directory, directory[0] ? "/" : "", name);

	return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* Calls `entry` for everything below a directory, parents first. What goes away meanwhile is left out. */
struct walk {
	struct changes *c;
	int (*entry)(struct changes *c, int dir_fd, const struct dirent *d, const char *path, bool directory,
		     struct error *err);
};

static int walk_directory(const struct walk *w, const char *directory, struct error *err)
{
	struct changes *c = w->c;
	int fd = openat(c->fd, directory[0] ? directory : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r = 0;
	_cleanup_closedir_ DIR *d = fd < 0 ? NULL : fdopendir(fd);
	_cleanup_free_ char *path = malloc(PATH_MAX);
	const struct dirent *e;

	if (!path)
		return error_set(err, ENOMEM, "no memory for the list of changed files");
	if (!d && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (!d) {
		r = error_errno(err, errno, "cannot read the directory %s/%s", c->tree->path, directory);
		close_fd(&fd);
		return r;
	}
	while (!r && (e = readdir(d))) {
		bool folder = e->d_type == DT_DIR;
		struct stat st;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (join(path, directory, e->d_name) < 0)
			return error_set(err, ENAMETOOLONG, "the path %s/%s is too long", directory, e->d_name);
		if (sync_tree_excludes(c->tree, path))
			continue;
		if (e->d_type == DT_UNKNOWN)
			folder = !fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode);
		r = w->entry(c, fd, e, path, folder, err);
		if (!r && folder)
			r = walk_directory(w, path, err);
	}
	return r;
}

static int deep_entry(struct changes *c, int dir_fd, const struct dirent *d, const char *path, bool directory,
		      struct error *err)
{
	struct stat st;

	if (directory)
		return add_name(c, path, "/", err);
	return fstatat(dir_fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : note_links(c, &st, err);
}

static int whole_entry(struct changes *c, int dir_fd, const struct dirent *d, const char *path, bool directory,
		       struct error *err)
{
	(void)dir_fd, (void)d;
	return directory ? add_name(c, path, "/", err) : 0;
}

static int compare_inodes(const void *a, const void *b)
{
	ino_t x = *(const ino_t *)a, y = *(const ino_t *)b;

	return x < y ? -1 : x > y;
}

static int link_entry(struct changes *c, int dir_fd, const struct dirent *d, const char *path, bool directory,
		      struct error *err)
{
	(void)dir_fd;
	if (directory || !bsearch(&d->d_ino, c->linked, c->n_linked, sizeof(*c->linked), compare_inodes))
		return 0;
	return add_name(c, path, "", err);
}

static int add_deep(struct changes *c, const char *path, struct error *err)
{
	struct walk w = { c, deep_entry };
	int r = add_name(c, path, path[0] ? "/" : ".", err);

	return r < 0 ? r : walk_directory(&w, path, err);
}

int changes_add_all(struct changes *c, struct error *err)
{
	struct walk w = { c, whole_entry };
	int r = add_name(c, "", ".", err);

	return r < 0 ? r : walk_directory(&w, "", err);
}

/* Closed by a writer, and nobody saw a write: a mapping may have been written, which need not move the time stamp, and then
 * rsync would not look. What the kernel could have done at any time since, is done now. */
static void make_seen(struct changes *c, const char *path, uint32_t kinds)
{
	if ((kinds & (CHANGE_CLOSED | CHANGE_CONTENT | CHANGE_NAME)) == CHANGE_CLOSED)
		(void)utimensat(c->fd, path, NULL, AT_SYMLINK_NOFOLLOW);
}

int changes_add(struct changes *c, const char *directory, const char *name, uint32_t kinds, struct error *err)
{
	char path[PATH_MAX];
	struct stat st;
	int r = 0;

	if (join(path, directory, name) < 0)
		return error_set(err, ENAMETOOLONG, "the path %s/%s is too long", directory, name);
	if (sync_tree_excludes(c->tree, path))
		return 0;
	/* The directory's own time stamp moved. */
	if ((kinds & CHANGE_NAME) && path[0])
		r = add_name(c, directory, directory[0] ? "" : ".", err);
	if (r < 0 || !path[0])
		return r < 0 ? r : add_name(c, "", ".", err);
	if (fstatat(c->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT && errno != ENOTDIR)
			return error_errno(err, errno, "cannot look at %s/%s", c->tree->path, path);
		return add_name(c, path, "", err);
	}
	if (S_ISDIR(st.st_mode))
		return kinds & CHANGE_NEW_DIRECTORY ? add_deep(c, path, err) : add_name(c, path, "", err);
	if (S_ISREG(st.st_mode))
		make_seen(c, path, kinds);
	r = add_name(c, path, "", err);
	return r < 0 ? r : note_links(c, &st, err);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int changes_finish(struct changes *c, struct buffer *ret, size_t *ret_n, struct error *err)
{
	struct walk w = { c, link_entry };
	int r = 0;

	if (c->n_linked) {
		qsort(c->linked, c->n_linked, sizeof(*c->linked), compare_inodes);
		r = walk_directory(&w, "", err);
	}
	if (c->n)
		qsort(c->names, c->n, sizeof(*c->names), compare_names);
	*ret_n = 0;
	for (size_t i = 0; i < c->n && !r; i++) {
		if (i && !strcmp(c->names[i], c->names[i - 1]))
			continue;
		if (buffer_append(ret, c->names[i], strlen(c->names[i]) + 1) < 0)
			r = error_set(err, ENOMEM, "no memory for the list of changed files");
		++*ret_n;
	}
	return r;
}
