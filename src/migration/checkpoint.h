/*
 * A workload into a directory, and out of it again: phaul checkpoint, phaul restore. No peer, no journal.
 *
 * DIR holds: manifest.json (what it is, what it needs, size and checksum of every other file), plan (the description that a migration would
 * send, packed), images/ (CRIU's, memory included: plain CRIU can read them, unless they were compressed), trees/N/ (files of the
 * workload's own, in the order of the plan). It is whole when the manifest is there: that is written last.
 */
#pragma once

#include "driver/driver.h"
#include "migration/migration.h"

struct checkpoint_options {
	const char *type, *id;
	const char *directory; /* absolute; made, or empty */
	const char *run_directory;
	struct driver_options driver;
	bool leave_running; /* afterwards it runs on here; otherwise it has ended, as after a move */
	bool compress;	    /* images as zstd */
	bool force;	    /* although obstacles refuse */
	int cancel_fd;
};

struct checkpoint_result {
	struct obstacles obstacles; /* of the plan; the caller frees them */
	bool refused;		    /* by the plan: nothing was touched */
	uint64_t frozen_ns, total_ns;
	uint64_t bytes; /* in the directory, trees apart */
	char type[16], id[256];
	pid_t root_pid; /* of a restore */
};

/* On failure the workload runs on, and DIR lacks its manifest. */
int checkpoint_make(const struct checkpoint_options *options, struct checkpoint_result *ret, struct error *err);

/* type may be NULL: whatever the directory holds. options->id: its name here, NULL: as it was. On failure nothing of it is left here. */
int checkpoint_restore(const struct checkpoint_options *options, bool skip_cpu_check, struct checkpoint_result *ret,
		       struct error *err);
