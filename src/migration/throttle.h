/*
 * Holding a workload back, so that it writes less than the link carries (--auto-converge).
 *
 * A process of its own does it (`phaul throttle FD`): by the CPU quota of the workload's control group where it has one to
 * itself, else by stopping all of its processes for a part of the time (SIGSTOP, SIGCONT). It undoes everything when it is told
 * to, and when whoever started it is gone; the journal remembers it in case that both were killed (throttle_undo()).
 */
#pragma once

#include <sys/types.h>

#include "migration/journal.h"

struct throttle;

/* Nothing is held back yet. The journal must outlive it. */
int throttle_new(struct journal *j, struct throttle **ret, struct error *err);

/* To be called once a round, with or without holding back: measures how much CPU time the workload takes. pids: of its processes,
 * the root first. */
void throttle_measure(struct throttle *t, const pid_t *pids, size_t n);

/* Holds back by so many percent (1 to 99) of what it took before it was held back. */
int throttle_set(struct throttle *t, const pid_t *pids, size_t n, uint32_t percent, struct error *err);

/* When it returns 0 nothing is held back any more. Repeatable; throttle_set() may follow. */
int throttle_end(struct throttle *t, struct error *err);

const char *throttle_way(const struct throttle *t); /* "quota", "stops"; "" before throttle_set() */
void throttle_free(struct throttle *t);		    /* with throttle_end() */

/* For recovery: what a killed phaul and a killed throttle left behind. Processes that stay stopped are continued with the tasks
 * of the journal. */
void throttle_undo(const struct journal *j);

/* The main function of the hidden verb `phaul throttle`. */
int throttle_main(int control_fd);
