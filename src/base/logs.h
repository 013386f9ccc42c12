/*
 * The logs of a work directory outlive it when something failed: the sentence that names them must not lead nowhere.
 */
#pragma once

#include <stddef.h>

/* Copies every *.log of `from` into the directory `to`, up to 2 MiB each, and where `text` (size bytes) names a path below `from` it names the
 * one below `to` afterwards. Best effort. */
void logs_keep(const char *from, const char *to, char *text, size_t size);
