/*
 * Making hardware breakpoints cheap for a while: CRIU lets each task run up to one, in dumps as in restores.
 *
 * Such a breakpoint is a performance event of a task. The first of them on a host makes the kernel patch its scheduler and wait for an RCU grace
 * period (kernel/events/core.c, account_event()): 10 to 17 ms, in the freeze. While any is there the next ones cost nothing.
 */
#pragma once

/* An event of the calling thread that counts nothing; to be closed when no more breakpoints are expected. -1: not possible here (no such events in
 * the kernel, kernel.perf_event_paranoid), which costs time and nothing else. Blocks for that grace period. */
int breakpoints_prepare(void);
