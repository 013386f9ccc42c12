/*
 * The files that a tree needs at the target: gathered at the source, compared at the target.
 */
#pragma once

#include "driver/driver.h"
#include "driver/tree.h"

/* Fills ret->files and n_files from the processes of t. Blocks while it reads what must be hashed. */
int files_describe(const struct tree *t, struct workload *ret, struct error *err);

/* Compares w->files with what is here; those below synced_paths are left out. */
int files_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
		       struct error *err);

/* XXH3-64 of a regular file's content. 0 or a negative errno. */
int files_hash(const char *path, uint64_t *ret_hash);
