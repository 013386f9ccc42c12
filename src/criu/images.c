/*
 * CRIU's image files: reading entries, and what they say of lazy memory.
 *
 * Images may come from another host, so every length is checked and nothing is trusted. No state; any thread.
 * Source: criu/image.c (magic numbers), criu/protobuf.c (framing), images/{fdinfo,timerfd,pagemap,pstree}.proto.
 */
#include "criu/images.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "base/array.h"
#include "base/fd.h"
#include "criu-images.pb-c.h"
#include "criu/criu.h"

#define MAGIC_COMMON 0x54564319U
#define MAGIC_PAGEMAP 0x56084025U
#define MAGIC_MM 0x57492820U
#define MAGIC_PSTREE 0x50273030U

#define IMAGE_LIMIT (256U << 20)
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

struct lazy_list {
	struct criu_lazy_range *ranges;
	size_t n, allocated;
};

static int lazy_append(struct lazy_list *list, int32_t pid, uint64_t start, uint64_t end)
{
	if (list->n) {
		struct criu_lazy_range *last = &list->ranges[list->n - 1];

		if (last->image_pid == pid && last->end == start) {
			last->end = end;
			return 0;
		}
	}
	if (array_grow(&list->ranges, list->n, &list->allocated, 64, sizeof(*list->ranges)) < 0)
		return -ENOMEM;
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

/* vma_entry_can_be_lazy() of criu/include/vma.h, in our words: private anonymous memory that is not locked, not of huge pages
 * and not the kernel's own. */
static bool vma_is_lazy(const CriuImages__VmaEntry *vma)
{
	const uint32_t never = MAP_LOCKED | MAP_HUGETLB;
	const uint32_t kernels = 1 << 2 | 1 << 3 | 1 << 12; /* vsyscall, vdso, vvar */

	return vma->flags & MAP_ANONYMOUS && vma->flags & MAP_PRIVATE && !(vma->flags & never) &&
	       !(vma->status & kernels);
}

/* One mm-PID.img: a single message. */
static int lazy_read_mm(int directory_fd, const char *name, int32_t pid, struct lazy_list *list)
{
	_cleanup_image_ struct image image = { 0 };
	CriuImages__MmEntry *mm;
	const uint8_t *entry;
	size_t length;
	int r = image_read(directory_fd, name, MAGIC_MM, &image);

	if (!r)
		r = image_next(&image, &entry, &length);
	if (r <= 0)
		return r;
	mm = criu_images__mm_entry__unpack(NULL, length, entry);
	if (!mm)
		return -EBADMSG;
	r = 0;
	for (size_t i = 0; i < mm->n_vmas && !r; i++)
		if (vma_is_lazy(mm->vmas[i]))
			r = lazy_append(list, pid, mm->vmas[i]->start, mm->vmas[i]->end);
	criu_images__mm_entry__free_unpacked(mm, NULL);
	return r;
}

/* All images named `prefix`PID.img, each given to `take`. */
static int lazy_read_all(const char *images_directory, const char *prefix,
			 int (*take)(int directory_fd, const char *name, int32_t pid, struct lazy_list *list),
			 struct criu_lazy_range **ret, size_t *ret_n, struct error *err)
{
	_cleanup_closedir_ DIR *d = opendir(images_directory);
	struct lazy_list list = { 0 };

	if (!d)
		return error_errno(err, errno, "cannot open %s", images_directory);
	for (struct dirent *e = readdir(d); e; e = readdir(d)) {
		size_t n = strlen(prefix);
		int32_t pid;
		int end = 0, r;

		/* pagemap-shmem-ID.img has no lazy pages and does not match. */
		if (strncmp(e->d_name, prefix, n) != 0 || sscanf(e->d_name + n, "%d.img%n", &pid, &end) != 1 || !end ||
		    e->d_name[n + (size_t)end])
			continue;
		r = take(dirfd(d), e->d_name, pid, &list);
		if (r < 0) {
			free(list.ranges);
			return error_errno(err, -r, "cannot read %s in %s", e->d_name, images_directory);
		}
	}
	*ret = list.ranges;
	*ret_n = list.n;
	return 0;
}

int criu_lazy_ranges(const char *images_directory, struct criu_lazy_range **ret, size_t *ret_n, struct error *err)
{
	return lazy_read_all(images_directory, "pagemap-", lazy_read_pagemap, ret, ret_n, err);
}

int criu_lazy_areas(const char *images_directory, struct criu_lazy_range **ret, size_t *ret_n, struct error *err)
{
	return lazy_read_all(images_directory, "mm-", lazy_read_mm, ret, ret_n, err);
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
