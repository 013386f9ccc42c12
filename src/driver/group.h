/*
 * Control groups: those that a container left behind, and the time that it takes to move a process to one.
 */
#pragma once

#include <stdbool.h>

#define GROUP_ROOT "/sys/fs/cgroup"

/* Removes the group at `path` and those below it, which hold no tasks: rmdir(2) removes no other. 0, or -1 with errno when they cannot be walked. */
int group_remove_tree(const char *path);

/*
 * One hierarchy of control groups: its directory below GROUP_ROOT, and the caller's own group there, which may be changed. unified: that of
 * version 2. Not 0: enough.
 */
typedef int group_seen(void *context, const char *hierarchy, char *path, bool unified);

/* Each line of /proc/self/cgroup: NUMBER:CONTROLLERS:PATH, CONTROLLERS empty for version 2, "name=NAME" where there are none. What `each` said, or a negative errno. */
int group_each_own(group_seen *each, void *context);

/*
 * To move a process to a group takes the kernel 10 to 17 ms when nobody did so for some time, and some microseconds when somebody just has:
 * the lock against fork(2) and exit(2) is taken by waiting for an RCU grace period, and for about as long the next one need not wait
 * (rcu_sync_enter() below cgroup_procs_write_start(); the mount option favordynmods is the same for good). So who moves itself to where it
 * is, every GROUP_EASE_MS, spares others who must not wait the wait.
 */
#define GROUP_EASE_MS 4

/* The calling process's own group in some hierarchy, for group_ease(). -ENOENT: there is none that can be written. */
int group_open_own(void);
void group_ease(int fd);
