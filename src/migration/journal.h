/*
 * The journal of one migration on one side, and the states it may be in (docs/handover.md).
 *
 * DIRECTORY/ID/journal, append-only: one record per line, `JSON checksum`, where checksum is the XXH3-64 of the JSON in hex. A
 * record is on disk (fsync) before the state it names has any effect. A torn last line is as if it had never been written.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"

#define JOURNAL_DIRECTORY_DEFAULT "/var/lib/phaul/migrations"

enum migration_state {
	STATE_INVALID,
	STATE_PLANNED,
	/* source */
	STATE_COPYING,
	STATE_FROZEN,
	STATE_COMMITTED, /* the point of no return: the source never resumes by itself from here on */
	STATE_SETTLED,
	/* target */
	STATE_RECEIVING,
	STATE_PREPARED,
	STATE_RESUMING,
	STATE_RUNNING,
	/* both */
	STATE_ABORTED,
	STATE_MAX,
};

enum migration_side {
	SIDE_INVALID,
	SIDE_SOURCE,
	SIDE_TARGET,
	SIDE_MAX,
};

const char *state_name(enum migration_state state);
enum migration_state state_parse(const char *name); /* STATE_INVALID when there is no such */
bool state_may_follow(enum migration_side side, enum migration_state from, enum migration_state to);

struct journal;

/* What the first record says; strings are copied. */
struct journal_subject {
	enum migration_side side;
	const char *type, *workload; /* "pid", "4711" */
	const char *peer;	     /* for people: host and address */
	const char *peer_identity;   /* the name in its certificate; "" over ssh */
};

/* Makes the directory and the first record (STATE_PLANNED). -EEXIST: there is such a migration already. */
int journal_create(const char *directory, const struct uuid *id, const struct journal_subject *subject,
		   struct journal **ret, struct error *err);

/* The one function through which a migration changes its state: refuses (-EINVAL) what the table does not allow, writes and
 * syncs the record, logs it. reason may be NULL. */
int journal_enter(struct journal *j, enum migration_state state, const char *reason, struct error *err);

/* A fact beside the states, for people and for recovery: "root_pid" = 4711. Synced. */
int journal_note(struct journal *j, const char *key, int64_t value, struct error *err);

enum migration_state journal_state(const struct journal *j);
void journal_free(struct journal *j);

/* What a journal on disk says. */
struct journal_summary {
	struct uuid id;
	enum migration_side side;
	enum migration_state state;
	char type[16], workload[256], peer[256], peer_identity[256], reason[512], time[40];
	bool torn; /* the last record was incomplete and is left out */
};

int journal_read(const char *directory, const struct uuid *id, struct journal_summary *ret, struct error *err);

/* All migrations of a directory, oldest first; *ret is malloc'ed. A journal that cannot be read is logged and left out. */
int journal_list(const char *directory, struct journal_summary **ret, size_t *ret_n, struct error *err);
