/*
 * The source's insides, shared by the source-*.c files only.
 *
 * A stage is a step of the migration with its undo. source.c runs them in order; when one fails, the undo of it and of all
 * before run in reverse order, and the tasks go on as if nothing had been tried. After `commit` there is no undo.
 */
#pragma once

#include <pthread.h>
#include <sys/stat.h>

#include "criu/criu.h"
#include "driver/driver.h"
#include "fs/sync.h"
#include "memory/dedup.h"
#include "memory/tracker.h"
#include "memory/vma-flags.h"
#include "migration/container-net.h"
#include "migration/handover.h"
#include "migration/heat.h"
#include "migration/images.h"
#include "migration/migration.h"
#include "migration/postcopy.h"
#include "migration/sender.h"
#include "migration/session.h"
#include "migration/subject.h"
#include "migration/throttle.h"
#include "net/guard.h"
#include "transport/pacer.h"

struct busy_space {
	uint32_t space;
	struct range_set set;
};

/* The present maps of all processes, as FINISH carries them. */
struct present_list {
	struct range_set *sets; /* one per entry of parts */
	Phaul__Wire__SpacePresent *parts, **pointers;
	size_t n;
	uint64_t pages;
};

void present_list_free(struct present_list *p);

/* A file that may go block by block in the last pass (source-blocks.c), as the target has it. */
struct large_file {
	char *name; /* relative to the tree */
	bool known; /* the rest is set */
	int64_t size;
	struct timespec mtime;
	struct buffer sums; /* fs/blocks.h */
};

/* A tree of files that goes along (source-sync.c). */
struct source_tree {
	struct sync_tree tree;
	bool file;	     /* a single one */
	struct stat seen;    /* of a single one, when its last pass began */
	bool probed, shared; /* both hosts see it: nothing is to be done */
	struct channel *channel;
	struct watch *watch;		/* NULL: every pass looks at all of it */
	char unwatched[ERROR_TEXT_MAX]; /* why */
	struct pass *pass;		/* started */
	bool fed;			/* it has its list */
	bool redo;			/* a list was lost with the link: all of it is looked at once */
	uint64_t fed_ns, ended_ns;
	struct large_file *large; /* that are likely to be written */
	size_t n_large, n_large_allocated;
};

/* How far CRIU has come in the dump, as it showed by opening a pipe. */
enum final_reached {
	FINAL_BEGUN,
	FINAL_MAPPINGS, /* all tasks are stopped, and it wants to know the first one's mappings */
	FINAL_PAGES,	/* it wants to know what it need not see */
};

/* How far the copy is: a link that breaks each time at the same place is not mended for ever. */
struct source_progress {
	size_t stage, path;
	uint32_t round;
	uint64_t pages_left;
};

struct stage;

struct source {
	const struct migration_options *options;
	struct migration_result result;
	char id_text[UUID_TEXT_SIZE];

	/* how far it is */
	const struct stage *stages; /* of the mode; source.c */
	size_t n_stages, stage;
	bool finished, undone;
	bool stage_again; /* the stage asked to be called again */
	uint64_t started_ns, stage_started_ns;
	struct migration_event *event; /* where a stage puts what it tells; valid during source_step() */
	size_t obstacle_next;	       /* obstacles are told one by one */

	/* plan */
	const struct driver_ops *driver;
	struct driver_options driver_options;
	struct workload workload;
	struct obstacles obstacles;
	struct checkpoint_way way;
	char work_directory[512], images_directory[544];
	int work_lock; /* says that it is in use */
	int criu_version;
	bool compare_cpus; /* the target can, and may */
	bool address_present[MIGRATION_ADDRESSES_MAX];

	/* connection */
	struct tls_identity *identity;
	struct session session;
	uint8_t route[ROUTE_BYTES];
	struct journal *journal;
	char journals[512], peer_identity[256];
	uint64_t round_trip_ns;
	bool begun;	      /* the target holds something for us */
	bool link_given_up;   /* it broke before the freeze, and did not come back in time */
	bool target_gave_up;  /* and said so: it need not be told */
	bool may_be_prepared; /* FINISH was sent: the target does not give up by itself any more */
	bool take_back; /* after the commit: the target, a fence or the operator says that it does not run there */

