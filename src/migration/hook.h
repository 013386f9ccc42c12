/*
 * Named points at which tests can stop, fail or kill a migration. A release build (meson option test_hooks=false, the
 * default) has none of it: the function is empty and the environment is not looked at.
 *
 *     PHAUL_HOOK=NAME=ACTION[,NAME=ACTION]...    ACTION: hold, fail, kill
 *     PHAUL_HOOK_DIRECTORY=DIR                   hold: makes DIR/NAME.reached, waits until DIR/NAME.go exists
 *
 * Names: "source-STAGE" before each stage of source.c, "target-MESSAGE" before each message of target.c is handled,
 * "source-armed" when both sides are ready for the freeze, before the last round,
 * "source-final" in the freeze, between CRIU's two questions, "source-stopped" when the tasks are stopped by SIGSTOP, "source-committed" between the journal's record and COMMIT,
 * "source-running" when the target runs it and nothing is ended here; "target-resuming" between that record and the resume,
 * "target-resumed" after the resume, "target-running" between the journal's record and RUNNING.
 */
#pragma once

#include "base/error.h"

/* 0, or what the hook asks for: -EIO (fail), -ECANCELED (held, and cancel_fd became readable). Does not return for kill. */
#ifdef PHAUL_TEST_HOOKS
int hook_reached(const char *side, const char *point, int cancel_fd, struct error *err);
#else
static inline int hook_reached(const char *side, const char *point, int cancel_fd, struct error *err)
{
	(void)side;
	(void)point;
	(void)cancel_fd;
	(void)err;
	return 0;
}
#endif
