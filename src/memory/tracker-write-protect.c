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

/*
 * Unregistering holds the lock of the process's memory, 9 ms for each GiB: this much at a time. Where one part ends, a mapping is two until the next
 * part is done, and mremap(2) of both fails; so one that is not larger is never cut.
 */
#define RELEASE_MAX_BYTES (1ULL << 30)

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

static bool unregister(const struct tracked *p, uint64_t start, uint64_t end)
{
	struct uffdio_range range = { .start = start, .len = end - start };

	return ioctl(p->uffd, UFFDIO_UNREGISTER, &range) == 0;
}

static void unregister_mapping(const struct tracked *p, const struct maps *maps, size_t i)
{
	const struct map *m = &maps->maps[i];
	uint64_t low, high;

	maps_surroundings(maps, i, &low, &high);
	/* Mappings of large pages want their own bounds. What cannot be unregistered is left to close(2). */
	if (m->end - m->start <= RELEASE_MAX_BYTES) {
		if (!unregister(p, low, high))
			unregister(p, m->start, m->end);
		return;
	}
	for (uint64_t at = m->start, end; at < m->end; at = end) {
		end = MIN(m->end, at + RELEASE_MAX_BYTES);
		unregister(p, at, end);
	}
}

static void write_protect_release(struct tracked *p, bool alive)
{
	_cleanup_maps_ struct maps maps = { 0 };

	if (alive && p->uffd >= 0 && maps_read(p->pid, &maps, NULL) == 0)
		for (size_t i = 0; i < maps.n_maps; i++)
			unregister_mapping(p, &maps, i);
	close_fd(&p->uffd);
}

const struct tracker_ops tracker_write_protect_ops = {
	.kind = TRACKER_WRITE_PROTECT,
	.use_ioctl = true,
	.attach = write_protect_attach,
	.arm = write_protect_arm,
	.release = write_protect_release,
};
