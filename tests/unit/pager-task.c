/*
 * The task of test-pager.c: see pager-task.h. Runs in a forked child and reports by its exit status.
 */
#include "pager-task.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

static int task_handshake(struct task *t)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
					      UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int32_t pid = t->announced ? t->announced : getpid(), marker = RESTORE_FINISHED;
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	void *m = mmap((void *)REGION, t->pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (uffd < 0 || fd < 0 || m != (void *)REGION || ioctl(uffd, UFFDIO_API, &api) < 0)
		return TASK_SETUP;
	strcpy(address.sun_path, t->socket_path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return TASK_SETUP;
	/* A zombie of the tree goes first, as CRIU would announce it. */
	if (fd_write_full(fd, &(int32_t){ -4000000 }, 4) < 0 || fd_write_full(fd, &pid, 4) < 0 ||
	    fd_send_fds(fd, "", 1, &uffd, 1) < 0)
		return TASK_SETUP;
	reg.range.start = REGION;
	reg.range.len = t->registered * PAGE_BYTES;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
		return TASK_SETUP;
	close(uffd);
	if (!t->no_marker && fd_write_full(fd, &marker, 4) < 0)
		return TASK_SETUP;
	close(fd);
	return 0;
}

pid_t task_start(struct task *t)
{
	pid_t pid;

	if (!t->registered)
		t->registered = t->pages;
	pid = fork();
	if (!pid) {
		int r = prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? TASK_SETUP : task_handshake(t);

		t->shared->handshaken++;
		while (!t->shared->go)
			sched_yield();
		_exit(r ? r : t->body(t));
	}
	return pid;
}

int body_check(struct task *t)
{
	for (uint64_t i = 0; i < t->registered; i++)
		if (!page_holds((void *)(REGION + i * PAGE_BYTES), (int64_t)i))
			return TASK_WRONG_BYTES;
	return TASK_OK;
}

/* Reads random pages, each with its time, then everything. */
int body_random_access(struct task *t)
{
	for (int i = 0; i < 6000; i++) {
		uint64_t page = random_next(&t->seed) % t->pages, start = clock_now_ns(), at;

		(void)*(volatile uint64_t *)(REGION + page * PAGE_BYTES);
		start = clock_now_ns() - start;
		/* Less than that was no fault for the pager. */
		at = start > 2500 ? t->shared->latencies++ : UINT64_MAX;
		if (at < ARRAY_SIZE(t->shared->latency_ns))
			t->shared->latency_ns[at] = (uint32_t)MIN(start, UINT32_MAX);
		if (!page_holds((void *)(REGION + page * PAGE_BYTES), (int64_t)page))
			return TASK_WRONG_BYTES;
	}
	return body_check(t);
}

/* What the task believes of its memory: where each page of the region is now, and what it holds. */
struct belief {
	void **at;	 /* NULL: unmapped */
	int64_t *source; /* page of the source, -1: zeros, -2: page number written by the task itself */
	uint64_t n;
};

static bool believed(const struct belief *b, uint64_t page)
{
	if (!b->at[page])
		return true;
	if (b->source[page] == -2)
		return *(volatile uint64_t *)b->at[page] == ~page;
	return page_holds(b->at[page], b->source[page]);
}

/* In a forked child: some random pages, then some from one end to the other. */
static int check_in_child(const struct belief *b, uint64_t seed)
{
	uint64_t stride = b->n / 256;

	for (int i = 0; i < 50; i++)
		if (!believed(b, random_next(&seed) % b->n))
			return TASK_WRONG_BYTES;
	for (uint64_t i = 0; i < b->n; i += 1 + random_next(&seed) % stride)
		if (!believed(b, i))
			return TASK_WRONG_BYTES;
	return TASK_OK;
}

static int fork_and_check(const struct belief *b, uint64_t *seed, bool wait_for_it)
{
	uint64_t child_seed = random_next(seed);
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(check_in_child(b, child_seed));
	if (pid < 0)
		return TASK_OPERATION;
	if (!wait_for_it)
		return TASK_OK;
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : TASK_OPERATION;
}

/* Pages from `first` on that still lie side by side. */
static uint64_t side_by_side(const struct belief *b, uint64_t first, uint64_t most)
{
	uint64_t n = 1;

	while (n < most && first + n < b->n && b->at[first + n] == (char *)b->at[first] + n * PAGE_BYTES)
		n++;
	return n;
}

/* One random thing that a program does to its mappings. */
static int mutate(struct belief *b, uint64_t *seed, uint64_t *elsewhere)
{
	uint64_t first = random_next(seed) % b->n, n;
	int kind = (int)(random_next(seed) % 100);
	char *to;

	if (!b->at[first])
		return TASK_OK;
	n = side_by_side(b, first, 1 + random_next(seed) % 200);
	if (kind < 35) {
		return believed(b, first) ? TASK_OK : TASK_WRONG_BYTES;
	} else if (kind < 50) {
		*(volatile uint64_t *)b->at[first] = ~first;
		b->source[first] = -2;
	} else if (kind < 70) {
		if (madvise(b->at[first], n * PAGE_BYTES, MADV_DONTNEED) < 0)
			return TASK_OPERATION;
		for (uint64_t i = 0; i < n; i++)
			b->source[first + i] = -1;
		return believed(b, first + n / 2) ? TASK_OK : TASK_WRONG_BYTES;
	} else if (kind < 75) {
		n = MIN(n, 20ULL);
		if (munmap(b->at[first], n * PAGE_BYTES) < 0)
			return TASK_OPERATION;
		memset(&b->at[first], 0, n * sizeof(*b->at));
	} else if (kind < 95) {
		/* Longer than before, now and then: the new end reads as zeros. */
		uint64_t more = random_next(seed) % 3;

		to = mremap(b->at[first], n * PAGE_BYTES, (n + more) * PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED,
			    (void *)(ELSEWHERE + *elsewhere));
		if (to == MAP_FAILED)
			return TASK_OPERATION;
		*elsewhere += (n + more + 1) * PAGE_BYTES;
		for (uint64_t i = 0; i < n; i++)
			b->at[first + i] = to + i * PAGE_BYTES;
		for (uint64_t i = n; i < n + more; i++)
			if (!page_holds(to + i * PAGE_BYTES, -1))
				return TASK_WRONG_BYTES;
		return believed(b, first) ? TASK_OK : TASK_WRONG_BYTES;
	} else {
		return fork_and_check(b, seed, kind < 98);
	}
	return TASK_OK;
}

/* Until it is told to stop, and for a while in any case; then all must be as believed. */
int body_mutate(struct task *t)
{
	struct belief b = { .at = calloc(t->pages, sizeof(*b.at)),
			    .source = calloc(t->pages, sizeof(*b.source)),
			    .n = t->pages };
	uint64_t elsewhere = 0;
	int r = b.at && b.source ? 0 : TASK_SETUP, status;

	for (uint64_t i = 0; i < t->pages && !r; i++) {
		b.at[i] = (void *)(REGION + i * PAGE_BYTES);
		b.source[i] = (int64_t)i;
	}
	while (!r && (!t->shared->stop || t->shared->operations < 2000)) {
		r = mutate(&b, &t->seed, &elsewhere);
		t->shared->operations++;
	}
	for (uint64_t i = 0; i < t->pages && !r; i++)
		r = believed(&b, i) ? TASK_OK : TASK_WRONG_BYTES;
	/* The children that nobody waited for. */
	while (waitpid(-1, &status, 0) > 0)
		if (!r && (!WIFEXITED(status) || WEXITSTATUS(status)))
			r = WIFEXITED(status) ? WEXITSTATUS(status) : TASK_OPERATION;
	return r;
}

/* Faults on single pages beside the moves; by a system call, for the page may be gone just then. */
static void *touch_pages(void *data)
{
	struct task *t = data;
	uint64_t seed = 77, word;

	while (!t->shared->stop) {
		uint64_t at = random_next(&seed) % t->pages * PAGE_BYTES;
		struct iovec local = { &word, 8 };
		struct iovec remote = { (void *)((random_next(&seed) & 1 ? REGION : ELSEWHERE) + at), 8 };

		process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
	}
	return NULL;
}

/* Moves big pieces to and fro and looks at some pages of them, so that copies and moves meet; then everything must be there. */
int body_move(struct task *t)
{
	uint64_t piece = t->pages / 4 * PAGE_BYTES, moved = 0;
	pthread_t thread;

	if (pthread_create(&thread, NULL, touch_pages, t))
		return TASK_SETUP;
	while (!t->shared->stop) {
		uint64_t i = random_next(&t->seed) % 4, from = REGION, to = ELSEWHERE;

		if (moved >> i & 1) {
			from = ELSEWHERE;
			to = REGION;
		}
		if (mremap((void *)(from + i * piece), piece, piece, MREMAP_MAYMOVE | MREMAP_FIXED,
			   (void *)(to + i * piece)) == MAP_FAILED)
			return TASK_OPERATION;
		moved ^= 1ULL << i;
		t->shared->operations++;
		/* Without this no copy would ever be let in: the kernel refuses them while a mapping changes. */
		for (int k = 0; k < 20; k++) {
			uint64_t at = random_next(&t->seed) % (piece / PAGE_BYTES) + i * piece / PAGE_BYTES;

			if (!page_holds((void *)(to + at * PAGE_BYTES), (int64_t)at))
				return TASK_WRONG_BYTES;
		}
	}
	pthread_join(thread, NULL);
	for (uint64_t i = 0; i < t->pages; i++)
		if (!page_holds((void *)((moved >> (i * PAGE_BYTES / piece) & 1 ? ELSEWHERE : REGION) + i * PAGE_BYTES),
				(int64_t)i))
			return TASK_WRONG_BYTES;
	return TASK_OK;
}

int body_resident(struct task *t)
{
	while (!t->shared->stop)
		sched_yield();
	if (t->pages > sizeof(t->shared->resident) ||
	    mincore((void *)REGION, t->pages * PAGE_BYTES, t->shared->resident) < 0)
		return TASK_OPERATION;
	t->shared->operations = 1;
	return body_check(t);
}
