/*
 * The work directory of a source, from before there is a journal: whose process was killed then, nobody would remember it.
 */
#pragma once

#include "base/error.h"

/* Makes RUN/ID/images, and holds a lock on RUN/ID as long as *ret_lock is open. Before, removes what killed processes left below RUN: directories
 * of a migration that nobody holds and that has no journal below `journals`. */
int work_directory_make(const char *run, const char *id_text, const char *journals, int *ret_lock, struct error *err);
