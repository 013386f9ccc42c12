/*
 * The two halves of the runc driver.
 */
#pragma once

#include "driver/driver.h"

/* The runtime, and where it keeps its states; engine: of this side, NULL: the usual place. */
const char *runc_program(const struct driver_options *options);
const char *runc_root(const char *engine);

/* Removes the state of a container, and what runs of it. */
int runc_delete(const struct driver_options *options, const char *engine, const char *id, struct error *err);

/* The ops of the target. */
int runc_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
		      struct error *err);
int runc_prepare(struct workload *w, const struct driver_place *place, struct error *err);
int runc_restore(const struct workload *w, struct driver_place *place, int stderr_fd, struct process *ret,
		 struct error *err);
void runc_restore_begun(struct driver_place *place);
int runc_restored(const struct workload *w, const struct driver_place *place, struct error *err);
int runc_forget(const struct workload *w, const struct driver_place *place, struct error *err);
int runc_stop(const struct workload *w, const struct driver_options *options, struct error *err);
int runc_start(const struct workload *w, const struct driver_options *options, const struct driver_place *place,
	       struct error *err);
int runc_target_start(const struct workload *w, const struct driver_place *place, struct error *err);

/* `runc run --detach`; output_fd: what the container's output goes to, -1: nowhere. */
int runc_run(const struct driver_options *options, const char *bundle, const char *id, int output_fd,
	     struct error *err);

int runc_target_network(const struct workload *w, int *ret_fd, struct error *err);
