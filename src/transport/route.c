/*
 * The worker's end of a session's further channels, and the joiner that brings ssh's descriptors to it.
 *
 * TLS: descriptors of accepted connections come over a socketpair from the listener; the handshake is made here,
 * where a failure hurts nobody else. ssh: a unix socket RUN_DIRECTORY/ROUTE.sock (0600, and only our own user is
 * heard) receives the stdin and stdout of `phaul receive --join ROUTE`; the connection stays open as long as the
 * channel lives, and its end lets the joiner go.
 * Threads: one per route; the joiner is a process of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/fd.h"
#include "base/log.h"
#include "transport/endpoint-internal.h"

#define HANDSHAKE_MS 10000
#define JOIN_MS 5000

struct route {
	int fd;			       /* the listener's socketpair, or the listening unix socket */
	struct tls_identity *identity; /* NULL: ssh */
	int directory_fd;	       /* ssh: where the socket is */
	char name[ROUTE_HEX_BYTES + 8];
};

static int route_new(int fd, struct route **ret, struct error *err)
{
	struct route *r = calloc(1, sizeof(*r));

	if (!r) {
		close(fd);
		return error_set(err, ENOMEM, "no memory for the session's route");
	}
	r->fd = fd;
	r->directory_fd = -1;
	*ret = r;
	return 0;
}

int route_open_tls(int listener_fd, struct tls_identity *identity, struct route **ret, struct error *err)
{
	struct route *route = NULL;
	int r = route_new(listener_fd, &route, err);

	if (r < 0)
		return r;
	route->identity = identity;
	*ret = route;
	return 0;
}

/* The address of NAME in an open directory: sun_path is too short for some directories' own names. */
static struct sockaddr_un socket_address(int directory_fd, const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory_fd, name);
	return address;
}

int route_open_ssh(const char *run_directory, const uint8_t id[ROUTE_BYTES], struct route **ret, struct error *err)
{
	_cleanup_close_ int directory = open(run_directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char hex[ROUTE_HEX_BYTES + 1], name[ROUTE_HEX_BYTES + 8];
	struct sockaddr_un address;
	int r;

	if (directory < 0)
		return error_errno(err, errno, "cannot open the directory %s", run_directory);
	route_format(id, hex);
	snprintf(name, sizeof(name), "%s.sock", hex);
	address = socket_address(directory, name);
	/* The mode of the socket's inode becomes the mode of the file: no moment in which it is wider. */
	if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return error_errno(err, errno, "cannot make the session's socket %s/%s", run_directory, name);
	if (listen(fd, 64) < 0) {
		r = error_errno(err, errno, "cannot listen on the session's socket %s/%s", run_directory, name);
		unlinkat(directory, name, 0);
		return r;
	}
	r = route_new(TAKE_FD(fd), ret, err);
	if (r < 0) {
		unlinkat(directory, name, 0);
		return r;
	}
	(*ret)->directory_fd = TAKE_FD(directory);
	memcpy((*ret)->name, name, sizeof(name));
	return 0;
}

int route_poll_fd(const struct route *r)
{
	return r->fd;
}

void route_free(struct route *r)
{
	if (!r)
		return;
	if (r->directory_fd >= 0)
		unlinkat(r->directory_fd, r->name, 0);
	close_fd(&r->directory_fd);
	close_fd(&r->fd);
	free(r);
}

/* Until the route's descriptor is readable: 1; 0 at the deadline; -ECANCELED. */
static int route_wait(struct route *r, int cancel_fd, uint64_t deadline_ns)
{
	struct pollfd p[2] = { { .fd = r->fd, .events = POLLIN }, { .fd = cancel_fd, .events = POLLIN } };

	for (;;) {
		int n = poll(p, 2, deadline_poll_ms(deadline_ns));

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && p[1].revents)
			return -ECANCELED;
		if (n > 0)
			return 1;
		if (clock_now_ns() >= deadline_ns)
			return 0;
	}
}

/* How long the handshake of one connection may take: its own limit, and what is left of the caller's. */
static int64_t handshake_ms(uint64_t deadline_ns)
{
	uint64_t now = clock_now_ns();

	if (deadline_ns == DEADLINE_NEVER)
		return HANDSHAKE_MS;
	if (deadline_ns <= now)
		return 0;
	return (int64_t)MIN((deadline_ns - now) / NS_PER_MS + 1, (uint64_t)HANDSHAKE_MS);
}

/* -EAGAIN: this connection was nothing, the next may be. */
static int receive_tls(struct route *r, int cancel_fd, uint64_t deadline_ns, struct channel **ret, struct error *err)
{
	struct error why;
	uint8_t byte;
	size_t n_fds = 0;
	int fd = -1, e;
	ssize_t n = fd_recv_fds(r->fd, &byte, 1, &fd, 1, &n_fds);

	if (n == -EAGAIN)
		return -EAGAIN;
	if (n <= 0)
		return error_set(err, ECONNRESET, "the server that takes this session's connections has ended");
	if (!n_fds)
		return -EAGAIN;
	e = accept_tls(fd, r->identity, handshake_ms(deadline_ns), cancel_fd, ret, &why);
	if (e == -ECANCELED)
		return error_set(err, ECANCELED, "%s", why.text);
	if (e < 0) {
		log_warning("a further connection of this session failed: %s", why.text);
		return -EAGAIN;
	}
	return 0;
}

