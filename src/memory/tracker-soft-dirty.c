/*
 * Tracking by soft-dirty bits: /proc/PID/clear_refs and bit 55 of /proc/PID/pagemap (CONFIG_MEM_SOFT_DIRTY).
 *
 * Source: Documentation/admin-guide/mm/soft-dirty.rst. Reading the bits and clearing them are two steps, and clear_refs
 * clears the whole process, so a write in between would be lost: all threads of the process are held by ptrace
 * for the length of a scan. Where that fails (a thread that does not stop), nothing is cleared, and the pages written come again
 * in the next round. New mappings are soft-dirty from the start.
 *
 * What the kernel does not tell (seen on Linux 6.1), and who sees to it: page tables that mremap(2) moves whole keep their bits
 * (frames.h); the zero page looks like any other (scan.c); hugetlb pages have no bit (tracker-areas.c).
 *
 * Threads: begin, scan and finish run in one thread that ends afterwards, which lets go of threads that never stopped.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/fd.h"
#include "memory/task-stop.h"
#include "memory/tracker-internal.h"

#define STOP_TIMEOUT_MS 200

static int clear_soft_dirty(pid_t pid)
{
	_cleanup_close_ int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/clear_refs", (int)pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd_write_full(fd, "4", 1);
}

static bool page_is_soft_dirty(const void *page)
{
	_cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t word = 0;

	return fd >= 0 &&
	       pread(fd, &word, sizeof(word), (off_t)((uintptr_t)page >> PAGE_SHIFT << 3)) == (ssize_t)sizeof(word) &&
	       (word & PAGEMAP_SOFT_DIRTY);
}

/* Tried on a page of our own: kernels without it accept the write to clear_refs all the same. */
bool tracker_soft_dirty_works(struct error *err)
{
	volatile char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool clean_seen, dirty_seen;

	if (page == MAP_FAILED) {
		error_errno(err, errno, "no memory to try soft-dirty tracking");
		return false;
	}
	*page = 1;
	clean_seen = !clear_soft_dirty(getpid()) && !page_is_soft_dirty((const void *)page);
	*page = 2;
	dirty_seen = page_is_soft_dirty((const void *)page);
	munmap((void *)page, PAGE_BYTES);
	if (clean_seen && dirty_seen && !scan_find_zero_frame()) {
		error_set(err, EPERM, "soft-dirty tracking needs CAP_SYS_ADMIN, to tell the zero page from others");
		return false;
	}
	if (clean_seen && dirty_seen)
		return true;
	error_set(err, EOPNOTSUPP, "this kernel has no soft-dirty tracking (CONFIG_MEM_SOFT_DIRTY)");
	return false;
}

static int soft_dirty_attach(struct tracked *p, const struct maps *maps, struct error *err)
{
	char path[64];

	(void)maps;
	snprintf(path, sizeof(path), "/proc/%d/clear_refs", (int)p->pid);
	if (access(path, W_OK) < 0)
		return error_errno(err, errno, "cannot use %s", path);
	p->attached = true;
	return 0;
}

static int soft_dirty_arm(struct tracked *p, uint64_t start, uint64_t end)
{
	(void)start;
	(void)end;
	return tracked_memory_changed(p) ? -ESRCH : 0;
}

static bool is_held(const struct tracked *p, pid_t tid)
{
	for (size_t i = 0; i < p->n_stopped; i++)
		if (p->stopped[i] == tid)
			return true;
	return false;
}

/* Holds the threads that are not held yet: how many, or a negative errno. */
static int hold_new_threads(struct tracked *p, uint64_t deadline_ns)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	char path[64];
	int found = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)p->pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10), *grown;
		int r;

		if (tid <= 0 || is_held(p, tid))
			continue;
		grown = reallocarray(p->stopped, p->n_stopped + 1, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		p->stopped = grown;
		r = task_seize(tid, NULL);
		if (!r)
			r = task_interrupt(tid, true, deadline_ns, NULL);
		if (r == -ESRCH) /* it ended */
			continue;
		if (r < 0)
			return r;
		p->stopped[p->n_stopped++] = tid;
		found++;
	}
	return found;
}

static void soft_dirty_begin(struct tracked *p)
{
	uint64_t deadline = deadline_in_ms(STOP_TIMEOUT_MS);
	int r;

	p->n_stopped = 0;
	do {
		r = hold_new_threads(p, deadline);
	} while (r > 0);
	p->all_stopped = !r && p->n_stopped;
}

static void soft_dirty_finish(struct tracked *p)
{
	if (p->all_stopped)
		clear_soft_dirty(p->pid); /* when it fails, the same pages come again */
	for (size_t i = 0; i < p->n_stopped; i++)
		task_detach(p->stopped[i]);
	free(p->stopped);
	p->stopped = NULL;
	p->n_stopped = 0;
}

static void soft_dirty_release(struct tracked *p, bool alive)
{
	(void)p;
	(void)alive;
}

const struct tracker_ops tracker_soft_dirty_ops = {
	.kind = TRACKER_SOFT_DIRTY,
	.blind_to_huge = true,
	.blind_to_moves = true,
	.attach = soft_dirty_attach,
	.arm = soft_dirty_arm,
	.begin = soft_dirty_begin,
	.finish = soft_dirty_finish,
	.release = soft_dirty_release,
};
