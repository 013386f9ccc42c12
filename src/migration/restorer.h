/*
 * What brings the tasks back at the target and holds them until the commit: CRIU, run by us, or an engine whose CRIU is held by
 * its configuration (criu/held.h). One of the two per migration; target-restore.c does not see which.
 *
 * All calls block; one thread. Made before the freeze, so that everything slow is done by then.
 */
#pragma once

#include "criu/criu.h"
#include "driver/driver.h"

struct restorer;

/* The workload's driver decides which. place->criu_config is filled here. place must stay until restorer_free(). */
int restorer_new(const struct driver_ops *driver, const struct workload *w, struct driver_place *place,
		 const struct criu_options *options, int cancel_fd, struct restorer **ret, struct error *err);

/* The images are complete: up to the point where the tasks exist and are stopped. On failure nothing of it is left. */
int restorer_hold(struct restorer *r, int cancel_fd, pid_t *ret_root, struct error *err);

/* The tasks run. On failure they do not, unless restorer_released() says that they may have. */
int restorer_resume(struct restorer *r, struct error *err);

/* After the resume: the engine is through. A failure does not undo the tasks. */
int restorer_finish(struct restorer *r, struct error *err);

/* Before the resume: nothing of the restore is left. Any number of times. */
int restorer_abort(struct restorer *r, struct error *err);

bool restorer_alive(struct restorer *r);	      /* CRIU is there, and with it the hold */
bool restorer_released(const struct restorer *r);     /* a failed resume may have let the tasks run */
pid_t restorer_program_pid(const struct restorer *r); /* of CRIU; 0: not known, or ended */
void restorer_free(struct restorer *r);
