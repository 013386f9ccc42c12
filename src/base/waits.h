/* How long a thread ran, and how long it could have run but others had the processors (Documentation/scheduler/sched-stats.rst). */
#pragma once

#include <stdint.h>

/* Of the calling thread, since it began, in nanoseconds. 0, or -ENODATA where the kernel does not say. Any thread; some microseconds. */
int waits_read(uint64_t *ret_ran_ns, uint64_t *ret_waited_ns);
