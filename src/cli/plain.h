/*
 * A migration told in plain lines, appended to a buffer: for pipes, logs and the summary at the end.
 */
#pragma once

#include "base/buffer.h"
#include "migration/migration.h"

/* What a stage does, for people: "copying memory while it runs". */
const char *plain_phase(const char *phase);

/* All return 0 or -ENOMEM. */
int plain_event(const struct migration_event *event, struct buffer *out); /* nothing for progress and obstacles */
int plain_obstacle(const struct obstacle *obstacle, struct buffer *out);
int plain_summary(const struct migration_options *options, const struct migration_result *result, struct buffer *out);

/* The one sentence for a failure, without "phaul: ". n_refusing: obstacles that were shown and refuse; 0: name the reason. */
int plain_failure(const struct migration_options *options, const struct migration_result *result, size_t n_refusing,
		  struct buffer *out);
