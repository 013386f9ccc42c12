/*
 * /etc/criu/runc.conf: the configuration that the CRIU of every runc on this host reads. The only way to reach the CRIU of a daemon's restore.
 *
 * It is the whole machine's, so it is borrowed: under a lock (flock(2) on /etc/criu), for as long as CRIU needs to read it, with what was in
 * there kept beside it. A borrower that dies leaves a file that says so in its first line; whoever comes next puts it back first.
 */
#pragma once

#include <stdint.h>

#include "base/error.h"

struct runc_conf {
	int lock_fd; /* -1: not borrowed */
};

#define RUNC_CONF_NONE ((struct runc_conf){ .lock_fd = -1 })
#define RUNC_CONF_DIRECTORY "/etc/criu"

/* Waits for the lock until deadline, then appends what `config` holds to what is there. -ETIMEDOUT: another restore has it. directory: for
 * tests; NULL: the real one. */
int runc_conf_borrow(const char *directory, const char *config, uint64_t deadline_ns, struct runc_conf *ret, struct error *err);

/* As it was. Any number of times. */
int runc_conf_give_back(struct runc_conf *c, struct error *err);

/* Puts back what a borrower that died left behind; nothing happens while a living one has it. */
int runc_conf_recover(const char *directory, struct error *err);
