/*
 * What the target's driver lacks (an image), on its way: a child at the source writes, a child at the target reads, the control
 * channel carries it between BEGIN and its answer. Each side has one of these.
 */
#pragma once

#include <limits.h>

#include "base/process.h"
#include "transport/channel.h"

struct bring {
	struct channel *channel; /* not owned */
	int cancel_fd;
	int64_t silence_ms;
	char log[PATH_MAX];   /* where the child's words go */
	struct process child; /* started by the driver, with child_fd and log_fd; owned from then on */
	int pump_fd, child_fd, log_fd;
};

/* Opens the descriptors. bring_close() is due, whatever it returns. */
int bring_open(struct bring *b, struct error *err);

/* Until both sides have said all, and the child has ended. -EIO: it failed, err has its last line; -ECANCELED, -ETIMEDOUT or the channel's: it was
 * killed. Both sides must come here once one of them has started. */
int bring_run(struct bring *b, struct error *err);

/* Any number of times, also of one that is zeroes but for the fields of the caller's. */
void bring_close(struct bring *b);
