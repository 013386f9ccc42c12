/*
 * Hard links at the target.
 */
#pragma once

#include <stdbool.h>

/* Whether a regular file below the directory has several names. fd stays the caller's. What cannot be read counts as one that has. */
bool links_below(int fd);
