/*
 * The target's insides, shared by the target-*.c files only.
 */
#pragma once

#include "criu/criu.h"
#include "driver/driver.h"
#include "memory/pager.h"
#include "memory/store.h"
#include "migration/container-net.h"
#include "migration/fetch.h"
#include "migration/images.h"
#include "migration/migration.h"
#include "migration/pass.h"
#include "migration/patcher.h"
#include "migration/receiver.h"
#include "migration/restorer.h"
#include "migration/session.h"
#include "net/guard.h"
#include "net/hold.h"

#define PAGE_CHANNELS 2
#define CHANNEL_TIMEOUT_MS 20000 /* for a further channel, once it was announced */

struct target {
	const struct target_options *options;
	struct session session;
	struct route *route; /* not owned */
	uint8_t route_id[ROUTE_BYTES];

	/* from HELLO and PLAN */
	struct uuid id;
	char id_text[UUID_TEXT_SIZE];
	bool greeted, planned, check_only;
	bool by_word;	    /* ... that another worker holds: target_by_word() takes what comes */
	bool resume_only;   /* a new session that asks for a migration of an old one */
	char journals[512]; /* directory */
	char identity[256]; /* of the source, for further channels */
	const struct driver_ops *driver;
	struct workload workload;
	struct net_address addresses[MIGRATION_ADDRESSES_MAX];
	size_t n_addresses;
	char *sync_paths[MIGRATION_SYNC_PATHS_MAX + 1];
	size_t n_sync_paths;
	bool shell_job, keep_images;
	bool no_start;			      /* restart mode: only prepared */
	bool started;			      /* restart mode: too late to undo */
	struct driver_options driver_options; /* strings are owned by `engine_texts` */
	char *engine_texts[4];

	/* from BEGIN on */
	struct journal *journal;
	char work_directory[512], images_directory[544];
	struct store *store;
	struct receiver *receiver;
	struct channel *fs_channels[MIGRATION_PASSES_MAX]; /* one for each path of the plan */
	struct pass *passes[MIGRATION_PASSES_MAX];	   /* under way (target-sync.c) */
	struct patcher *patcher;			   /* of large files, from BLOCKS on */
	struct image_sink sink;
	bool sink_open;

	/* the freeze */
	struct pager *pager;
	char engine_directory[544]; /* what an engine is told to restore from */
	struct driver_place place;
	bool prepared_place; /* the driver made something here: forget() is due on an abort */
	struct restorer *restorer;
	bool caught; /* there may be a table that holds what arrives */
	struct container_net net;
	bool net_taken;
	char locked[64]; /* CRIU's table in a network namespace that comes with the restore, to be removed by us */
	struct net_guard *guard; /* of the container's frames at this host's bridges: target-guard.c */
	struct net_neighbour neighbours[NET_NEIGHBOURS_MAX];
	size_t n_neighbours;
	char bridges[DRIVER_BRIDGES_MAX][IFNAMSIZ]; /* of a container whose network comes with the restore only */
	size_t n_bridges;
	struct net_hold *hold;
	struct net_hold_counts held;
	size_t n_addresses_set; /* added here, to be taken away by an abort */
	pid_t root_pid;
	uint64_t resumed_at_ns;

	/* post-copy: target-postcopy.c */
	struct channel *page_channels[PAGE_CHANNELS]; /* until the pager is there */
	struct fetch *fetch;

	/* a broken link, from `receiving` on: target-hold.c */
	uint32_t data_channels, further_channels; /* as BEGIN said; data and all */
	int64_t reconnect_ms;			  /* the source's */
	bool resumed_copy;	/* what came before was told; the first new data channel is to forget it */
	bool route_gone;	/* whoever passed us connections has ended */
	uint64_t hold_until_ns; /* in `receiving` and `running` */

	bool finished; /* the session is over as the protocol wants */
};

