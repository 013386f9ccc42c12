/*
 * The names that a listed pass looks at, as rsync --from0 --files-from reads them, relative to the tree, each behind "./" (a name may begin
 * with '#') and terminated by NUL:
 *
 *   ./a/file    a file, or a directory's own attributes; when it is not there, the target's is deleted
 *   ./a/dir/    the directory with what is in it: what the target has more of is deleted
 *
 * A struct changes is used by one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "fs/sync.h"

enum change_kind {
	CHANGE_ATTRIBUTES = 1 << 0,    /* mode, owner, times, extended attributes */
	CHANGE_CONTENT = 1 << 1,       /* written through a file descriptor */
	CHANGE_CLOSED = 1 << 2,	       /* closed by somebody who could write, perhaps through a mapping */
	CHANGE_NAME = 1 << 3,	       /* the name came or went */
	CHANGE_NEW_DIRECTORY = 1 << 4, /* what is below it may never have been told of */
};

struct changes;

/* tree must stay until changes_free(). */
int changes_new(const struct sync_tree *tree, struct changes **ret, struct error *err);

/* `name` in the directory `directory`, both relative to the tree ("" is the tree itself; name "." the directory). What is excluded is left out. */
int changes_add(struct changes *c, const char *directory, const char *name, uint32_t kinds, struct error *err);

/* All of the tree. */
int changes_add_all(struct changes *c, struct error *err);

/* Appends the list, each name once, with all names of files that have several; *ret_n: how many. The tree is read for that. */
int changes_finish(struct changes *c, struct buffer *ret, size_t *ret_n, struct error *err);
void changes_free(struct changes *c);

static inline void changes_freep(struct changes **c)
{
	changes_free(*c);
}
