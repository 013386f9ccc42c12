/*
 * Changed names by fanotify: see watch.h.
 *
 * The mark is on the whole file system, for a mark on a mount does not see what a container does through its own. An event names a directory
 * by its file handle and an entry in it. The thread keeps a table of directories, by handle, and of entries in those that lie in the tree; a
 * directory's path is asked of the kernel anew when the list is taken, so it is the path of then: what was renamed meanwhile is named by an
 * event of its own, in the directory that holds it. "Lies outside" is forgotten when any directory of the file system was moved.
 *
 * Invariants: the tables are touched with the mutex held only. Once events are lost nothing is kept until the next take.
 */
#include "fs/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/stat.h>

#include "base/array.h"
#include "base/fd.h"
#include "fs/watch-place.h"

#define ENTRIES_MAX 65536
#define BUCKETS 16384 /* a power of two */
#define EVENTS                                                                                                         \
	(FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB | FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO |         \
	 FAN_ONDIR)

struct directory {
	struct file_handle *handle;
	bool inside;
	int32_t entries; /* the last one of it, -1: none */
	int32_t next;	 /* in its bucket, -1: none */
};

struct entry {
	char *name;
	uint32_t directory, kinds;
	int32_t sibling, next;
};

struct table {
	struct directory *directories;
	size_t n_directories, directories_allocated;
	struct entry *entries;
	size_t n_entries, entries_allocated;
	int32_t directory_buckets[BUCKETS], entry_buckets[BUCKETS];
};

struct watch {
	const struct sync_tree *tree;
	char *path; /* of the tree, without symbolic links */
	int fan_fd, tree_fd, stop_fd;
	pthread_t thread;
	bool running;
	pthread_mutex_t mutex;
	bool lost;
	struct error why; /* it is */
	struct table *table;
};

static struct table *table_new(void)
{
	struct table *t = calloc(1, sizeof(*t));

	if (t) {
		memset(t->directory_buckets, 0xff, sizeof(t->directory_buckets));
		memset(t->entry_buckets, 0xff, sizeof(t->entry_buckets));
	}
	return t;
}

static void table_free(struct table *t)
{
	for (size_t i = 0; t && i < t->n_entries; i++)
		free(t->entries[i].name);
	for (size_t i = 0; t && i < t->n_directories; i++)
		free(t->directories[i].handle);
	if (t) {
		free(t->entries);
		free(t->directories);
	}
	free(t);
}

static void lose(struct watch *w, const char *why)
{
	w->lost = true;
	error_set(&w->why, EOVERFLOW, "%s", why);
}

static uint32_t hash(const void *data, size_t length, uint32_t h)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < length; i++)
		h = (h ^ p[i]) * 16777619U; /* FNV-1a */
	return h;
}

static int path_of(int fd, char ret[PATH_MAX])
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret, PATH_MAX - 1);
	if (n < 0)
		return -errno;
	ret[n] = 0;
	return 0;
}

/* Where the directory is now, relative to the tree: 1; 0: not in the tree, or gone. path: PATH_MAX bytes. */
static int directory_path(const struct watch *w, struct file_handle *handle, char *path)
{
	_cleanup_close_ int fd = open_by_handle_at(w->tree_fd, handle, O_PATH | O_CLOEXEC);
	char text[PATH_MAX], root[PATH_MAX], place[2 * PATH_MAX];
	struct stat st, named;
	size_t top;
	int r;

	if (fd < 0)
		return errno == ESTALE || errno == ENOENT ? 0 : -errno;
	r = path_of(fd, text);
	/* The tree's own, as the kernel tells it now: a mount above it may have come or gone since (podman's, with its last container). */
	if (!r)
		r = path_of(w->tree_fd, root);
	if (r < 0)
		return r;
	top = strcmp(root, "/") != 0 ? strlen(root) : 0;
	if (strncmp(text, root, top) != 0 || (text[top] && text[top] != '/'))
		return 0;
	/* The kernel's text is relative to another root when the directory is not reached through the tree's mount. */
	snprintf(place, sizeof(place), "%s%s", w->path, text + top);
	if (fstat(fd, &st) < 0 || stat(place, &named) < 0 || st.st_ino != named.st_ino || st.st_dev != named.st_dev)
		return 0;
	memcpy(path, text + top + (text[top] == '/'), strlen(text + top) + (text[top] != '/'));
	return 1;
}

static void forget_outside(struct table *t)
{
	for (size_t i = 0; i < t->n_directories; i++)
		if (!t->directories[i].inside)
			t->directories[i].handle->handle_bytes = 0; /* matches nothing any more */
}

