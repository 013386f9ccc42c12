/*
 * What the tests of injection share.
 */
#pragma once

#include "child.h"
#include "memory/inject.h"

#define TIMES 100
#define WAIT_MS 2500 /* of the calls that end by themselves: longer than the injections take */

int inject_once(pid_t pid, struct error *err);

/* Fails the test when one fails. Returns how many there were. */
int inject_many(pid_t pid, int times);

/* Until the task's state in /proc/PID/stat is this one. */
void wait_for_state(pid_t pid, char state);

/* The number of descriptors a process has open. */
int open_descriptors(pid_t pid);

/* In the child: tells the parent to go on. Returns fd. */
int ready(int fd);
