/*
 * Stopping single threads of other processes with ptrace, without any of them noticing.
 *
 * ptrace belongs to the calling thread: everything here must be called from one thread, and when that thread ends,
 * the kernel lets go of whatever it still holds. A task that does not stop in time can only be let go that way.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* Waits for the next ptrace stop of tid: 0, -ETIMEDOUT, or -ESRCH when it has ended. */
int task_wait_stop(pid_t tid, uint64_t deadline_ns, int *ret_status);

bool stop_is_event(int status);	  /* PTRACE_EVENT_STOP: interrupted, or stopped with its group */
bool stop_is_syscall(int status); /* entry or exit of a system call, with PTRACE_O_TRACESYSGOOD */

/* What PTRACE_CONT and PTRACE_SYSCALL must pass on after such a stop: the signal about to be delivered, or 0. */
int stop_signal(int status);

/* PTRACE_SEIZE only. -EPERM with the reason: traced already, or not allowed. */
int task_seize(pid_t tid, struct error *err);

/* Interrupts a seized task (running: false when it stands in a stop, and is to reach the next one) and waits until it stands in a PTRACE_EVENT_STOP. -ETIMEDOUT, -ESRCH. */
int task_interrupt(pid_t tid, bool running, uint64_t deadline_ns, struct error *err);

/* Runs function(argument) in a new thread with all signals blocked, and waits for it. 0 or a negative errno. */
int task_run_tracer(void *(*function)(void *), void *argument);

/*
 * The same in a process of its own, which shares memory and descriptors with this one but not its end: SIGKILL for this process does not
 * reach it, so that it can put right what it has done to a task. The calling thread stands still meanwhile. The function must not allocate,
 * log, or take a lock that another thread of this process may hold when that one is killed. Its tracer is that process, which is ended
 * when this returns.
 */
int task_run_tracer_apart(void *(*function)(void *), void *argument);

/* Lets a stopped task go. Interrupted system calls are restarted by the kernel. */
void task_detach(pid_t tid);
