/*
 * How a migration is shown: as JSON, on a terminal, in plain lines, or not at all.
 */
#pragma once

#include "base/buffer.h"
#include "cli/live.h"
#include "migration/migration.h"

enum show_kind {
	SHOW_QUIET, /* obstacles and failures only */
	SHOW_PLAIN,
	SHOW_LIVE,
	SHOW_JSON,
};

struct show {
	enum show_kind kind;
	const struct migration_options *options;
	struct live live;
	struct buffer out, err; /* for stdout and stderr, not yet written */
	bool hold;		/* the workload is frozen: write nothing that could block */
	bool out_broken;
	size_t n_refusing;
};

void show_begin(struct show *s, enum show_kind kind, const struct migration_options *options);
void show_event(struct show *s, const struct migration_event *event);

/* The end: summary or failure; returns the exit status (enum cli_status). */
int show_result(struct show *s, const struct migration_result *result);
