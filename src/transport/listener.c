/*
 * The listener of `phaul serve`: accepts, reads preambles, and sorts connections to their workers.
 *
 * Invariants: nothing here waits for a peer: every descriptor is tried without blocking, and listener_step() sleeps in one
 * poll(2) over all of them. No byte is ever sent to a peer. At most PENDING_MAX connections wait for their preamble,
 * PENDING_MS each; one more pushes out the oldest, so that silent connections cannot keep a good one out (a good
 * one sends its preamble with its first segment).
 * Threads: one.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>

#include "base/fd.h"
#include "base/log.h"
#include "transport/endpoint-internal.h"

#define PENDING_MAX 64
#define PENDING_MS 5000
#define BACKLOG 256
#define ACCEPTS_PER_STEP 64
#define OUT_OF_FDS_MS 200 /* how long accept(2) is left alone when this process has no descriptor free */

struct pending {
	int fd;
	uint64_t deadline_ns;
	size_t length;
	uint8_t preamble[PREAMBLE_BYTES];
};

struct worker {
	int fd;
	uint8_t route[ROUTE_BYTES];
};

struct listener {
	int fd;
	uint16_t port;
	uint64_t accept_after_ns;
	struct pending pending[PENDING_MAX]; /* oldest first */
	size_t n_pending;
	struct worker *workers;
	size_t n_workers;
	size_t n_allocated;
	struct pollfd *polls; /* room for all of the above */
};

static int bad_address(const char *address, const char *why, struct error *err)
{
	return error_set(err, EINVAL, "cannot listen on '%.200s': %s; give ADDR:PORT or [V6]:PORT", address, why);
}

/* "ADDR:PORT" or "[V6]:PORT" into the two words. */
static int split_address(const char *address, char *host, size_t host_size, const char **ret_port, struct error *err)
{
	const char *colon = strrchr(address, ':');
	size_t length;

	if (!colon)
		return bad_address(address, "the port is missing", err);
	length = (size_t)(colon - address);
	if (length > 1 && address[0] == '[' && address[length - 1] == ']') {
		address++;
		length -= 2;
	} else if (memchr(address, ':', length)) {
		return bad_address(address, "an IPv6 address stands in brackets", err);
	}
	if (!length || length >= host_size)
		return bad_address(address, "the address is missing or too long", err);
	memcpy(host, address, length);
	host[length] = 0;
	*ret_port = colon + 1;
	if (!(*ret_port)[0] || strspn(*ret_port, "0123456789") != strlen(*ret_port) || strlen(*ret_port) > 5 ||
	    strtoul(*ret_port, NULL, 10) > 65535)
		return bad_address(address, "the port must be a number from 0 to 65535", err);
	return 0;
}

static int open_socket(const char *address, const struct addrinfo *a, int *ret_fd, struct error *err)
{
	_cleanup_close_ int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
		if (errno == EADDRINUSE)
			return error_set(err, EADDRINUSE, "cannot listen on %s: another program does already", address);
		if (errno == EADDRNOTAVAIL)
			return error_set(err, EADDRNOTAVAIL,
					 "cannot listen on %s: this host does not have that address", address);
		return error_errno(err, errno, "cannot listen on %s", address);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static uint16_t bound_port(int fd)
{
	struct sockaddr_storage s;
	socklen_t length = sizeof(s);

	if (getsockname(fd, (struct sockaddr *)&s, &length) < 0)
		return 0;
	return ntohs(s.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&s)->sin6_port
					     : ((struct sockaddr_in *)&s)->sin_port);
}

int listener_open(const char *address, struct listener **ret, struct error *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	struct addrinfo *all;
	struct listener *l;
	char host[256];
	const char *port = NULL;
	int fd = -1, r = split_address(address, host, sizeof(host), &port, err);

	if (r < 0)
		return r;
	r = getaddrinfo(host, port, &hints, &all);
	if (r)
		return bad_address(address, gai_strerror(r), err);
	r = open_socket(address, all, &fd, err);
	freeaddrinfo(all);
	if (r < 0)
		return r;
	l = calloc(1, sizeof(*l));
	if (l)
		l->polls = calloc(PENDING_MAX + 2, sizeof(*l->polls));
	if (!l || !l->polls) {
		free(l);
		close(fd);
		return error_set(err, ENOMEM, "no memory to listen on %s", address);
	}
	l->fd = fd;
	l->port = bound_port(fd);
	*ret = l;
	return 0;
}

