/*
 * Reading pages of another process: see tracker.h. No state; any thread.
 *
 * process_vm_readv(2) stops at the first page it cannot read and says how far it came. That page is tried through
 * /proc/PID/mem, which also reads what is mapped without read permission; if that fails too it has gone away. After a few
 * such pages in a row the mappings are looked up once, so that an unmapped gigabyte does not cost a call per page.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>

#include "base/fd.h"
#include "memory/maps.h"
#include "memory/tracker.h"

#define READ_RANGES_MAX 512
#define READ_BYTES_MAX (0x7fffffffULL & PAGE_MASK) /* what one call moves at most */
#define FORCED_BYTES_MAX (1ULL << 20)
#define GONE_BEFORE_LOOKUP 16

struct reader {
	pid_t pid;
	const struct range *remote;
	size_t n, i;   /* the range, */
	uint64_t at;   /* and the address in it, to be read next */
	uint8_t *data; /* where it goes */
	uint64_t page; /* its number within the whole read */
	uint64_t *gone;
	uint64_t n_gone, in_a_row;
	int mem_fd;
	bool mapped_known; /* maps were read */
	struct maps maps;
};

static void advance(struct reader *r, uint64_t bytes)
{
	r->data += bytes;
	r->page += bytes >> PAGE_SHIFT;
	while (bytes) {
		uint64_t step = MIN(bytes, r->remote[r->i].end - r->at);

		r->at += step;
		bytes -= step;
		if (r->at == r->remote[r->i].end && ++r->i < r->n)
			r->at = r->remote[r->i].start;
	}
}

static ssize_t read_batch(struct reader *r)
{
	struct iovec remote[READ_RANGES_MAX], local = { .iov_base = r->data };
	unsigned long n = 0;
	uint64_t at = r->at;
	ssize_t got;

	for (size_t i = r->i; i < r->n && n < READ_RANGES_MAX && local.iov_len < READ_BYTES_MAX; i++) {
		uint64_t bytes;

		if (i != r->i)
			at = r->remote[i].start;
		bytes = MIN(r->remote[i].end - at, READ_BYTES_MAX - local.iov_len);
		remote[n++] = (struct iovec){ (void *)(uintptr_t)at, bytes };
		local.iov_len += bytes;
	}
	got = process_vm_readv(r->pid, &local, 1, remote, n, 0);
	return got < 0 ? -errno : got & (ssize_t)PAGE_MASK;
}

/* Bytes read through /proc/PID/mem at the current place; 0 when there is nothing. */
static uint64_t read_forced(struct reader *r)
{
	uint64_t bytes = MIN(r->remote[r->i].end - r->at, FORCED_BYTES_MAX);
	ssize_t got;

	if (r->mem_fd < 0) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/%d/mem", (int)r->pid);
		r->mem_fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (r->mem_fd < 0)
		return 0;
	got = pread(r->mem_fd, r->data, bytes, (off_t)r->at);
	return got > 0 ? (uint64_t)got & PAGE_MASK : 0;
}

/* How much from the current place on is certainly gone: a page, or up to the next mapping. */
static uint64_t gone_bytes(struct reader *r)
{
	uint64_t left = r->remote[r->i].end - r->at;
	size_t next;

	if (++r->in_a_row <= GONE_BEFORE_LOOKUP || left == PAGE_BYTES)
		return PAGE_BYTES;
	if (!r->mapped_known)
		maps_read(r->pid, &r->maps, NULL); /* none: the process is gone, and so is all of it */
	r->mapped_known = true;
	next = maps_find(&r->maps, r->at);
	if (next == r->maps.n_maps)
		return left;
	if (r->maps.maps[next].start > r->at)
		return MIN(left, r->maps.maps[next].start - r->at);
	return PAGE_BYTES; /* mapped, but this page cannot be read */
}

static void mark_gone(struct reader *r, uint64_t bytes)
{
	memset(r->data, 0, bytes);
	for (uint64_t i = 0; i < bytes >> PAGE_SHIFT && r->gone; i++)
		r->gone[(r->page + i) / 64] |= 1ULL << ((r->page + i) % 64);
	r->n_gone += bytes >> PAGE_SHIFT;
}

static int read_all(struct reader *r)
{
	while (r->i < r->n) {
		ssize_t got = read_batch(r);
		uint64_t bytes;

		if (got < 0 && got != -EFAULT)
			return (int)got;
		if (got > 0) {
			r->in_a_row = 0;
			advance(r, (uint64_t)got);
			continue;
		}
		bytes = read_forced(r);
		if (bytes) {
			r->in_a_row = 0;
		} else {
			bytes = gone_bytes(r);
			mark_gone(r, bytes);
		}
		advance(r, bytes);
	}
	return 0;
}

int reader_read(pid_t pid, const struct range *remote, size_t n, void *data, uint64_t *ret_gone, struct error *err)
{
	struct reader r = { .pid = pid, .remote = remote, .n = n, .data = data, .gone = ret_gone, .mem_fd = -1 };
	uint64_t pages = 0;
	int result;

	for (size_t i = 0; i < n; i++) {
		if (remote[i].start >= remote[i].end || ((remote[i].start | remote[i].end) & ~PAGE_MASK))
			return error_set(err, EINVAL, "not a range of whole pages: %lx-%lx",
					 (unsigned long)remote[i].start, (unsigned long)remote[i].end);
		pages += (remote[i].end - remote[i].start) >> PAGE_SHIFT;
	}
	if (ret_gone)
		memset(ret_gone, 0, (pages + 63) / 64 * sizeof(*ret_gone));
	r.at = n ? remote[0].start : 0;
	result = read_all(&r);
	close_fd(&r.mem_fd);
	maps_free(&r.maps);
	if (result < 0)
		return error_errno(err, -result, "cannot read the memory of process %d", (int)pid);
	return (int)r.n_gone;
}
