/* What memtoucher's main thread does while the others touch memory: beats, commands, status. */
#pragma once

#include "memtoucher.h"

#define ASKERS_MAX 8
#define STATUS_BYTES 4096

struct control {
	const struct settings *settings;
	struct state *state;
	struct kinds *kinds;
	struct beater beater;
	uint64_t period_us;
	uint64_t corrupt_at_ns; /* 0: never */
	int command_fd;		/* UDP, or -1 */
	int status_fd;		/* or -1 */
	pid_t child;		/* the second process, or 0 */
	uint32_t full_passes;
	uint64_t verified_before;	       /* the count when the last full verification was asked for */
	struct sockaddr_in askers[ASKERS_MAX]; /* who waits for it */
	size_t askers_count;
	bool quit;
};

void control_signals(void);
/* Returns when told to end (0) or when something was found wrong (-EBADMSG). */
int control_run(struct control *control);
/* Writes the status as "running", "failed" or "ended". */
void control_status(struct control *control, const char *word);