	/* memory */
	struct tracker *tracker;
	struct dedup_index *dedup;
	struct sender *sender;
	uint32_t encodings;    /* that may be used, and that the target takes */
	struct page_runs runs; /* all that is still to be sent, before the round under way */
	uint32_t round;
	uint64_t round_pages; /* as it began */
	bool round_under_way, last_round_begun;
	struct source_progress stalled; /* at the last reconnection */
	uint32_t stalls;		/* reconnections in a row that brought nothing */
	bool decided;			/* the decision after the last round was told, and is to be acted on */
	enum policy_decision decision;
	uint64_t scan_ns; /* of the last look at the page tables */
	uint32_t n_processes;
	bool hurry; /* what both ends were told last: not to stand back for others */
	uint64_t round_started_ns;
	struct policy_round rounds[MIGRATION_ITERATIONS_MAX];
	uint64_t progress_ns, progress_bytes;
	uint64_t spoke_ns; /* when the control channel was last used in a round */

	/* files */
	struct source_tree *trees;
	size_t n_trees;
	size_t sync_next;
	bool files_armed;	   /* every pass waits for the last list, as far as the link has not been lost since */
	struct session blocks;	   /* its channel, once there is a large file */
	uint64_t sync_final_at_ns; /* when the last passes got their lists; 0: not yet */

	/* convergence (source-converge.c) */
	struct heat heat;
	struct page_runs sending; /* of runs: the round under way, or about to be */
	struct page_runs left;	  /* the others: written in every round, or cut off */
	struct page_runs written; /* as of the last look */
	struct throttle *throttle;
	uint32_t throttle_percent;
	struct pacer pacer;
	uint64_t copy_started_ns;
	bool timed_out; /* the round under way was cut short */

	/* post-copy (source-postcopy.c) */
	struct postcopy postcopy;	/* its server is there from `arm` on */
	struct range_set *missing_sets; /* one per entry of present.parts */
	struct busy_space *busy;	/* written while they were copied */
	size_t n_busy;

	/* the final pass (source-final.c) */
	char hidden_path[544], flags_path[560];
	struct vma_flags *flags;    /* NULL: CRIU reads smaps by itself */
	struct page_runs late_runs; /* of the last list, what cannot be sent beside the dump */
	bool early_sending;	    /* the rest of it is being sent */
	struct present_list present;
	pthread_t final_thread;
	_Atomic bool final_canceled;
	_Atomic enum final_reached final_reached;
	bool final_taken, hidden;
	int final_result;
	struct error final_error;

	/* freeze */
	struct criu_job *criu;
	uint64_t frozen_at_ns, committed_at_ns, running_at_ns;
	struct container_net net;
	struct net_neighbour
		neighbours[NET_NEIGHBOURS_MAX]; /* of its own network namespace, as they were at the plan */
	size_t n_neighbours;
	bool addresses_given; /* removed here */
	bool firmly_stopped;
	bool stopped;	   /* restart mode: by its engine */
	bool engine_armed; /* driver->arm() was called */
	bool outcome_unknown;
	struct image_counters images;
};

enum stage_result {
	STAGE_DONE,  /* the next one */
	STAGE_AGAIN, /* there is something to tell; call again */
};

/* Each: STAGE_DONE, STAGE_AGAIN (s->event was filled), or a negative errno. */
int source_stage_describe(struct source *s, struct error *err);
int source_stage_connect(struct source *s, struct error *err);
int source_stage_plan(struct source *s, struct error *err);
int source_stage_begin(struct source *s, struct error *err);
int source_stage_sync(struct source *s, struct error *err);
int source_stage_copy(struct source *s, struct error *err);