uint16_t listener_port(const struct listener *l)
{
	return l->port;
}

void listener_free(struct listener *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->n_pending; i++)
		close(l->pending[i].fd);
	for (size_t i = 0; i < l->n_workers; i++)
		close(l->workers[i].fd);
	close(l->fd);
	free(l->workers);
	free(l->polls);
	free(l);
}

/* close(2) alone ends nothing while the server has its own descriptors of the same connections. */
void listener_forget(struct listener *l)
{
	listener_free(l);
}

int listener_add_worker(struct listener *l, const uint8_t route[ROUTE_BYTES], int worker_fd, struct error *err)
{
	int flags;

	if (l->n_workers == l->n_allocated) {
		size_t n = l->n_allocated ? 2 * l->n_allocated : 16;
		struct worker *workers = reallocarray(l->workers, n, sizeof(*workers));
		struct pollfd *polls;

		if (workers)
			l->workers = workers;
		polls = workers ? reallocarray(l->polls, n + PENDING_MAX + 2, sizeof(*polls)) : NULL;
		if (!polls) {
			close(worker_fd);
			return error_set(err, ENOMEM, "no memory for another worker");
		}
		l->polls = polls;
		l->n_allocated = n;
	}
	flags = fcntl(worker_fd, F_GETFL);
	if (flags < 0 || fcntl(worker_fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		close_fd(&worker_fd);
		return error_errno(err, errno, "cannot use the worker's socket");
	}
	l->workers[l->n_workers].fd = worker_fd;
	memcpy(l->workers[l->n_workers].route, route, ROUTE_BYTES);
	l->n_workers++;
	return 0;
}

/* Takes the entry out of the list; its descriptor is the caller's. */
static int pending_remove(struct listener *l, size_t index)
{
	int fd = l->pending[index].fd;

	l->n_pending--;
	memmove(&l->pending[index], &l->pending[index + 1], (l->n_pending - index) * sizeof(l->pending[0]));
	return fd;
}

static void accept_all(struct listener *l)
{
	for (int i = 0; i < ACCEPTS_PER_STEP; i++) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
			/* It stays readable: without a pause we would spin. Silent peers give way first. */
			log_warning("cannot accept a connection: %s", strerror(errno));
			if (l->n_pending)
				close(pending_remove(l, 0));
			l->accept_after_ns = deadline_in_ms(OUT_OF_FDS_MS);
			return;
		}
		if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (fd < 0)
			continue; /* that connection has gone again */
		if (l->n_pending == PENDING_MAX)
			close(pending_remove(l, 0));
		l->pending[l->n_pending++] = (struct pending){ .fd = fd, .deadline_ns = deadline_in_ms(PENDING_MS) };
	}
}

/* Hands a connection to the worker of that route; one that nobody knows, or whose worker is full, is dropped. */
static void pass_to_worker(struct listener *l, const uint8_t *route, int fd)
{
	uint8_t byte = 0;

	for (size_t i = 0; i < l->n_workers; i++) {
		if (memcmp(l->workers[i].route, route, ROUTE_BYTES) != 0)
			continue;
		/* Never blocks: sendmsg(2) of a non-blocking socket; EAGAIN means that the worker takes none. */
		if (fd_send_fds(l->workers[i].fd, &byte, 1, &fd, 1) < 0)
			log_debug("a worker did not take a further connection");
		return;
	}
	log_debug("a connection for an unknown session was dropped");
}

static bool new_session(int fd, struct listener_event *ret)
{
	struct sockaddr_storage peer;
	socklen_t length = sizeof(peer);

	ret->kind = LISTENER_NEW_SESSION;
	ret->fd = fd;
	if (getpeername(fd, (struct sockaddr *)&peer, &length) < 0 ||
	    getrandom(ret->route, ROUTE_BYTES, 0) != ROUTE_BYTES) {
		close(fd); /* it has gone again */
		return false;
	}
	ret->route[0] |= 1; /* never the route that means a new session */
	address_format((struct sockaddr *)&peer, length, ret->peer);
	return true;
}