/* The number of the directory in the table, or a negative errno. */
static int find_directory(struct watch *w, struct file_handle *handle)
{
	size_t bytes = sizeof(*handle) + handle->handle_bytes;
	uint32_t bucket = hash(handle, bytes, 2166136261U) % BUCKETS;
	struct table *t = w->table;
	char path[PATH_MAX];
	struct directory *d;
	int inside;

	for (int32_t i = t->directory_buckets[bucket]; i >= 0; i = d->next) {
		d = &t->directories[i];
		if (d->handle->handle_bytes == handle->handle_bytes && !memcmp(d->handle, handle, bytes))
			return i;
	}
	inside = directory_path(w, handle, path);
	if (inside < 0)
		return inside;
	if (t->n_directories >= ENTRIES_MAX)
		return -E2BIG;
	if (array_grow(&t->directories, t->n_directories, &t->directories_allocated, 64, sizeof(*d)) < 0)
		return -ENOMEM;
	d = &t->directories[t->n_directories];
	*d = (struct directory){
		.handle = malloc(bytes), .inside = inside, .entries = -1, .next = t->directory_buckets[bucket]
	};
	if (!d->handle)
		return -ENOMEM;
	memcpy(d->handle, handle, bytes);
	t->directory_buckets[bucket] = (int32_t)t->n_directories;
	return (int)t->n_directories++;
}

static int note_entry(struct table *t, uint32_t directory, const char *name, uint32_t kinds)
{
	uint32_t bucket = hash(name, strlen(name), 2166136261U ^ directory) % BUCKETS;
	struct entry *e;

	for (int32_t i = t->entry_buckets[bucket]; i >= 0; i = e->next) {
		e = &t->entries[i];
		if (e->directory == directory && !strcmp(e->name, name)) {
			e->kinds |= kinds;
			return 0;
		}
	}
	if (t->n_entries >= ENTRIES_MAX)
		return -E2BIG;
	if (array_grow(&t->entries, t->n_entries, &t->entries_allocated, 256, sizeof(*e)) < 0)
		return -ENOMEM;
	e = &t->entries[t->n_entries];
	*e = (struct entry){ strdup(name), directory, kinds, t->directories[directory].entries,
			     t->entry_buckets[bucket] };
	if (!e->name)
		return -ENOMEM;
	t->directories[directory].entries = (int32_t)t->n_entries;
	t->entry_buckets[bucket] = (int32_t)t->n_entries++;
	return 0;
}

static uint32_t kinds_of(uint64_t mask)
{
	uint32_t kinds = 0;

	if (mask & FAN_ATTRIB)
		kinds |= CHANGE_ATTRIBUTES;
	if (mask & FAN_MODIFY)
		kinds |= CHANGE_CONTENT;
	if (mask & FAN_CLOSE_WRITE)
		kinds |= CHANGE_CLOSED;
	if (mask & (FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO))
		kinds |= CHANGE_NAME;
	if ((mask & FAN_ONDIR) && (mask & (FAN_CREATE | FAN_MOVED_TO)))
		kinds |= CHANGE_NEW_DIRECTORY;
	return kinds;
}

/* m: a copy of what stands at `event`, which is aligned to four bytes only. */
static void take_event(struct watch *w, const struct fanotify_event_metadata *m, const char *event)
{
	const struct fanotify_event_info_fid *info = (const void *)(event + sizeof(*m));
	struct file_handle *handle;
	int directory, r = 0;

	if (m->mask & FAN_Q_OVERFLOW)
		lose(w, "the kernel's queue of changes overflowed");
	if (w->lost || m->event_len < sizeof(*m) + sizeof(*info) ||
	    info->hdr.info_type != FAN_EVENT_INFO_TYPE_DFID_NAME)
		return;
	handle = (struct file_handle *)info->handle;
	if ((m->mask & FAN_ONDIR) && (m->mask & (FAN_MOVED_FROM | FAN_MOVED_TO)))
		forget_outside(w->table);
	directory = find_directory(w, handle);
	if (directory < 0)
		r = directory;
	else if (w->table->directories[directory].inside)
		r = note_entry(w->table, (uint32_t)directory, (char *)handle->f_handle + handle->handle_bytes,
			       kinds_of(m->mask));
	if (r == -E2BIG)
		lose(w, "more names changed than are remembered");
	else if (r < 0)
		lose(w, strerror(-r));
}