static int receive_ssh(struct route *r, struct channel **ret, struct error *err)
{
	_cleanup_close_ int connection = accept4(r->fd, NULL, NULL, SOCK_CLOEXEC);
	struct ucred peer;
	socklen_t length = sizeof(peer);
	int fds[2] = { -1, -1 }, e;
	size_t n_fds = 0;
	uint8_t byte;

	if (connection < 0)
		return -EAGAIN;
	if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ||
	    (peer.uid != geteuid() && peer.uid != 0))
		return -EAGAIN;
	if (fd_wait(connection, POLLIN, deadline_in_ms(JOIN_MS)) != 1 ||
	    fd_recv_fds(connection, &byte, 1, fds, 2, &n_fds) != 1 || n_fds != 2) {
		close_fd(&fds[0]);
		close_fd(&fds[1]);
		return -EAGAIN;
	}
	e = channel_new_plain(fds[0], fds[1], "the source (over ssh)", ret, err);
	if (e < 0)
		return e;
	(*ret)->hold_fd = TAKE_FD(connection);
	e = channel_write(*ret, PHAUL_GREETING, PHAUL_GREETING_BYTES, NULL);
	if (e < 0) {
		channel_free(TAKE_PTR(*ret));
		return -EAGAIN;
	}
	return 0;
}

int route_receive(struct route *r, int cancel_fd, uint64_t deadline_ns, struct channel **ret, struct error *err)
{
	struct channel *c = NULL;

	for (;;) {
		int e = route_wait(r, cancel_fd, deadline_ns);

		if (e == -ECANCELED)
			return error_set(err, ECANCELED,
					 "canceled while waiting for a further connection of the session");
		if (e < 0)
			return error_errno(err, -e, "cannot wait for a further connection of the session");
		if (!e)
			return error_set(err, ETIMEDOUT, "the source did not open a further connection in time");
		e = r->identity ? receive_tls(r, cancel_fd, deadline_ns, &c, err) : receive_ssh(r, &c, err);
		if (!e)
			*ret = c;
		if (e != -EAGAIN)
			return e;
	}
}

/* Moves our stdin and stdout to other numbers; what is printed from now on goes to stderr and harms nobody. */
static int take_stdio(int fds[2], struct error *err)
{
	_cleanup_close_ int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	fds[0] = fcntl(0, F_DUPFD_CLOEXEC, 3);
	fds[1] = fcntl(1, F_DUPFD_CLOEXEC, 3);
	if (null < 0 || fds[0] < 0 || fds[1] < 0 || dup2(null, 0) < 0 || dup2(2, 1) < 0) {
		int r = error_errno(err, errno, "cannot use standard input and output for the session");

		close_fd(&fds[0]);
		close_fd(&fds[1]);
		return r;
	}
	return 0;
}

int channel_accept_stdio(struct channel **ret, struct error *err)
{
	_cleanup_channel_ struct channel *c = NULL;
	const char *from = getenv("SSH_CONNECTION");
	char name[128];
	int fds[2], r = take_stdio(fds, err);

	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "%.*s (over ssh)", from ? (int)MIN(strcspn(from, " "), (size_t)64) : 10,
		 from ? from : "the source");
	r = channel_new_plain(fds[0], fds[1], name, &c, err);
	if (!r)
		r = channel_write(c, PHAUL_GREETING, PHAUL_GREETING_BYTES, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(c);
	return 0;
}

int route_join_stdio(const char *run_directory, const char *route_hex, struct error *err)
{
	_cleanup_close_ int directory = open(run_directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char name[ROUTE_HEX_BYTES + 8];
	struct sockaddr_un address;
	uint8_t id[ROUTE_BYTES], byte = 0;
	int fds[2], r;

	if (!route_parse(route_hex, id))
		return error_set(err, EINVAL, "'%.64s' is not the name of a session's route: 32 hexadecimal digits",
				 route_hex);
	snprintf(name, sizeof(name), "%s.sock", route_hex);
	address = socket_address(directory, name);
	if (directory < 0 || fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == ENOENT || errno == ECONNREFUSED)
			return error_set(err, ENOENT, "no session waits for this connection in %s: it has ended",
					 run_directory);
		return error_errno(err, errno, "cannot join the session in %s", run_directory);
	}
	r = take_stdio(fds, err);
	if (r < 0)
		return r;
	r = fd_send_fds(fd, &byte, 1, fds, 2);
	close_fd(&fds[0]);
	close_fd(&fds[1]);
	if (r < 0)
		return error_errno(err, -r, "cannot join the session in %s", run_directory);
	/* The worker says nothing here: the end of its descriptor is the end of the channel. */
	if (fd_read_full(fd, &byte, 1) == 0)
		return error_set(err, EPROTO, "the session's socket in %s does not belong to phaul", run_directory);
	return 0;
}
