/*
 * The VmFlags of mappings, as /proc/PID/smaps prints them, without its walk over every page.
 *
 * smaps is the only file that shows whether a mapping is locked, kept from children or from core dumps and so on, and it counts the
 * pages of each mapping on the way: 5 ms and more per GiB. A small BPF iterator reads the flag word of each mapping instead. What
 * its bits are called is the kernel's own affair, so nothing is translated here: while the tasks still run, smaps is read
 * once beside the flag words, and the text that stood there for a word is taken when the word is met again. A word that was
 * never met has no text, and the caller does without.
 *
 * Needs BTF, BPF and iterators of one task's mappings (Linux 6.1), and root. One thread.
 */
#pragma once

#include <sys/types.h>

#include "base/buffer.h"
#include "base/error.h"
#include "memory/maps.h"

struct vma_flags;

/* -EOPNOTSUPP: this kernel does not let us; err says where it ended. */
int vma_flags_new(struct vma_flags **ret, struct error *err);
void vma_flags_free(struct vma_flags *f);

/* Learns from a running process. A failure costs nothing but what would have been learnt. */
int vma_flags_learn(struct vma_flags *f, pid_t pid, struct error *err);

/* Appends "PID START END FLAGS" lines of a stopped process, ascending, addresses hexadecimal. -ENODATA: not all its flag words
 * are known, and nothing was appended. */
int vma_flags_print(struct vma_flags *f, pid_t pid, struct buffer *text, struct error *err);

/* Marks the locked ones among the mappings of a stopped process, as maps_mark_locked() does. -ENODATA: not all is known, and
 * nothing was marked. */
int vma_flags_mark_locked(struct vma_flags *f, pid_t pid, struct maps *maps);
