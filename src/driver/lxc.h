/*
 * The driver of LXC containers: docs/driver-lxc.md. Shared by the lxc*.c files.
 */
#pragma once

#include "driver/driver.h"
#include "driver/lxc-library.h"
#include "driver/lxc-spec.h"

#define LXC_RESTORE_MARK "PHAUL_LXC_RESTORE" /* environment of everything that a restore starts: the migration's id */

extern const struct driver_ops driver_lxc;

/* The ops of that name; see driver.h. */
int lxc_describe(const char *id, const struct driver_options *options, struct workload *ret, struct error *err);
int lxc_check_source(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
		     struct error *err);
int lxc_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
		     struct error *err);
int lxc_prepare(struct workload *w, const struct driver_place *place, struct error *err);
int lxc_restore(const struct workload *w, struct driver_place *place, int stderr_fd, struct process *ret,
		struct error *err);
int lxc_restored(const struct workload *w, const struct driver_place *place, struct error *err);
int lxc_forget(const struct workload *w, const struct driver_place *place, struct error *err);
int lxc_arm(const struct workload *w, const struct driver_options *options, struct error *err);
int lxc_disarm(const struct workload *w, const struct driver_options *options, struct error *err);
int lxc_moved(const struct workload *w, const struct driver_options *options, struct error *err);

int lxc_stop(const struct workload *w, const struct driver_options *options, struct error *err);
int lxc_start_again(const struct workload *w, const struct driver_options *options, const struct driver_place *place,
		    struct error *err);

/* Settings that cannot go along, each an obstacle; on both sides, over the container's own configuration. */
int lxc_check_config(const struct lxc_spec *s, bool at_target, struct obstacles *ret);

/* Reads and replaces DIRECTORY/config. */
int lxc_config_load(const char *directory, struct buffer *ret, struct error *err);
int lxc_config_store(const char *directory, const struct buffer *text, struct error *err);

/* Takes the guard of a configuration away (lxc-config.h). */
int lxc_target_unguard(const char *directory, struct error *err);

/* Where the container is at the target: PLACE and PLACE/NAME. */
struct lxc_target_place {
	char place[PATH_MAX / 2], directory[PATH_MAX];
};
int lxc_target_place(const struct lxc_spec *s, const struct driver_options *options, struct lxc_target_place *ret,
		     struct error *err);

/* Whether LXC runs a container of that name, here or in another directory of containers, by its control groups. */
bool lxc_group_in_use(const char *name);

/* Removes groups of that name that are empty: LXC would give a new container of that name others. */
void lxc_remove_groups(const char *name);

/* Ends what a restore of that migration left running, the container's tasks included, which LXC would not see any more. */
void lxc_end_leftovers(const char *id_text, const char *name);

/* The helper (helper.h) that calls LXC's restore. */
#define LXC_RESTORE_HELPER "lxc-restore"
int lxc_restore_main(int argc, char **argv);