/* Handlers of the messages: each answers, or fails with err (the caller tells the source and aborts). */
int target_on_hello(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_plan(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_ping(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_begin(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_round(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_sync(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_sync_end(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_blocks(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_probe(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_arm(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_take(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_finish(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_commit(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_done(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_abort(struct target *t, const Phaul__Wire__Control *m, struct error *err);
int target_on_missing(struct target *t, const Phaul__Wire__Control *m, struct error *err);

int target_on_resume(struct target *t, const Phaul__Wire__Control *m, struct error *err);

/* Restart mode (target-restart.c). */
int target_restart_finish(struct target *t, struct error *err);
int target_restart_release(struct target *t, struct error *err);
int target_restart_done(struct target *t, struct error *err);

/* Makes the driver prepare the place, or forget it; target-place.c. */
int target_prepare_place(struct target *t, struct error *err);
void target_forget_place(struct target *t);

/* Where tree number i of the plan (paths of --sync first, then the workload's own) goes here; NULL: there is none. */
const char *target_pass_path(const struct target *t, uint32_t i, struct error *err);

/* What COMMIT leads to; also by the operator's word, without an answer. */
int target_release(struct target *t, struct error *err);

/* The next channel of this session and what it is for. */
int target_accept_channel(struct target *t, uint64_t deadline_ns, struct channel **ret,
			  enum frame_channel_kind *ret_kind, uint32_t *ret_index, struct error *err);

/* Post-copy: the channels, after ARM; the store of one space is checked and old versions forgotten, then the pages can be fetched. */
int target_take_page_channels(struct target *t, uint32_t n, struct error *err);
int target_apply_missing(struct target *t, uint32_t space, const struct range_set *present,
			 const struct range_set *missing, struct error *err);
int target_start_fetch(struct target *t, struct error *err);
/* After the death of the worker that did it; on success the journal is ours. */
int target_adopt_pager(struct target *t, struct journal **j, struct error *err);
bool target_lacks_pages(const struct target *t);
void target_end_fetch(struct target *t); /* idempotent */

/* Dialled after BEGIN and again after a RESUME that goes on: all data and file channels. 1: something came on the control
 * channel instead, or another one in its place. */
int target_take_channels(struct target *t, struct error *err);

/* Waits until a round has come on all data channels. */
int target_await_round(struct target *t, uint32_t round, const char *what, struct error *err);

/* Whether this failure only lost the link, and the journal's state outlives that. */
bool target_holds(const struct target *t, int failure);
void target_lose_link(struct target *t, const struct error *failure);

/* COMMIT or ABORT for a migration that another worker holds. */
int target_by_word(struct target *t, const Phaul__Wire__Control *m, struct error *err);

/* Without a link: waits for the source, the operator or a reason to end. 0: look again. */
int target_hold(struct target *t, struct error *err);

/* A connection of our route waits: if it is a new control channel of the source's, it takes the place of the old one. */
void target_rejoin(struct target *t);

/* Whether a file pass may replace that path here; asked in the plan, and again before each pass, whatever the source forces. */
bool target_may_sync(const struct target *t, const char *path);

/* Whether files are on their way; ends all that are, and their channels. */
/* The passes that go on end, and well; else it fails. */
int target_await_passes(struct target *t, struct error *err);
void target_end_passes(struct target *t);

/* target-net.c. arm: before the freeze, what will arrive is to wait. take: the addresses are ours. release: the tasks run. settle: all is over. undo: of
 * arm and take. */
int target_net_arm(struct target *t, struct error *err);
/* The images are here, CRIU has not begun: what it shall leave to us in a namespace that comes with the restore. */
int target_net_expect(struct target *t, struct error *err);
/* The tasks are held: a network namespace that CRIU has made out of the images, silent as the source's was, speaks up, and what arrives waits. */
int target_net_found(struct target *t, struct error *err);
int target_net_take(struct target *t, struct error *err);
void target_net_announce(struct target *t);
void target_net_release(struct target *t);
void target_net_settle(struct target *t);
void target_net_undo(struct target *t);

/* The same at the bridges (target-guard.c): before the engine makes anything; ARM; TAKE; the tasks run; all is over. */
void target_guard_begin(struct target *t);
int target_guard_arm(struct target *t, struct error *err);
int target_guard_take(struct target *t, struct error *err);
bool target_guard_holds(const struct target *t);
void target_guard_release(struct target *t);
void target_guard_settle(struct target *t);
/* An abort: before the source speaks again; when nothing of the container is left here. */
void target_guard_silence(struct target *t);
void target_guard_end(struct target *t);

/* Undoes everything this migration did here. Only before the resume; idempotent; failures are logged. */
void target_undo(struct target *t);
