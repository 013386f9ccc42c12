/*
 * /etc/criu/runc.conf, the one configuration file that runc hands to every CRIU it starts, whoever told runc to do so. It is the
 * machine's: ours is in its place only while an engine starts a restore, under a lock, and what was there comes back, also after a crash.
 *
 * Source of the facts: runc's criu_linux.go, handleCriuConfigurationFile().
 */
#pragma once

#include "base/error.h"

#define RUNC_CONF "/etc/criu/runc.conf"

/* Puts `config` in its place. *ret_lock: a descriptor that holds the lock; waits for another holder up to a minute. */
int runc_conf_take(const char *config, int *ret_lock, struct error *err);

/* What was there before is there again; closes the lock (-1: nothing happens). */
void runc_conf_give_back(int *lock);

/* After a crash: gives back what nobody holds any more. Repeatable. */
void runc_conf_mend(void);
