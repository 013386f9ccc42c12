/*
 * CRIU's image files: reading entries, and mending what CRIU is known to write wrongly.
 *
 * Images may come from another host, so every length is checked and nothing is trusted. Mended files are replaced as a
 * whole (rename), so that a crash leaves the old or the new one. No state; any thread.
 * Source: criu/image.c (magic numbers), criu/protobuf.c (framing), images/{fdinfo,timerfd,pagemap,pstree}.proto.
 */
#include "criu/images.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fd.h"
#include "criu-images.pb-c.h"
#include "criu/criu.h"

#define MAGIC_COMMON 0x54564319U
#define MAGIC_FILES 0x56303138U
#define MAGIC_PAGEMAP 0x56084025U
#define MAGIC_PSTREE 0x50273030U

#define IMAGE_LIMIT (256U << 20)
#define IMAGE_HEAD 8
#define FILE_TIMERFD 17 /* fd_types of fdinfo.proto */
#define PAGEMAP_LAZY 2U /* PE_LAZY of criu/include/pagemap.h */
#define PAGE_BYTES 4096ULL

void image_free(struct image *image)
{
	buffer_free(&image->data);
}

static uint32_t read_u32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

int image_read(int directory_fd, const char *name, uint32_t magic, struct image *ret)
{
	_cleanup_image_ struct image image = { 0 };
	int r = fd_read_file(directory_fd, name, IMAGE_LIMIT, &image.data);

	if (r < 0)
		return r;
	if (image.data.length < IMAGE_HEAD || read_u32(image.data.data) != MAGIC_COMMON ||
	    read_u32(image.data.data + 4) != magic)
		return -EBADMSG;
	image.at = IMAGE_HEAD;
	*ret = image;
	image = (struct image){ 0 };
	return 0;
}

int image_next(struct image *image, const uint8_t **ret_entry, size_t *ret_length)
{
	size_t left = image->data.length - image->at, length;

	if (!left)
		return 0;
	if (left < 4)
		return -EBADMSG;
	length = read_u32(image->data.data + image->at);
	if (length > left - 4)
		return -EBADMSG;
	*ret_entry = image->data.data + image->at + 4;
	*ret_length = length;
	image->at += 4 + length;
	return 1;
}

static int append_entry(struct buffer *out, const uint8_t *entry, size_t length)
{
	uint32_t head = (uint32_t)length;
	int r = buffer_append(out, &head, sizeof(head));

	return r < 0 ? r : buffer_append(out, entry, length);
}

/*
 * A periodic timerfd that has expired and was not read is restarted by the kernel only when somebody reads it (or asks): until then
 * fdinfo says "it_value 0", CRIU writes that down, and a restored timer with value 0 is disarmed for ever. Unread ticks
 * tell it from one that was disarmed on purpose, since settime clears them. The next expiration is set one
 * interval ahead: the unread ticks are restored as well, so that the program wakes at once, as it would have.
 * With an absolute timer CRIU adds the present time to the value's seconds and not to its nanoseconds, so that the
 * timer comes up to one second early: it fires at once and goes on from there.
 * Source: timerfd_show(), timerfd_read_iter() in fs/timerfd.c of Linux; timerfd_arm() in criu/pie/restorer.c.
 */
static bool timer_needs_mending(const CriuImages__FileEntry *file)
{
	const CriuImages__TimerfdEntry *t = file->timerfd;

	return file->type == FILE_TIMERFD && t && t->ticks && !t->value_s && !t->value_ns &&
	       (t->interval_s || t->interval_ns);
}

/* Appends the entry to out, mended if need be: 1, as it is: 0. */
static int mend_entry(const uint8_t *entry, size_t length, struct buffer *out)
{
	CriuImages__FileEntry *file = criu_images__file_entry__unpack(NULL, length, entry);
	_cleanup_free_ uint8_t *packed = NULL;
	size_t n;
	int r;

	if (!file)
		return -EBADMSG;
	if (!timer_needs_mending(file)) {
		r = append_entry(out, entry, length);
		goto finish;
	}
	file->timerfd->value_s = file->timerfd->interval_s;
	file->timerfd->value_ns = file->timerfd->interval_ns;
	n = criu_images__file_entry__get_packed_size(file);
	packed = malloc(n);
	if (!packed) {
		r = -ENOMEM;
		goto finish;
	}
	criu_images__file_entry__pack(file, packed);
	r = append_entry(out, packed, n);
	if (!r)
		r = 1;
finish:
	criu_images__file_entry__free_unpacked(file, NULL);
	return r;
}

