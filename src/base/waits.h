/* How long a thread ran, and how long it could have run but others had the processors (Documentation/scheduler/sched-stats.rst). */
#pragma once

#include <stdint.h>

/* Of the calling thread, since it began, in nanoseconds. 0, or -ENODATA where the kernel does not say. Any thread; some microseconds. */
int waits_read(uint64_t *ret_ran_ns, uint64_t *ret_waited_ns);

/* What all processors of the machine did since it started, in ticks (proc(5), /proc/stat). */
struct machine_ticks {
	uint64_t not_nice; /* outside the kernel, for threads that are not nice */
	uint64_t busy;	   /* those, and everything else */
	uint64_t idle;
};

/* 0 or -ENODATA. Some 100 us where there are many processors. */
int machine_ticks_read(struct machine_ticks *ret);
