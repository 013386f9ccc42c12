/*
 * What --json prints: one object per line, appended to a buffer. docs/man/phaul-migrate.1.scd is its reference.
 */
#pragma once

#include "base/buffer.h"
#include "migration/migration.h"

/* 0 or -ENOMEM. Nothing is appended for an event without news. */
int report_event(const struct migration_event *event, struct buffer *out);

/* The last line. */
int report_result(const struct migration_result *result, struct buffer *out);

/* One line per journal, for `phaul status --json`. */
int report_summary(const struct journal_summary *summary, struct buffer *out);

/* "migrated", "aborted", "unknown" or "checked". */
const char *report_outcome(enum migration_outcome outcome);
