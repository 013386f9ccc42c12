/*
 * What throttle.c and the process it starts agree on: over a SOCK_SEQPACKET pair, one order a message, one byte (0, or an errno)
 * back when it is carried out. The end of the socket is an order with percent 0.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define THROTTLE_TASKS_MAX 8192

struct throttle_order {
	uint32_t percent; /* 0: nothing is held back */
	uint32_t n;	  /* processes behind it; 0 with a group */
	uint64_t period_us, quota_us;
	char quota_file[PATH_MAX];  /* "": by stopping the processes */
	char period_file[PATH_MAX]; /* "": version 2, quota_file holds both */
	struct {
		int32_t pid;
		uint64_t ticks;
	} tasks[];
};

/* The files that hold the CPU quota of the control group that these processes have to themselves. -ENOENT: they have none. */
int throttle_group_find(const pid_t *pids, size_t n, char quota_file[PATH_MAX], char period_file[PATH_MAX]);

/* Writes a line to such a file. */
int throttle_group_write(const char *file, const char *text);