/* All that is queued. */
static void read_events(struct watch *w)
{
	char chunk[65536] __attribute__((aligned(8)));
	ssize_t n;

	while ((n = read(w->fan_fd, chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR)) {
		struct fanotify_event_metadata m;

		for (ssize_t at = 0; n - at >= (ssize_t)sizeof(m); at += m.event_len) {
			memcpy(&m, chunk + at, sizeof(m));
			if (m.event_len < sizeof(m) || m.event_len > n - at)
				break;
			take_event(w, &m, chunk + at);
		}
	}
	if (n < 0 && errno != EAGAIN)
		lose(w, strerror(errno));
}

static void *watch_main(void *arg)
{
	struct watch *w = arg;

	for (;;) {
		struct pollfd p[2] = { { .fd = w->fan_fd, .events = POLLIN }, { .fd = w->stop_fd, .events = POLLIN } };

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (p[1].revents)
			return NULL;
		pthread_mutex_lock(&w->mutex);
		read_events(w);
		pthread_mutex_unlock(&w->mutex);
	}
}

static int start(struct watch *w, struct error *err)
{
	int r;

	w->tree_fd = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	w->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (w->tree_fd < 0 || w->stop_fd < 0)
		return error_errno(err, errno, "cannot watch %s", w->path);
	w->fan_fd = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_DFID_NAME, O_RDONLY);
	if (w->fan_fd < 0 || fanotify_mark(w->fan_fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, EVENTS, w->tree_fd, NULL) < 0)
		return error_set(err, EOPNOTSUPP, "changes below %s cannot be watched: %s", w->path, strerror(errno));
	r = pthread_create(&w->thread, NULL, watch_main, w);
	if (r)
		return error_errno(err, r, "cannot start a thread that watches %s", w->path);
	w->running = true;
	return 0;
}

int watch_new(const struct sync_tree *tree, pid_t pid, struct watch **ret, struct error *err)
{
	struct watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return error_set(err, ENOMEM, "no memory to watch %s", tree->path);
	w->tree = tree;
	w->fan_fd = w->tree_fd = w->stop_fd = -1;
	pthread_mutex_init(&w->mutex, NULL);
	w->table = table_new();
	if (!w->table) {
		watch_free(w);
		return error_set(err, ENOMEM, "no memory to watch %s", tree->path);
	}
	w->path = realpath(tree->path, NULL);
	r = w->path ? watch_place_check(tree, w->path, pid, err)
		    : error_errno(err, errno, "cannot find %s", tree->path);
	if (!r)
		r = start(w, err);
	if (r < 0) {
		watch_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

size_t watch_pending(struct watch *w)
{
	size_t n;

	pthread_mutex_lock(&w->mutex);
	n = w->lost ? MAX(w->table->n_entries, (size_t)1) : w->table->n_entries;
	pthread_mutex_unlock(&w->mutex);
	return n;
}

static int add_entries(const struct watch *w, const struct table *t, struct changes *c, struct error *err)
{
	char path[PATH_MAX];
	int r = 0;

	for (size_t i = 0; i < t->n_directories && !r; i++) {
		const struct directory *d = &t->directories[i];
		int there = d->inside ? directory_path(w, d->handle, path) : 0;

		if (there < 0)
			return error_errno(err, -there, "cannot find a directory that changed below %s", w->path);
		for (int32_t k = there ? d->entries : -1; k >= 0 && !r; k = t->entries[k].sibling)
			r = changes_add(c, path, t->entries[k].name, t->entries[k].kinds, err);
	}
	return r;
}

int watch_take(struct watch *w, struct buffer *ret, size_t *ret_n, struct error *why)
{
	struct table *fresh = table_new(), *t;
	struct changes *c = NULL;
	bool known;
	int r;

	*ret_n = 0;
	if (!fresh)
		return error_set(why, ENOMEM, "no memory for the list of changed files");
	pthread_mutex_lock(&w->mutex);
	read_events(w);
	t = w->table;
	w->table = fresh;
	known = !w->lost;
	if (!known && why)
		*why = w->why;
	w->lost = false;
	pthread_mutex_unlock(&w->mutex);
	r = known ? changes_new(w->tree, &c, why) : 0;
	if (known && !r)
		r = add_entries(w, t, c, why);
	if (known && !r)
		r = changes_finish(c, ret, ret_n, why);
	changes_free(c);
	table_free(t);
	return r < 0 ? r : known;
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	if (w->running) {
		eventfd_write(w->stop_fd, 1);
		pthread_join(w->thread, NULL);
	}
	close_fd(&w->fan_fd);
	close_fd(&w->tree_fd);
	close_fd(&w->stop_fd);
	table_free(w->table);
	free(w->path);
	pthread_mutex_destroy(&w->mutex);
	free(w);
}
