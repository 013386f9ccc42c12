/*
 * Where an engine finds CRIU: engines look for "criu" on PATH, and it has to be the one that phaul itself uses and has asked for its version.
 */
#pragma once

#include <limits.h>

#include "driver/driver.h"

#define SEARCH_PATH_MAX (2 * PATH_MAX)

/* "PATH=...", for the environment of an engine's restore: ours, where the order of criu_find() holds. Makes bin/criu in the work directory, where
 * PHAUL_CRIU names another program. */
int search_path_make(const struct driver_place *place, char *ret, size_t size, struct error *err);
