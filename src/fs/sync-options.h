/*
 * The source's command line for rsync.
 */
#pragma once

#include "base/error.h"
#include "fs/sync.h"

struct sync_options {
	char **argv; /* NULL-terminated */
	size_t n, n_allocated;
};

/* kind: 'd' or 'f'; helper_fd: what the helper finds the stream as. Free the result with sync_options_free(), also after -ENOMEM. */
int sync_options_make(const struct sync_tree *tree, char kind, bool listed, int helper_fd, struct sync_options *ret,
		      struct error *err);
void sync_options_free(struct sync_options *o);

/* "--exclude=/PATH" that matches just this path. NULL: no memory. */
char *sync_options_exclude(const char *path);