int criu_mend_images(const char *images_directory, struct error *err)
{
	_cleanup_close_ int directory_fd = open(images_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_image_ struct image image = { 0 };
	_cleanup_buffer_ struct buffer out = { 0 };
	const uint8_t *entry;
	size_t length;
	int r, n_mended = 0;

	r = directory_fd < 0 ? -errno : image_read(directory_fd, "files.img", MAGIC_FILES, &image);
	if (r == -ENOENT && directory_fd >= 0)
		return 0; /* a tree without any file */
	if (r < 0)
		return error_errno(err, -r, "cannot read files.img in %s", images_directory);
	r = buffer_append(&out, image.data.data, IMAGE_HEAD);
	while (!r && (r = image_next(&image, &entry, &length)) > 0) {
		r = mend_entry(entry, length, &out);
		if (r > 0) {
			n_mended++;
			r = 0;
		}
	}
	if (!r && n_mended)
		r = fd_write_file(directory_fd, "files.img", out.data, out.length, 0600);
	if (r < 0)
		return error_errno(err, -r, "cannot mend files.img in %s", images_directory);
	return n_mended;
}

struct lazy_list {
	struct criu_lazy_range *ranges;
	size_t n, allocated;
};

static int lazy_append(struct lazy_list *list, int32_t pid, uint64_t start, uint64_t end)
{
	struct criu_lazy_range *last = list->n ? &list->ranges[list->n - 1] : NULL;

	if (last && last->image_pid == pid && last->end == start) {
		last->end = end;
		return 0;
	}
	if (list->n == list->allocated) {
		size_t allocated = list->allocated ? list->allocated * 2 : 64;
		struct criu_lazy_range *grown = reallocarray(list->ranges, allocated, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		list->ranges = grown;
		list->allocated = allocated;
	}
	list->ranges[list->n++] = (struct criu_lazy_range){ .image_pid = pid, .start = start, .end = end };
	return 0;
}

/* One pagemap-PID.img: a head, then entries. */
static int lazy_read_pagemap(int directory_fd, const char *name, int32_t pid, struct lazy_list *list)
{
	_cleanup_image_ struct image image = { 0 };
	const uint8_t *entry;
	size_t length;
	bool is_head = true;
	int r = image_read(directory_fd, name, MAGIC_PAGEMAP, &image);

	while (!r && (r = image_next(&image, &entry, &length)) > 0) {
		CriuImages__PagemapEntry *e;

		r = 0;
		if (is_head) {
			is_head = false;
			continue;
		}
		e = criu_images__pagemap_entry__unpack(NULL, length, entry);
		if (!e)
			return -EBADMSG;
		if (e->flags & PAGEMAP_LAZY) {
			uint64_t n_pages = e->has_nr_pages ? e->nr_pages : e->compat_nr_pages;

			if (e->vaddr % PAGE_BYTES || n_pages > (UINT64_MAX - e->vaddr) / PAGE_BYTES)
				r = -EBADMSG;
			else if (n_pages)
				r = lazy_append(list, pid, e->vaddr, e->vaddr + n_pages * PAGE_BYTES);
		}
		criu_images__pagemap_entry__free_unpacked(e, NULL);
	}
	return r;
}

int criu_lazy_ranges(const char *images_directory, struct criu_lazy_range **ret, size_t *ret_n, struct error *err)
{
	_cleanup_closedir_ DIR *d = opendir(images_directory);
	struct lazy_list list = { 0 };

	if (!d)
		return error_errno(err, errno, "cannot open %s", images_directory);
	for (struct dirent *e = readdir(d); e; e = readdir(d)) {
		int32_t pid;
		int end = 0, r;

		/* pagemap-shmem-ID.img has no lazy pages and does not match. */
		if (sscanf(e->d_name, "pagemap-%d.img%n", &pid, &end) != 1 || !end || e->d_name[end])
			continue;
		r = lazy_read_pagemap(dirfd(d), e->d_name, pid, &list);
		if (r < 0) {
			free(list.ranges);
			return error_errno(err, -r, "cannot read %s in %s", e->d_name, images_directory);
		}
	}
	*ret = list.ranges;
	*ret_n = list.n;
	return 0;
}

int images_read_pids(const char *directory, pid_t **ret, size_t *ret_n)
{
	_cleanup_close_ int directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_image_ struct image image = { 0 };
	_cleanup_free_ pid_t *pids = NULL;
	const uint8_t *entry;
	size_t length, n = 0;
	int r = directory_fd < 0 ? -errno : image_read(directory_fd, "pstree.img", MAGIC_PSTREE, &image);

	while (!r && (r = image_next(&image, &entry, &length)) > 0) {
		CriuImages__PstreeEntry *e = criu_images__pstree_entry__unpack(NULL, length, entry);
		pid_t *grown = e ? reallocarray(pids, n + 1, sizeof(*pids)) : NULL;

		if (grown) {
			pids = grown;
			pids[n++] = (pid_t)e->pid;
		}
		r = !e ? -EBADMSG : !grown ? -ENOMEM : 0;
		if (e)
			criu_images__pstree_entry__free_unpacked(e, NULL);
	}
	if (r < 0)
		return r;
	*ret = TAKE_PTR(pids);
	*ret_n = n;
	return 0;
}

/* The last id in the log counts: `criu swrk` makes one twice, and a restore works with that of the dump. CRIU composes
 * "inet CRIU-ID" in 32 bytes, which cuts the name (criu/netfilter.c, 4.2). */
int criu_network_table(const char *log_path, char *ret, size_t size)
{
	static const char marker[] = "CRIU run id = ";
	_cleanup_fclose_ FILE *f = fopen(log_path, "re");
	bool found = false;
	char line[512], name[32 - sizeof("inet ") + 1];

	while (f && fgets(line, sizeof(line), f)) {
		const char *id = strstr(line, marker);

		if (!id)
			continue;
		id += strlen(marker);
		snprintf(name, sizeof(name), "CRIU-%.*s", (int)strcspn(id, " \n"), id);
		snprintf(ret, size, "%s", name);
		found = true;
	}
	return found ? 0 : -ENOENT;
}
