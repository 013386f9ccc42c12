/*
 * One line on a terminal that is redrawn while a migration goes on.
 */
#pragma once

#include <stdbool.h>

#include "migration/migration.h"

struct live {
	int fd; /* of the terminal; -1: none, everything here does nothing */
	uint64_t started_ns;
	const char *phase;
	bool progress_known;
	struct migration_progress progress;
};

/* Whether fd is a terminal on which a line can be redrawn. */
bool live_possible(int fd);
void live_begin(struct live *l, int fd);

/* Takes an event in and redraws. Never waits for the terminal: a line that would block is not drawn. */
void live_event(struct live *l, const struct migration_event *event);

/* The line as it would be drawn now, `columns` wide at most. Pure. */
void live_format(const struct live *l, uint64_t now_ns, size_t columns, char *out, size_t size);

/* Erases the line, so that other output can follow. */
void live_clear(struct live *l);
void live_end(struct live *l);
