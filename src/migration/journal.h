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
bool state_finished(enum migration_state state);    /* nobody has to settle anything */
bool state_may_follow(enum migration_side side, enum migration_state from, enum migration_state to);

struct journal;

/* What the first record says; strings are copied. */
struct journal_subject {
	enum migration_side side;
	const char *type, *workload; /* "pid", "4711" */
	const char *peer;	     /* for people: host and address */
	const char *peer_identity;   /* the name in its certificate; "" over ssh */
};

/* A journal is locked (a lock of its open file) by the process that drives the migration, for as long as that lives: what is unfinished
 * and not locked was left behind by a crash. */

/* Makes the directory and the first record (STATE_PLANNED). -EEXIST: there is such a migration already. */
int journal_create(const char *directory, const struct uuid *id, const struct journal_subject *subject,
		   struct journal **ret, struct error *err);

/* The one function through which a migration changes its state: refuses (-EINVAL) what the table does not allow, writes and
 * syncs the record, logs it. reason may be NULL. */
int journal_enter(struct journal *j, enum migration_state state, const char *reason, struct error *err);

/* A fact beside the states, for people and for recovery: "root_pid" = 4711. Synced. */
int journal_note(struct journal *j, const char *key, int64_t value, struct error *err);

/* A longer one. On disk with the next synced record. */
int journal_note_text(struct journal *j, const char *key, const char *text, struct error *err);

/* A note = 1 that is not synced: it outlives this process, not this boot of the host (journal_same_boot()). */
int journal_mark(struct journal *j, const char *key, struct error *err);

enum migration_state journal_state(const struct journal *j);
enum migration_side journal_side(const struct journal *j);
const char *journal_id(const struct journal *j);
const char *
journal_place(const struct journal *j); /* DIRECTORY/ID: what belongs to this migration and outlives a crash */
void journal_free(struct journal *j);

/* What a journal on disk says. */
struct journal_summary {
	struct uuid id;
	enum migration_side side;
	enum migration_state state;
	char type[16], workload[256], peer[256], peer_identity[256], reason[512], time[40];
	uint64_t records;
	bool driven; /* a process works on it */
	bool torn;   /* the last record was incomplete and is left out */
};

int journal_read(const char *directory, const struct uuid *id, struct journal_summary *ret, struct error *err);

/* Opens an existing one to go on with. -ENOENT; -EBUSY: somebody drives it. */
int journal_open(const char *directory, const struct uuid *id, struct journal **ret, struct error *err);

/* Of a journal that was opened: members of its records and notes, the last of that name; "" and 0 when there is none. */
const char *journal_fact(const struct journal *j, const char *key);
int64_t journal_fact_number(const struct journal *j, const char *key);

/* Whether this host has not been started again since: pids and addresses are still what they were. */
bool journal_same_boot(const struct journal *j);

/* The word of the operator (phaul resolve) to a process that drives the migration: which side is to keep the workload; SIDE_INVALID:
 * none was given. */
int journal_say(const char *directory, const struct uuid *id, enum migration_side keep, struct error *err);
enum migration_side journal_word(const char *directory, const struct uuid *id);

#define JOURNAL_KEEP 200
#define JOURNAL_KEEP_S (30LL * 24 * 3600)
#define EMPTY_KEEP_S 3600

/* Removes finished journals that are older than JOURNAL_KEEP_S or not among the newest JOURNAL_KEEP, and those without
 * any record that are older than EMPTY_KEEP_S. Failures are logged. */
void journal_expire(const char *directory);

/* All migrations of a directory, oldest first; *ret is malloc'ed. A journal that cannot be read is logged and left out. */
int journal_list(const char *directory, struct journal_summary **ret, size_t *ret_n, struct error *err);
