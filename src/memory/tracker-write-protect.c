/*
 * Tracking by userfaultfd in asynchronous write-protect mode and PAGEMAP_SCAN (Linux 6.7).
 *
 * The first write to a protected page costs the process a fault that the kernel answers itself (about a microsecond); no
 * message is ever sent, nobody must listen, and if we die, the kernel closes the descriptor and all is as before.
 * Registering, scanning and unregistering work from outside once the descriptor is here (inject.c).
 * One thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "memory/inject.h"
#include "memory/tracker-internal.h"

/* Unregistering holds the lock of the process's memory: this much at a time. */
#define RELEASE_CHUNK_BYTES (4ULL << 20)

static int uffd_enable(int uffd)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_WP_ASYNC | UFFD_WP_UNPOPULATED | UFFD_WP_HUGETLBFS_SHMEM |
					      UFFD_PAGEFAULT_WP };

	return ioctl(uffd, UFFDIO_API, &api) < 0 ? -errno : 0;
}

bool tracker_write_protect_works(struct error *err)
{
	_cleanup_close_ int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_MODE_USER_ONLY);

	if (uffd < 0) {
		error_errno(err, errno, "this kernel has no userfaultfd for us");
		return false;
	}
	if (uffd_enable(uffd) < 0 || !scan_has_ioctl()) {
		error_set(err, EOPNOTSUPP,
			  "this kernel has no asynchronous write-protection with PAGEMAP_SCAN (Linux 6.7)");
		return false;
	}
	return true;
}

static int write_protect_attach(struct tracked *p, const struct maps *maps, struct error *err)
{
	_cleanup_close_ int uffd = -1;
	int r = inject_userfaultfd(p->pid, p->pid, p->pidfd, maps, &uffd, err);

	if (r < 0)
		return r;
	r = uffd_enable(uffd);
	if (r < 0)
		return error_errno(err, -r, "cannot set up write-protection for process %d", (int)p->pid);
	p->uffd = TAKE_FD(uffd);
	p->attached = true;
	return 0;
}

static int write_protect_arm(struct tracked *p, uint64_t start, uint64_t end)
{
	struct uffdio_register reg = { .range = { .start = start, .len = end - start },
				       .mode = UFFDIO_REGISTER_MODE_WP };

	if (!ioctl(p->uffd, UFFDIO_REGISTER, &reg))
		return 0;
	/* EINVAL: no mapping there any more, or none that could be registered. */
	return errno == EINVAL ? -ENOENT : -errno;
}

static void write_protect_release(struct tracked *p, bool alive)
{
	for (size_t i = 0; alive && p->uffd >= 0 && i < p->armed.n_ranges; i++)
		for (uint64_t at = p->armed.ranges[i].start, end; at < p->armed.ranges[i].end; at = end) {
			struct uffdio_range range = { .start = at };

			end = MIN(p->armed.ranges[i].end, (at / RELEASE_CHUNK_BYTES + 1) * RELEASE_CHUNK_BYTES);
			range.len = end - at;
			/* What was unmapped meanwhile, or is made of larger pages, is left to close(2). */
			ioctl(p->uffd, UFFDIO_UNREGISTER, &range);
		}
	close_fd(&p->uffd);
}

const struct tracker_ops tracker_write_protect_ops = {
	.kind = TRACKER_WRITE_PROTECT,
	.use_ioctl = true,
	.attach = write_protect_attach,
	.arm = write_protect_arm,
	.release = write_protect_release,
};
