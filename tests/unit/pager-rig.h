/*
 * What the tests of the pager share: pager-rig.c. Every function fails the test when something is not as it should be.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "memory/pager.h"
#include "pager-task.h"
#include "slowdown.h"

/* Fewer where the machine is slow: the sizes in the tests are MiB elsewhere. */
#define MIB_PAGES (256ULL / test_slowdown())
#define DEADLINE_MS 20000
/* The pager listens before the task exists, so its pid is chosen. */
#define ANNOUNCED 77

extern char rig_socket_path[128];
extern struct task_shared *rig_shared;

struct rig {
	struct store *store;
	struct range_set present, missing, busy;
	struct pager *pager;
	uint64_t data_pages; /* those that are not zero */
};

/* A store with the first `pages` of the region, and a pager for it. Clears what is shared with the task. */
void rig_start(struct rig *rig, uint64_t pages);
/* The same, but the pages that `missing` says are still at the source. */
void rig_start_missing(struct rig *rig, uint64_t pages, bool (*missing)(uint64_t page));
/* The same with all pages, but those that `busy` says are to come first. */
void rig_start_busy(struct rig *rig, uint64_t pages, bool (*busy)(uint64_t page));
void rig_end(struct rig *rig);

/* What the store takes on its file system. */
uint64_t rig_disk_bytes(struct rig *rig);
struct pager_status rig_status(struct rig *rig);

pid_t rig_run_task(struct task *t);
/* Until n tasks have handed over their userfaultfd. */
void rig_wait_handshake(uint32_t n);

/* rig_start(), a task and its handshake: the task stands still until `go`, and its memory is in the pager's hands. */
pid_t rig_begin(struct rig *rig, struct task *t);

/* Until the task has ended well, and until the pager has. */
void rig_wait_task(pid_t pid);
void rig_wait_pager(struct rig *rig);
/* The pid of the pager, once there is one. */
pid_t rig_wait_pid(struct rig *rig);

/* Waits for it; false: it goes on. Any process. */
bool rig_process_ended(pid_t pid);
pid_t rig_parent_of(pid_t pid);

/* For cmocka: the directory of the socket, and the memory shared with the tasks. */
int rig_group_setup(void **state);
int rig_group_teardown(void **state);
