/*
 * Post-copy after the death of the worker that brought pages in: the pager lives on, and gives what a successor needs (state, eventfds,
 * stores) to whoever connects to its socket and is of our own user. See pager.h.
 *
 * Both ends: the pager proper (pager_adopt_offer()), and the client that takes the place of the one that died (pager_adopt()).
 * Threads: none; each end has one.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "memory/pager-internal.h"
#include "memory/pager-server.h"
#include "memory/pager.h"

#define OFFER_MS 5000

/* Nobody who reads slowly may hold up the faults: what does not fit into the socket's buffer ends the offer. */
void pager_adopt_offer(struct pager_state *s)
{
	_cleanup_close_ int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int fds[PAGER_FDS_PER_MESSAGE] = { s->state_fd, s->request_fd, s->arrival_fd };
	socklen_t length = sizeof(struct ucred);
	struct ucred peer;
	size_t n = 0;
	int r;

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 || peer.uid != geteuid())
		return;
	r = fd_send_fds(fd, "s", 1, fds, 3);
	for (uint32_t i = 0; i < s->n_spaces && !r; i++) {
		if (!state_space(s, i)->n_missing)
			continue;
		fds[n++] = state_space(s, i)->store_fd;
		if (n == PAGER_FDS_PER_MESSAGE) {
			r = fd_send_fds(fd, "f", 1, fds, n);
			n = 0;
		}
	}
	if (!r && n)
		fd_send_fds(fd, "f", 1, fds, n);
}

/* By descriptor, as in pager.c: the path may be too long for a socket's address. */
static int connect_to(struct pager *p, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *name = strrchr(path, '/');
	char directory[4096];

	if (!name ||
	    (size_t)snprintf(directory, sizeof(directory), "%.*s", (int)(name - path), path) >= sizeof(directory))
		return -EINVAL;
	p->directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	p->control_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->directory_fd < 0 || p->control_fd < 0)
		return -errno;
	snprintf(p->socket_name, sizeof(p->socket_name), "%s", name + 1);
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%.80s", p->directory_fd, name + 1);
	return connect(p->control_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
}

static ssize_t receive_fds(struct pager *p, int *fds, size_t max, size_t *ret_n)
{
	char byte;
	int r = fd_wait(p->control_fd, POLLIN, deadline_in_ms(OFFER_MS));

	*ret_n = 0;
	if (r <= 0)
		return r ? r : -ETIMEDOUT;
	r = (int)fd_recv_fds(p->control_fd, &byte, 1, fds, max, ret_n);
	return r < 0 ? r : r && *ret_n ? 0 : -EPIPE;
}

static int receive_stores(struct pager *p)
{
	uint32_t i = 0;

	p->store_fds = malloc((p->state->n_spaces + 1) * sizeof(*p->store_fds));
	if (!p->store_fds)
		return -ENOMEM;
	for (uint32_t k = 0; k < p->state->n_spaces; k++)
		p->store_fds[k] = -1;
	for (;;) {
		int fds[PAGER_FDS_PER_MESSAGE];
		ssize_t r;
		size_t n;

		while (i < p->state->n_spaces && !state_space(p->state, i)->n_missing)
			i++;
		if (i == p->state->n_spaces)
			return 0;
		r = receive_fds(p, fds, PAGER_FDS_PER_MESSAGE, &n);
		if (r < 0)
			return (int)r;
		for (size_t k = 0; k < n; k++) {
			while (i < p->state->n_spaces && !state_space(p->state, i)->n_missing)
				i++;
			if (i == p->state->n_spaces)
				close(fds[k]);
			else
				p->store_fds[i++] = fds[k];
		}
	}
}

int pager_adopt(const char *socket_path, struct pager **ret, struct error *err)
{
	struct pager *p = calloc(1, sizeof(*p));
	int fds[3], r;
	size_t n = 0;

	if (!p)
		return error_set(err, ENOMEM, "no memory for the pager");
	p->supervisor = PROCESS_NONE;
	p->control_fd = p->state_fd = p->directory_fd = p->listen_fd = p->request_fd = p->arrival_fd = -1;
	p->adopted = true;
	r = connect_to(p, socket_path);
	if (!r)
		r = (int)receive_fds(p, fds, 3, &n);
	if (!r && n != 3)
		r = -EPROTO;
	if (!r) {
		p->state_fd = fds[0];
		p->request_fd = fds[1];
		p->arrival_fd = fds[2];
		r = pager_state_map(p->state_fd, &p->state, NULL);
	}
	if (!r)
		r = receive_stores(p);
	if (r < 0) {
		pager_leave(p);
		return error_errno(err, -r, "the pager that holds the workload's memory cannot be reached at %s",
				   socket_path);
	}
	*ret = p;
	return 0;
}

bool pager_processes_gone(const struct pager *p)
{
	return kill(p->state->supervisor_pid, 0) < 0 && errno == ESRCH && kill(p->state->pager_pid, 0) < 0 &&
	       errno == ESRCH;
}
