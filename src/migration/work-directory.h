/*
 * Work directories: RUN/ID, and RUN/cpu-ID while a target compares the CPUs. They are there before there is a journal: whose process was killed
 * then, nobody would remember it.
 */
#pragma once

#include "base/error.h"
#include "base/uuid.h"

#define WORK_DIRECTORY_CPU "cpu-"

/* The migration that RUN/NAME belongs to; false: it is no work directory. */
bool work_directory_id(const char *name, struct uuid *ret);

/* A lock on RUN/NAME, a descriptor, to be held until it is removed, if a killed process left it: nobody holds it, it has no journal below
 * `journals` and no images in it. Otherwise -1. */
int work_directory_take_abandoned(int run_fd, const char *name, const char *journals);

/* Makes RUN/NAME, and holds a lock on it as long as *ret_lock is open, here or in a child. Before, removes those that were abandoned
 * below RUN, unless `journals` is NULL. */
int work_directory_make(const char *run, const char *name, const char *journals, int *ret_lock, struct error *err);
