/*
 * The rig of the pager's tests: a store with known pages, a pager that serves them, and the shared memory with the task.
 *
 * Waiting always has a deadline: a page that never comes fails the test and does not stop it.
 * Threads: none; the tasks are processes.
 */
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "pager-rig.h"

static char directory[64];
char rig_socket_path[128];
struct task_shared *rig_shared;

static void rig_fill_store(struct rig *rig, uint32_t space, uint64_t pages)
{
	static uint64_t page[PAGE_BYTES / 8];

	rig->data_pages = 0;
	range_set_free(&rig->present);
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t at = REGION + i * PAGE_BYTES;

		if (!page_present(i))
			continue;
		assert_int_equal(range_set_add(&rig->present, at, at + PAGE_BYTES), 0);
		for (uint64_t w = 0; w < PAGE_BYTES / 8; w++)
			page[w] = page_word(i, w);
		if (page_zero(i))
			assert_int_equal(store_put_zero(rig->store, space, at, 1, NULL), 0);
		else
			assert_int_equal(
				store_put(rig->store, space, at, 1, ENCODING_RAW, (uint8_t *)page, PAGE_BYTES, NULL),
				0);
		rig->data_pages += !page_zero(i);
	}
	assert_int_equal(store_apply_present(rig->store, space, &rig->present, NULL), 0);
}

/* The store forgets them, as if they had never come. */
static void rig_forget(struct rig *rig, uint64_t pages, bool (*missing)(uint64_t page))
{
	_cleanup_range_set_ struct range_set here = { 0 };

	for (uint64_t i = 0; i < pages; i++) {
		uint64_t at = REGION + i * PAGE_BYTES;

		if (page_present(i))
			assert_int_equal(range_set_add(missing(i) ? &rig->missing : &here, at, at + PAGE_BYTES), 0);
	}
	assert_int_equal(store_apply_present(rig->store, 1, &here, NULL), 0);
}

void rig_start(struct rig *rig, uint64_t pages)
{
	rig_start_missing(rig, pages, NULL);
}

static void start(struct rig *rig, uint64_t pages, bool (*missing)(uint64_t page), bool (*busy)(uint64_t page))
{
	struct pager_space space = { .space = 1, .image_pid = ANNOUNCED, .present = &rig->present };
	struct error err = { 0 };

	memset((void *)rig_shared, 0, sizeof(*rig_shared));
	*rig = (struct rig){ 0 };
	assert_int_equal(store_new(0, &rig->store, NULL), 0);
	rig_fill_store(rig, 1, pages);
	if (missing) {
		rig_forget(rig, pages, missing);
		space.missing = &rig->missing;
	}
	for (uint64_t i = 0; busy && i < pages; i++)
		if (busy(i))
			assert_int_equal(
				range_set_add(&rig->busy, REGION + i * PAGE_BYTES, REGION + (i + 1) * PAGE_BYTES), 0);
	space.busy = busy ? &rig->busy : NULL;
	space.store_fd = store_fd(rig->store, 1);
	if (pager_prepare(rig_socket_path, &rig->pager, &err) < 0 || pager_start(rig->pager, &space, 1, &err) < 0)
		fail_msg("%s", err.text);
}

void rig_start_missing(struct rig *rig, uint64_t pages, bool (*missing)(uint64_t page))
{
	start(rig, pages, missing, NULL);
}

void rig_start_busy(struct rig *rig, uint64_t pages, bool (*busy)(uint64_t page))
{
	start(rig, pages, NULL, busy);
}

void rig_end(struct rig *rig)
{
	pager_free(rig->pager);
	store_free(rig->store);
	range_set_free(&rig->present);
	range_set_free(&rig->missing);
	range_set_free(&rig->busy);
}

uint64_t rig_disk_bytes(struct rig *rig)
{
	struct stat st;

	assert_int_equal(fstat(store_fd(rig->store, 1), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

pid_t rig_run_task(struct task *t)
{
	t->shared = rig_shared;
	t->socket_path = rig_socket_path;
	return task_start(t);
}

void rig_wait_handshake(uint32_t n)
{
	uint64_t deadline = deadline_in_ms(DEADLINE_MS);

	while (rig_shared->handshaken < n) {
		assert_true(clock_now_ns() < deadline);
		sched_yield();
	}
}

pid_t rig_begin(struct rig *rig, struct task *t)
{
	pid_t pid;

	rig_start(rig, t->pages);
	pid = rig_run_task(t);
	rig_wait_handshake(1);
	return pid;
}

bool rig_process_ended(pid_t pid)
{
	_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 || fd_wait(fd, POLLIN, deadline_in_ms(DEADLINE_MS)) == 1;
}

void rig_wait_task(pid_t pid)
{
	int status;

	/* One that waits for a page which never comes has to fail the test, not stop it. */
	if (!rig_process_ended(pid)) {
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		fail_msg("the task hangs");
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), TASK_OK);
}

void rig_wait_pager(struct rig *rig)
{
	struct error err = { 0 };
	int r = pager_wait(rig->pager, deadline_in_ms(DEADLINE_MS), &err);

	if (r != 1)
		fail_msg("pager_wait: %d %s", r, err.text);
}

struct pager_status rig_status(struct rig *rig)
{
	struct pager_status status;

	assert_int_equal(pager_status(rig->pager, &status, NULL), 0);
	return status;
}

pid_t rig_parent_of(pid_t pid)
{
	char path[64], line[256];
	_cleanup_fclose_ FILE *f = NULL;
	int parent = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "PPid: %d", &parent) == 1)
			break;
	return parent;
}

pid_t rig_wait_pid(struct rig *rig)
{
	uint64_t deadline = deadline_in_ms(DEADLINE_MS);

	while (!pager_pid(rig->pager)) {
		assert_true(clock_now_ns() < deadline);
		sched_yield();
	}
	return pager_pid(rig->pager);
}

int rig_group_setup(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/phaul-test-pager-XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	snprintf(rig_socket_path, sizeof(rig_socket_path), "%s/lazy-pages.socket", directory);
	rig_shared = mmap(NULL, sizeof(*rig_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return rig_shared == MAP_FAILED ? -1 : 0;
}

int rig_group_teardown(void **state)
{
	(void)state;
	return dir_remove(directory);
}
