/*
 * The target's insides, shared by the target-*.c files only.
 */
#pragma once

#include "criu/criu.h"
#include "driver/driver.h"
#include "memory/pager.h"
#include "memory/store.h"
#include "migration/images.h"
#include "migration/migration.h"
#include "migration/receiver.h"
#include "migration/session.h"

struct target {
	const struct target_options *options;
	struct session session;
	struct route *route; /* not owned */
	uint8_t route_id[ROUTE_BYTES];

	/* from HELLO and PLAN */
	struct uuid id;
	char id_text[UUID_TEXT_SIZE];
	bool greeted, planned, check_only;
	const struct driver_ops *driver;
	struct workload workload;
	struct net_address addresses[MIGRATION_ADDRESSES_MAX];
	size_t n_addresses;
	char *sync_paths[MIGRATION_SYNC_PATHS_MAX + 1];
	size_t n_sync_paths;
	bool shell_job, keep_images;

	/* from BEGIN on */
	struct journal *journal;
	char work_directory[512], images_directory[544];
	struct store *store;
	struct receiver *receiver;
	struct channel *fs_channel;
	struct image_sink sink;
	bool sink_open;

	/* the freeze */
	struct pager *pager;
	struct criu_job *criu;
	bool caught;		/* the addresses are caught */
	size_t n_addresses_set; /* added here, to be taken away by an abort */
	pid_t root_pid;
	uint64_t resumed_at_ns;

	bool finished; /* the session is over as the protocol wants */
};

/* Handlers of the messages: each answers, or fails with err (the caller tells the source and aborts). */
int target_on_hello(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_plan(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_ping(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_begin(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_round(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_sync(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_arm(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_finish(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_commit(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_done(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_abort(struct target *t, const Phaul__Wire__Control *m, struct error *err);

/* Undoes everything this migration did here. Only before the resume; idempotent; failures are logged. */
void target_undo(struct target *t);
