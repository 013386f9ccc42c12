/*
 * What runc, and the engines above it, know of a container: the runtime's state file, ROOT/ID/state.json; and what follows from it
 * for CRIU, as runc itself would ask for it.
 *
 * Source of the facts: runc's libcontainer/criu_linux.go (Checkpoint, addCriuDumpMount, addMaskPaths) and container.go (State).
 */
#pragma once

#include <jansson.h>

#include "driver/driver.h"
#include "driver/tree.h"

#define OCI_RUNTIME_DEFAULT "runc"
#define OCI_ROOT_DEFAULT "/run/runc"

struct oci_state {
	json_t *json; /* owned */
	pid_t pid;    /* of the container's first process */
	char id[256];
	char root[512];	   /* the directory of states */
	char bundle[4096]; /* absolute */
	char rootfs[4096]; /* absolute */
};

#define _cleanup_oci_ _cleanup_(oci_state_free)

/* Reads ROOT/ID/state.json. -ESRCH: there is none; -EINVAL: the id is none that could be a container's. Whether it runs is not asked. */
int oci_state_read(const char *root, const char *id, struct oci_state *ret, struct error *err);
void oci_state_free(struct oci_state *s);

/* Whether an id is one that a directory may have: no slash, no leading dot, up to 255 bytes. */
bool oci_id_valid(const char *id);

/* Whether the process of that state is still there: the file outlives it. */
bool oci_runs(const struct oci_state *s);

/* Fills processes, memory and terminal of the tree below the container's first process, and root_pid. -ESRCH: it does not run. */
int oci_describe(const struct oci_state *s, struct workload *ret, struct error *err);

/* What would stop the dump of any runtime's container: processes, descriptors, terminal, host namespaces, devices. */
int oci_check_source(const struct oci_state *s, const struct workload *w, const struct driver_options *options,
		     struct obstacles *ret, struct error *err);

/* CRIU's options for a dump that runc's restore understands. */
/* Adds that the network namespace is there at the restore, where the runtime would make a new one. */
int oci_way_network(const struct oci_state *s, struct checkpoint_way *way, struct error *err);
int oci_way(const struct oci_state *s, struct checkpoint_way *ret, struct error *err);

/* descriptors.json, as runc's restore wants it beside the images: names of the standard descriptors. A new reference, NULL: no memory. */
json_t *oci_descriptors(const struct oci_state *s);

/* Writes it there. `descriptors` is what oci_descriptors() gave at the source. */
int oci_write_descriptors(const json_t *descriptors, const char *directory, struct error *err);

/* An open descriptor of the network namespace of the container's first process; -ENOENT: it is the caller's own. */
int oci_network(pid_t pid, int *ret_fd, struct error *err);

/* Whether a runtime gives that device to every container, so that it is none of this host's. */
bool oci_default_device(const char *path);

/*
 * Ends and removes what the runtime has of a container here: its state, and what it leaves when it is killed while it restores, without which no container
 * of that name can be restored again. group: its control groups in each hierarchy, NULL: where the runtime puts them by itself; other than "/..." they are
 * systemd's business. For containers of this migration only; nothing there is no error. Blocks for the runtime's delete.
 */
int oci_clear_left(const char *runtime, const char *root, const char *id, const char *group, struct error *err);

/* Whether the runtime is there and can restore. An obstacle otherwise, at_target as given. */
int oci_check_runtime(const char *runtime, bool at_target, struct obstacles *ret);