/* Armed: what was written since the last look, once more beside the running workload. STAGE_AGAIN until it is through. */
int source_last_round(struct source *s, struct error *err);
int source_stage_arm(struct source *s, struct error *err);
int source_stage_freeze(struct source *s, struct error *err);
int source_stage_finish(struct source *s, struct error *err);
int source_stage_commit(struct source *s, struct error *err);
int source_stage_postcopy(struct source *s, struct error *err);
int source_stage_settle(struct source *s, struct error *err);
int source_stage_fill(struct source *s, struct error *err);

/* Restart mode (source-restart.c). */
int source_restart_again(struct source *s, struct error *err);
int source_restart_stop(struct source *s, struct error *err);
int source_restart_finish(struct source *s, struct error *err);
int source_restart_commit(struct source *s, struct error *err);
int source_restart_settle(struct source *s, struct error *err);
void source_restart_undo_stop(struct source *s);

/* BEGIN and its answer; between the two what the target lacks is brought. */
int source_call_begin(struct source *s, const Phaul__Wire__Control *request, struct error *err);

/* It runs at the target: what is left here is told so. */
void source_tell_engine(struct source *s);

/* Each: idempotent, best effort; failures are logged. */
void source_undo_connect(struct source *s);
void source_undo_begin(struct source *s);
void source_undo_copy(struct source *s);
void source_undo_arm(struct source *s);
void source_undo_freeze(struct source *s);

/* source-net.c. arm: before the freeze. give: the tasks are stopped. return: a rollback; idempotent, failures are logged. */
/* At the plan. */
int source_net_describe(struct source *s, struct error *err);
int source_net_arm(struct source *s, struct error *err);
int source_give_addresses(struct source *s, struct error *err);
void source_return_addresses(struct source *s);
void source_return_network(struct source *s); /* a container's, once CRIU's lock is off it */
void source_net_gone(struct source *s); /* the tasks are dead: a namespace that outlives them is silent for good */

/* The channels are there, for the first time or anew: what they may send is limited. */
void source_converge_channels(struct source *s);

/* Post-copy: whether it is due; its channels, in `arm`; the last list stays here, in the final pass; its part of the journal, before
 * FINISH. */
bool source_postcopy_wanted(const struct source *s);
int source_postcopy_arm(struct source *s, struct error *err);
int source_postcopy_leave(struct source *s, struct error *err);
int source_postcopy_prepare(struct source *s, struct error *err);
void source_postcopy_end(struct source *s); /* idempotent */

/* source-busy.c: pages that a later round sends, or the last list; what of them FINISH tells. */
void source_busy_note(struct source *s, const struct page_runs *runs);
void source_busy_tell(struct source *s);
void source_busy_free(struct source *s);

/* What the tracker reported: *written is taken over, and sorted into what is sent next and what is left for last. */
int source_converge_look(struct source *s, struct page_runs *written, const pid_t *pids, size_t n, struct error *err);

/* What was to be sent next waits for the next look, and is sorted anew with it. */
int source_converge_put_off(struct source *s, struct error *err);

/* After a round: what next? And, once that was told, its consequence: the workload is held back, or copying ends with a sentence. */
enum policy_decision source_converge_decide(struct source *s);
int source_converge_act(struct source *s, struct error *err);

/* In the middle of a round: is the time for copying over? */
int source_converge_check(struct source *s, struct error *err);

/* While a lost link is looked for the workload is not held back; and then as before. */
void source_converge_pause(struct source *s);
int source_converge_go_on(struct source *s, struct error *err);

/* A round goes on behind a break: if the time for copying is over, what did not arrive (taken over) is left for last. */
int source_converge_keep(struct source *s, struct page_runs *rest, struct error *err);

/* Right before the freeze: neither the workload nor we are held back any more. */
int source_converge_let_go(struct source *s, struct error *err);
void source_converge_end(struct source *s); /* idempotent */

/* Around the dump: the final pass is taken as soon as the tasks are stopped. `dumped` is the dump's result; a failure is handed
 * through. */
int source_final_begin(struct source *s, struct error *err);
int source_final_end(struct source *s, int dumped, struct error *err);

