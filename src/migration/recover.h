/*
 * Taking up what a crash left, from the journal: phaul resume, phaul resolve, and the destination service when it starts.
 *
 * The journal was opened with journal_open(): nobody else works on it. Everything may be repeated; a failure in the middle leaves the
 * state as it was.
 */
#pragma once

#include "migration/handover.h"
#include "migration/journal.h"
#include "migration/migration.h"
#include "net/net.h"

/* At the target, in `running`: pages were still at the source; and: all have come. */
#define POSTCOPY_MARK "postcopy"
#define RESIDENT_MARK "resident"

/* The fact that says that pages stayed at the source, and whose: "SPACE:PID ...". */
#define RECOVER_SPACES "postcopy_spaces"

struct recover_options {
	const char *journals;	   /* directory */
	const char *pki_directory; /* NULL: the noted one */
	int64_t timeout_ms, reconnect_ms;
	const char *fence;
	enum migration_side keep; /* the operator's decision; SIDE_INVALID: find out */
	int cancel_fd;
};

/* The work files, unless the user asked to keep them. */
void recover_remove_files(const struct journal *j);

/* For the addresses that follow the workload. */
int recover_note_addresses(struct journal *j, const struct net_address *addresses, size_t n, struct error *err);
size_t recover_addresses(const struct journal *j, struct net_address ret[MIGRATION_ADDRESSES_MAX]);

/* Brings the source's half to an end. OUTCOME_MIGRATED (it runs there, nothing is left here), OUTCOME_ABORTED (it runs here, or never
 * left), OUTCOME_UNKNOWN with err: it stays stopped. Negative with err: something could not be done; try again. */
int recover_source(struct journal *j, const struct recover_options *options, enum migration_outcome *ret,
		   struct error *err);

/* Pages that stayed at the source (RECOVER_SPACES), given out until the target has all of them. The session with it stays open, for
 * DONE. Negative: it was out of reach for too long. */
int recover_serve_pages(const struct journal *j, const struct handover_link *link, int64_t reconnect_ms,
			struct session *session, struct error *err);

/* The target's half: what was not handed over is forgotten, what runs is acknowledged. OUTCOME_UNKNOWN: as above. */
int recover_target(struct journal *j, enum migration_side keep, enum migration_outcome *ret, struct error *err);

/* All of this host's target journals that nobody works on; failures are logged. */
void recover_targets(const char *journals);
