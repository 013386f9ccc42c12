/*
 * The smallest pager that CRIU's lazy restore accepts: one task, pages from a copy taken while the task was held.
 * It shows what criu/ leaves to the pager; the product's own pager is another module.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "criu/support.h"

#define COPIES_MAX 512
#define PAGE 4096UL

struct mini_pager {
	struct copy copies[COPIES_MAX];
	size_t n_copies;
	char path[96];
	int listener, stop[2];
	pthread_t thread;
	bool running;
	volatile uint64_t faults;
};

/* Private writable mappings, and anonymous ones of any protection. Reading an untouched page gives zeros, as it must. */
struct mini_pager *mini_pager_new(pid_t pid, const char *work_directory)
{
	struct mini_pager *p = calloc(1, sizeof(*p));
	char path[64], line[512];
	FILE *maps;

	p->listener = -1;
	snprintf(p->path, sizeof(p->path), "%s/lazy-pages.socket", work_directory);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	while (maps && fgets(line, sizeof(line), maps)) {
		unsigned long start, end, inode;
		char flags[8];
		struct copy *c = &p->copies[p->n_copies];
		struct iovec local, remote;

		if (sscanf(line, "%lx-%lx %7s %*s %*s %lu", &start, &end, flags, &inode) != 4 || flags[3] != 'p' ||
		    flags[0] != 'r' || strstr(line, "[v") || p->n_copies == COPIES_MAX)
			continue;
		*c = (struct copy){ .start = start, .length = end - start };
		c->data = mmap(NULL, c->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		local = (struct iovec){ c->data, c->length };
		remote = (struct iovec){ (void *)start, c->length };
		if (process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)c->length)
			p->n_copies++;
	}
	if (maps)
		fclose(maps);
	assert_true(p->n_copies > 3);
	return p;
}

static void serve(struct mini_pager *p, int uffd, uint64_t address)
{
	for (size_t i = 0; i < p->n_copies; i++) {
		const struct copy *c = &p->copies[i];

		if (address >= c->start && address < c->start + c->length) {
			struct uffdio_copy copy = { .dst = address,
						    .src = (uintptr_t)c->data + (address - c->start),
						    .len = PAGE };

			ioctl(uffd, UFFDIO_COPY, &copy);
			p->faults++;
			return;
		}
	}
	ioctl(uffd, UFFDIO_ZEROPAGE, &(struct uffdio_zeropage){ .range = { address, PAGE } });
}

static void *pager_main(void *argument)
{
	struct mini_pager *p = argument;
	struct pollfd polls[4] = { { .fd = p->stop[0], .events = POLLIN },
				   { .fd = p->listener, .events = POLLIN },
				   { .fd = -1, .events = POLLIN },
				   { .fd = -1, .events = POLLIN } };

	while (poll(polls, 4, -1) >= 0 && !polls[0].revents) {
		int32_t word;
		int fd = -1;
		size_t n = 0;

		if (polls[1].revents) {
			polls[2].fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
			polls[1].fd = -1;
		} else if (polls[2].revents) {
			if (fd_recv_fds(polls[2].fd, &word, sizeof(word), &fd, 1, &n) <= 0) {
				close(polls[2].fd);
				polls[2].fd = -1;
			} else if (n == 1) {
				polls[3].fd = fd;
			}
		} else if (polls[3].revents) {
			struct uffd_msg message;

			if (read(polls[3].fd, &message, sizeof(message)) != sizeof(message)) {
				if (errno != EAGAIN)
					polls[3].fd = -1;
			} else if (message.event == UFFD_EVENT_PAGEFAULT) {
				serve(p, polls[3].fd, message.arg.pagefault.address & ~(PAGE - 1));
			}
		}
	}
	close(polls[2].fd);
	close(polls[3].fd);
	return NULL;
}

void mini_pager_listen(struct mini_pager *p)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", p->path);
	unlink(p->path);
	p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(bind(p->listener, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(p->listener, 4) == 0);
	assert_int_equal(pipe2(p->stop, O_CLOEXEC), 0);
	assert_int_equal(pthread_create(&p->thread, NULL, pager_main, p), 0);
	p->running = true;
}

uint64_t mini_pager_faults(const struct mini_pager *p)
{
	return p->faults;
}

void mini_pager_free(struct mini_pager *p)
{
	if (p->running) {
		close(p->stop[1]);
		pthread_join(p->thread, NULL);
		close(p->stop[0]);
		close(p->listener);
	}
	for (size_t i = 0; i < p->n_copies; i++)
		munmap(p->copies[i].data, p->copies[i].length);
	free(p);
}
