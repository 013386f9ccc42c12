/*
 * Mapped files: see inodes.h. A hash table with open addressing; entries do not move. One thread.
 *
 * The kind comes from the file itself through /proc/PID/map_files, which works in any mount namespace and for deleted
 * files; the path in maps would not. Shared memory of every sort lies on a tmpfs of the kernel.
 */
#include "memory/inodes.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/array.h"

static void entry_free(struct inode_entry *e)
{
	if (e)
		free(e->pieces);
	free(e);
}

void inode_table_free(struct inode_table *t)
{
	for (size_t i = 0; i < t->n_slots; i++)
		entry_free(t->slots[i]);
	free(t->slots);
	*t = (struct inode_table){ 0 };
}

static size_t slot_of(const struct inode_table *t, uint64_t device, uint64_t inode)
{
	size_t i = (size_t)((inode * 0x9e3779b97f4a7c15ULL ^ device * 0xc2b2ae3d27d4eb4fULL) >> 20) & (t->n_slots - 1);

	while (t->slots[i] && (t->slots[i]->device != device || t->slots[i]->inode != inode))
		i = (i + 1) & (t->n_slots - 1);
	return i;
}

/* Moves the entries into a table of n slots, without those that `update` (unless 0) did not meet. */
static int rebuild(struct inode_table *t, size_t n, uint64_t update)
{
	struct inode_table new = { .slots = calloc(n, sizeof(*new.slots)), .n_slots = n };

	if (!new.slots)
		return -ENOMEM;
	for (size_t i = 0; i < t->n_slots; i++) {
		struct inode_entry *e = t->slots[i];

		if (!e)
			continue;
		if (update && e->seen != update) {
			entry_free(e);
			continue;
		}
		new.slots[slot_of(&new, e->device, e->inode)] = e;
		new.n_entries++;
	}
	free(t->slots);
	*t = new;
	return 0;
}

void inode_table_expire(struct inode_table *t, uint64_t update)
{
	/* Without memory for the smaller table the old entries stay, which only costs their memory. */
	if (t->n_slots)
		rebuild(t, t->n_slots, update);
}

static int kind_of(pid_t pid, const struct map *map, enum inode_kind *ret)
{
	struct statfs fs;
	struct stat st;
	char path[96];

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", (int)pid, (unsigned long)map->start,
		 (unsigned long)map->end);
	if (stat(path, &st) < 0 || statfs(path, &fs) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		*ret = INODE_DEVICE;
	else if (fs.f_type == TMPFS_MAGIC)
		*ret = INODE_SHMEM;
	else if (fs.f_type == HUGETLBFS_MAGIC)
		*ret = INODE_HUGETLB;
	else if (fs.f_type == ANON_INODE_FS_MAGIC)
		*ret = INODE_DEVICE;
	else
		*ret = INODE_FILE;
	return 0;
}

struct inode_entry *inode_table_get(struct inode_table *t, pid_t pid, const struct map *map, uint64_t update)
{
	enum inode_kind kind = INODE_INVALID;
	struct inode_entry *e;
	size_t i;

	if (t->n_entries * 2 >= t->n_slots && rebuild(t, t->n_slots ? t->n_slots * 2 : 256, 0) < 0)
		return NULL;
	i = slot_of(t, map->device, map->inode);
	e = t->slots[i];
	if (!e) {
		if (kind_of(pid, map, &kind) < 0)
			return NULL;
		e = calloc(1, sizeof(*e));
		if (!e)
			return NULL;
		*e = (struct inode_entry){ .device = map->device, .inode = map->inode, .kind = kind };
		t->slots[i] = e;
		t->n_entries++;
	}
	e->seen = update;
	return e;
}

int inode_add_piece(struct inode_entry *e, const struct inode_piece *piece)
{
	if (array_grow(&e->pieces, e->n_pieces, &e->n_allocated, 16, sizeof(*e->pieces)) < 0)
		return -ENOMEM;
	e->pieces[e->n_pieces++] = *piece;
	return 0;
}

static int compare_pieces(const void *a, const void *b)
{
	const struct inode_piece *x = a, *y = b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

int inode_take_runs(struct inode_entry *e, struct page_runs *ret)
{
	uint64_t done = 0;
	int r = 0;

	if (e->n_pieces)
		qsort(e->pieces, e->n_pieces, sizeof(*e->pieces), compare_pieces);
	for (size_t i = 0; i < e->n_pieces && !r; i++) {
		const struct inode_piece *p = &e->pieces[i];
		uint64_t from = p->offset > done ? p->offset : done;
		struct page_run run = { .space = e->space, .address = from, .pid = p->pid, .in_images = true };

		if (from >= p->end)
			continue;
		run.pages = (p->end - from) >> PAGE_SHIFT;
		run.pid_address = p->pid_address + (from - p->offset);
		done = p->end;
		r = page_runs_add(ret, &run);
	}
	e->n_pieces = 0;
	return r;
}