/* One round trip on the control channel: whether the target is there. */
int source_ping(struct source *s, struct error *err);

/* One more channel of this session. */
int source_open_channel(struct source *s, enum frame_channel_kind kind, uint32_t index, struct channel **ret,
			struct error *err);

/* Opens the session's data and file channels; the sender takes its own over. */
int source_open_channels(struct source *s, struct error *err);

/* A stage before the freeze failed with err: whether it only lost the link, and then whether that is mended (0: the stage is to be run
 * again). err is the reason otherwise. */
bool source_lost_link(const struct source *s, const struct error *err);
int source_reconnect(struct source *s, struct error *err);

/* The target's own sentence about why it broke a connection, if it is on the control channel or comes soon. */
void source_prefer_reason(struct source *s, struct error *err);

/* An engine may take longer to answer (image, container, network) than a peer may otherwise be silent. */
void source_engine_patience(struct source *s, bool patient);

/* Before the freeze: learns to answer what CRIU asks about mappings. Without it CRIU asks the kernel, and takes longer. */
void source_flags_prepare(struct source *s);

/* Tasks stopped: the answer, for these processes. */
void source_flags_answer(struct source *s, int fd, const pid_t *pids, size_t n);

/* Tasks stopped, the last list taken: begins to send it, but for what CRIU may change for a while (s->late_runs). */
int source_early_send(struct source *s, struct error *err);

/* CRIU is done: sends what could not be sent before, and waits until all is sent. */
int source_early_finish(struct source *s, struct error *err);

/* How the target is reached again. */
void source_link(const struct source *s, struct handover_link *ret);

/* What a later phaul needs to go on after a crash, into the journal. */
int source_note_facts(struct source *s, struct error *err);
int source_note_freeze(struct source *s, struct error *err);

/* The answer to COMMIT did not come: STAGE_DONE when it runs there, else a failure (s->take_back says which). */
int source_after_commit(struct source *s, struct error *err);

/* Tasks stopped: makes rsync look into synchronised files that they map for writing, whose time stamps do not tell. */
int source_touch_mapped(struct source *s, struct error *err);

/* Makes s->trees; the workload has been described. */
int source_sync_trees(struct source *s, struct error *err);

/* Sets shared of tree i when it is the same at the target. In the plan for --sync's; for the workload's own once the target has begun. */
int source_sync_probe(struct source *s, uint32_t i, struct error *err);

/* While memory is copied, called often: passes go on. 1: s->event tells of one that is over. */
int source_sync_turn(struct source *s, struct error *err);

/* Before the freeze: every pass waits for its list, and what the target has of large files is known. Called again it does what a lost link undid. */
int source_sync_arm(struct source *s, struct error *err);

/* source-blocks.c. begin: once, after the first pass. note: a pass's list. arm: no pass is at work, nor will be until the last one. final: tasks stopped, before the
 * tree's pass gets its list. unlink: the link is lost. */
void source_blocks_begin(struct source_tree *t);
void source_blocks_note(struct source_tree *t, const struct buffer *list);
int source_blocks_arm(struct source *s, struct error *err);
int source_blocks_final(struct source *s, struct source_tree *t, struct error *err);
void source_blocks_unlink(struct source *s);
void source_blocks_free(struct source *s);

/* Tasks stopped: the last passes get their lists (does nothing the second time), then are waited for. */
int source_sync_final_begin(struct source *s, struct error *err);
int source_sync_final_end(struct source *s, struct error *err);

/* The link is lost: passes end, channels are closed; the stage that goes on begins the passes again. */
void source_sync_unlink(struct source *s);

/* Sent on the file channels that are open. */
uint64_t source_sync_bytes(const struct source *s);

void source_undo_sync(struct source *s);
void source_sync_free(struct source *s);

/* Tells the target that we are there, when nothing was said for a while. */
int source_keep_alive(struct source *s, struct error *err);

/* How many there are: those of --sync, then the workload's own trees; and the path of one at the source. */
uint32_t source_passes(const struct source *s);
const char *source_pass_path(const struct source *s, uint32_t i);
