/*
 * A migration as its caller sees it: options in, events while it goes, a result at the end.
 *
 * The source side is stepped: source_step() works until there is something to tell, and tells it. Nothing is decided
 * outside this folder; cli/ and daemon/ only show.
 */
#pragma once

#include "base/uuid.h"
#include "driver/workload.h"
#include "memory/codec.h"
#include "migration/journal.h"
#include "migration/policy.h"
#include "net/net.h"
#include "transport/endpoint.h"

#define MIGRATION_CHANNELS_DEFAULT 2
#define MIGRATION_ADDRESSES_MAX 64
#define MIGRATION_SYNC_PATHS_MAX 64
#define MIGRATION_BRIDGES_MAX 16
#define MIGRATION_PASSES_MAX (MIGRATION_SYNC_PATHS_MAX + WORKLOAD_TREES_MAX)
#define MIGRATION_ITERATIONS_MAX 256
#define MIGRATION_PHASES_MAX 16
#define MIGRATION_REGIONS_MAX 4

struct migration_options {
	const char *type, *id;
	const char *target_text; /* as the user wrote it */
	struct endpoint target;
	const char *pki_directory;
	const char *state_directory; /* journals and kept images: /var/lib/phaul */
	const char *run_directory;   /* work files, images: /run/phaul; should be on tmpfs */
	bool check_only;
	bool force; /* go on although obstacles refuse (those that CRIU itself may survive) */
	bool skip_cpu_check, skip_criu_check;
	bool shell_job, keep_images;
	uint32_t encodings; /* of pages, that may be used beside zero and raw: a set (memory/codec.h) */
	const char *runtime, *engine, *target_engine, *target_id,
		*target_bundle;				/* driver.h, driver_options; NULL: the usual */
	const char *bridges[MIGRATION_BRIDGES_MAX + 1]; /* driver_options.bridges */
	const char *bind_rule;
	bool remove_source;
	bool restart, no_start; /* --mode restart, --nostart */
	bool pre_copy;		/* false: everything is copied in the freeze */
	uint64_t max_downtime_ms;
	uint32_t max_rounds;
	uint32_t channels;
	int64_t timeout_ms;				      /* of silence of the peer */
	const char *sync_paths[MIGRATION_SYNC_PATHS_MAX + 1]; /* NULL-terminated */
	struct net_address addresses[MIGRATION_ADDRESSES_MAX];
	size_t n_addresses;
	const char *tracker;  /* "auto", "write-protect", "soft-dirty", "none" */
	int64_t reconnect_ms; /* how long to look for a target that was lost before the freeze or after the commit */
	const char *fence;    /* program that is asked whether the target is certainly dead; NULL: none */
	int cancel_fd;	      /* readable: give up before the commit; -1: none */

	/* convergence (docs/convergence.md) */
	uint64_t bandwidth; /* bytes per second while the workload runs; 0: no limit */
	bool promise;	    /* max_downtime_ms was asked for */
	bool rounds_asked;  /* max_rounds was */
	bool auto_converge;
	bool postcopy;
	uint64_t copy_ms; /* how long memory may be copied; 0: no limit */
	enum policy_resort on_timeout;
};

enum migration_outcome {
	OUTCOME_NONE,
	OUTCOME_MIGRATED,
	OUTCOME_ABORTED, /* the source still runs */
	OUTCOME_REFUSED, /* aborted by the plan, nothing was touched */
	OUTCOME_UNKNOWN,
	OUTCOME_CHECKED, /* check_only: nothing stands in the way */
};

struct migration_iteration {
	uint64_t pages, pages_zero, bytes, ns;
	uint64_t dirty_pages;	 /* what is left after it: written meanwhile, or left out */
	uint64_t written_pages;	 /* written meanwhile */
	uint64_t pages_left_out; /* of this round, because they were written in every round */
	uint32_t throttle;	 /* percent by which the workload was held back */
};

/* Where the workload writes most. */
struct migration_region {
	pid_t pid;
	uint64_t start, end; /* of the mapping */
	uint64_t pages_per_second;
	char name[64]; /* of the mapping: "[heap]", a path, "" */
};

struct migration_phase {
	const char *name;
	uint64_t ns;
};

