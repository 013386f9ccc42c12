/*
 * The source's way back to a target whose answer did not come: reconnect, ask what its journal says, send COMMIT or ABORT again
 * (docs/handover.md, "After a break").
 */
#pragma once

#include "migration/journal.h"
#include "migration/session.h"
#include "transport/endpoint.h"

#define RECONNECT_TIMEOUT_MS_DEFAULT 60000

struct handover_link {
	struct endpoint endpoint;
	struct tls_identity *identity;
	const char *expected_name; /* of the target's certificate; NULL over ssh */
	uint8_t route[ROUTE_BYTES];
	struct uuid id;
	int64_t timeout_ms;
	int cancel_fd;
	const char *journals; /* directory: where the operator's word may appear (journal_word()) */
};

enum handover_verdict {
	HANDOVER_UNKNOWN,
	HANDOVER_RUNNING,     /* it runs there, or the operator says so: end it here */
	HANDOVER_ABORTED,     /* the target durably gave it up */
	HANDOVER_KEEP_SOURCE, /* the operator, or a fence, says that the target's copy is dead */
};

/*
 * Asks until the verdict is known or the deadline passes; a target that is prepared gets COMMIT. Only with `committed` in our
 * journal, and the tasks held. The session is the one that answered last, for what follows (DONE). err says what was found last when the
 * verdict is unknown; reason gets the target's words.
 */
enum handover_verdict handover_learn(const struct handover_link *link, uint64_t deadline_ns, struct session *session,
				     uint64_t *ret_resume_ns, struct error *err);

/* A session (the old one is ended) with a target in which the migration runs already, and which takes further channels: with the worker
 * that holds it, or one that takes its place (link->route is changed then). -EAGAIN: the target says something else; err has it. */
int handover_rejoin_running(struct handover_link *link, struct session *session, struct error *err);

/*
 * Before the freeze: takes the session up again over a new control channel, if the target still has what came. 0: *ret_state says what came,
 * and the further channels are to be dialled now. -ECONNABORTED: the target gave up; -ECANCELED; anything else: not now.
 */
int handover_rejoin(const struct handover_link *link, struct session *session, Phaul__Wire__Control **ret_state,
		    struct error *err);

/* Delivers ABORT to a target that may be prepared; 0 when it has forgotten (or knows nothing), -ETIMEDOUT. */
int handover_abort(const struct handover_link *link, uint64_t deadline_ns, const char *reason, struct error *err);

/* Runs FENCE ID PEER; true when it exits with 0: that host's copy is certainly dead. NULL: false. */
bool handover_fence(const char *fence, const char *id, const char *peer);