/* Reads what has come of one preamble. True: *ret is an event. *ret_removed tells that the entry is gone. */
static bool advance_pending(struct listener *l, size_t index, struct listener_event *ret, bool *ret_removed)
{
	struct pending *p = &l->pending[index];
	uint8_t preamble[PREAMBLE_BYTES];
	const uint8_t *route;
	ssize_t n = recv(p->fd, p->preamble + p->length, PREAMBLE_BYTES - p->length, MSG_DONTWAIT);
	int fd;

	*ret_removed = false;
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return false;
	if (n > 0) {
		p->length += (size_t)n;
		/* Garbage is turned away at its first wrong byte. */
		if (!memcmp(p->preamble, PHAUL_GREETING, MIN(p->length, (size_t)PHAUL_GREETING_BYTES)) &&
		    p->length < PREAMBLE_BYTES)
			return false;
	}
	memcpy(preamble, p->preamble, sizeof(preamble));
	route = p->length == PREAMBLE_BYTES ? preamble_route(preamble) : NULL;
	fd = pending_remove(l, index);
	*ret_removed = true;
	if (n > 0 && route && route_is_new(route))
		return new_session(fd, ret);
	if (n > 0 && route)
		pass_to_worker(l, route, fd);
	close(fd);
	return false;
}

static bool advance_all_pending(struct listener *l, struct listener_event *ret)
{
	uint64_t now = clock_now_ns();

	for (size_t i = 0; i < l->n_pending;) {
		bool removed;

		if (advance_pending(l, i, ret, &removed))
			return true;
		if (!removed && l->pending[i].deadline_ns <= now) {
			close(pending_remove(l, i));
			removed = true;
		}
		if (!removed)
			i++;
	}
	return false;
}

/* A worker says nothing on its socket; the end of it is the end of the worker. */
static bool look_at_workers(struct listener *l, struct listener_event *ret)
{
	for (size_t i = 0; i < l->n_workers; i++) {
		char byte;
		ssize_t n = recv(l->workers[i].fd, &byte, 1, MSG_DONTWAIT);

		if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)))
			continue;
		ret->kind = LISTENER_WORKER_DONE;
		memcpy(ret->route, l->workers[i].route, ROUTE_BYTES);
		close(l->workers[i].fd);
		l->workers[i] = l->workers[--l->n_workers];
		return true;
	}
	return false;
}

/* Fills l->polls and gives the earliest moment at which something has to be done anyway. */
static nfds_t prepare_polls(struct listener *l, int cancel_fd, uint64_t *deadline_ns)
{
	bool accepting = l->accept_after_ns <= clock_now_ns();
	nfds_t n = 0;

	l->polls[n++] = (struct pollfd){ .fd = cancel_fd, .events = POLLIN };
	l->polls[n++] = (struct pollfd){ .fd = accepting ? l->fd : -1, .events = POLLIN };
	if (!accepting)
		*deadline_ns = MIN(*deadline_ns, l->accept_after_ns);
	for (size_t i = 0; i < l->n_pending; i++) {
		l->polls[n++] = (struct pollfd){ .fd = l->pending[i].fd, .events = POLLIN };
		*deadline_ns = MIN(*deadline_ns, l->pending[i].deadline_ns);
	}
	for (size_t i = 0; i < l->n_workers; i++)
		l->polls[n++] = (struct pollfd){ .fd = l->workers[i].fd, .events = POLLIN };
	return n;
}

int listener_step(struct listener *l, int cancel_fd, uint64_t deadline_ns, struct listener_event *ret,
		  struct error *err)
{
	*ret = (struct listener_event){ .kind = LISTENER_NONE, .fd = -1 };
	for (;;) {
		uint64_t until = deadline_ns;
		nfds_t n = prepare_polls(l, cancel_fd, &until);
		int r = poll(l->polls, n, deadline_poll_ms(until));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return error_errno(err, errno, "cannot wait for connections");
		if (l->polls[0].revents) {
			ret->kind = LISTENER_CANCELED;
			return 0;
		}
		if (l->polls[1].revents)
			accept_all(l);
		if (look_at_workers(l, ret) || advance_all_pending(l, ret))
			return 0;
		*ret = (struct listener_event){ .kind = LISTENER_NONE, .fd = -1 };
		if (clock_now_ns() >= deadline_ns)
			return 0;
	}
}