struct migration_result {
	struct uuid id;
	enum migration_outcome outcome;
	char reason[ERROR_TEXT_MAX]; /* why it ended so; "" for success */
	int number;		     /* errno of the failure, positive */
	uint64_t total_ns, frozen_ns;
	uint64_t predicted_frozen_ns; /* what the policy thought before the freeze */
	struct migration_phase phases[MIGRATION_PHASES_MAX];
	size_t n_phases;
	struct migration_iteration iterations[MIGRATION_ITERATIONS_MAX];
	size_t n_iterations;
	uint64_t bytes_wire; /* both directions, all channels, encryption included */
	uint64_t pages_sent, pages_zero, pages_total;
	struct encoding_count encodings[ENCODING_MAX]; /* of pages, in the copy: frames, before encryption */
	uint64_t pages_referenced;		       /* of CRIU's images, not sent again */
	uint64_t image_bytes;
	uint64_t brought_bytes,
		brought_ns; /* of what the target's engine lacked (an image), encryption included; 0: nothing */
	uint64_t sync_ns, sync_final_ns;
	uint32_t sync_passes;
	uint64_t sync_final_names;			 /* on the last passes' lists */
	uint64_t sync_patched_files, sync_patched_bytes; /* of those, large ones that went block by block */
	char sync_final_whole[ERROR_TEXT_MAX]; /* why the last pass of a tree looked at all of it, "" when none did */
	uint64_t faults, pages_filled, fault_ns_max, fill_ns;
	uint32_t pager_replaced;
	uint64_t fault_ns_p50, fault_ns_p99; /* of faults that were answered from what was at the target */
	/* post-copy */
	uint64_t postcopy_pages;	/* that stayed at the source at the handover; 0: none was done */
	uint64_t postcopy_pages_urgent; /* of them, those that were asked for */
	uint64_t postcopy_ns;		/* from the handover until the target had all of them */
	uint32_t postcopy_reconnects;
	uint64_t faults_remote, remote_ns_p50, remote_ns_p99; /* faults that waited for the source */
	uint32_t reconnects;				      /* before the freeze */
	uint64_t restore_ns, resume_ns, dump_ns;
	uint64_t track_ns; /* to begin to track all processes, and to look at their memory for the first time */
	bool held;	   /* packets waited at the target, held_packets of them, instead of being dropped */
	uint64_t held_packets;
	const char *decision;					/* why copying ended */
	struct migration_region regions[MIGRATION_REGIONS_MAX]; /* as of the last round */
	size_t n_regions;
	uint32_t throttle_max;	  /* percent */
	const char *throttle_way; /* "quota", "stops" */
	char engine[32];	  /* "criu 4.2.1" */
	char target[256];
	char tracker[16];
	bool preload_acted;    /* libphaul-criu.so made the dump shorter, */
	char preload_did[192]; /* in these ways, separated by "; " */
	char images[512];      /* where they are kept, "" if not */
};

enum migration_event_kind {
	EVENT_NONE,
	EVENT_PHASE,	 /* phase: one begins */
	EVENT_OBSTACLE,	 /* obstacle */
	EVENT_PROGRESS,	 /* progress: several times a second in long phases */
	EVENT_ITERATION, /* iteration: a round is over */
	EVENT_DECISION,	 /* decision, estimate_ns: after a round */
	EVENT_SYNC,	 /* path, ns: a file system pass is over */
};

struct migration_progress {
	uint32_t round;
	uint64_t pages_done, pages_round; /* of this round */
	uint64_t bytes_per_second;
	uint64_t dirty_pages_per_second; /* as of the last round */
	uint64_t estimate_ns;		 /* of the freeze, as of the last round; 0 unknown */
};

struct migration_event {
	enum migration_event_kind kind;
	const char *phase;
	struct obstacle obstacle;
	struct migration_progress progress;
	uint32_t round;
	struct migration_iteration iteration;
	enum policy_decision decision;
	uint64_t estimate_ns;
	const char *path;
	uint64_t ns;
};

struct source;

/* options must stay until source_free(). */
int source_new(const struct migration_options *options, struct source **ret, struct error *err);

/* 1: *ret was filled; 0: it is over, ask source_result(). Never fails: a failure is an outcome. */
int source_step(struct source *s, struct migration_event *ret);
const struct migration_result *source_result(const struct source *s);
void source_free(struct source *s);

/* What a target needs to know about itself. */
struct target_options {
	const char *state_directory, *run_directory;
	const char *accept_identity; /* only peers with this name in their certificate; NULL: any of our authority */
	int64_t timeout_ms;
	int cancel_fd;
};

struct route;

/* Serves one session on this control channel (taken over) to its end; further channels come through `route`. 0 when it ended as the
 * protocol wants (moved, checked, aborted), or a negative errno: err says what broke. */
int target_run(struct channel *control, struct route *route, const uint8_t route_id[ROUTE_BYTES],
	       const struct target_options *options, struct error *err);

struct server_options {
	const char *listen; /* "ADDR:PORT" */
	const char *pki_directory;
	struct target_options target;
	uint32_t workers_max;
	int cancel_fd;
	int ready_fd; /* gets one line "port N\n" once it listens; -1: none */
};

/* The destination service: accepts sessions and forks one worker for each, until cancel_fd is readable. */
int server_run(const struct server_options *options, struct error *err);
