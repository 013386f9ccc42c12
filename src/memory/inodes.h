/*
 * The files that the processes map, by (device, inode): what kind each is, and for shared memory its space and what was
 * found written in it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "memory/maps.h"
#include "memory/space.h"

enum inode_kind {
	INODE_INVALID,
	INODE_FILE,  /* a regular file on a real file system */
	INODE_SHMEM, /* tmpfs, memfd, SysV, shared anonymous */
	INODE_HUGETLB,
	INODE_DEVICE, /* a device, or another thing that is not memory */
	INODE_KIND_MAX,
};

/* Written pages of a shared object, seen through one mapping. */
struct inode_piece {
	uint64_t offset, end; /* bytes in the object */
	pid_t pid;
	uint64_t pid_address;
};

struct inode_entry {
	uint64_t device, inode;
	enum inode_kind kind;
	uint32_t space;	      /* 0: none; a shared object that was mapped once */
	uint64_t seen;	      /* the update that last met it */
	uint64_t seen_shared; /* the same, mapped shared */
	struct inode_piece *pieces;
	size_t n_pieces, n_allocated;
};

struct inode_table {
	struct inode_entry **slots;
	size_t n_slots, n_entries;
};

void inode_table_free(struct inode_table *t);

/* The entry of the file behind a mapping; it is looked at once (through /proc/PID/map_files). NULL: no memory, or the
 * mapping has just gone. */
struct inode_entry *inode_table_get(struct inode_table *t, pid_t pid, const struct map *map, uint64_t update);

/* Forgets all that the given update did not meet. */
void inode_table_expire(struct inode_table *t, uint64_t update);

int inode_add_piece(struct inode_entry *e, const struct inode_piece *piece);

/* The union of the pieces as runs, each page once, ascending; the pieces are forgotten. */
int inode_take_runs(struct inode_entry *e, struct page_runs *ret);
