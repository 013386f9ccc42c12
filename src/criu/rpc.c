/*
 * CRIU's RPC: packets of protobuf over a SOCK_SEQPACKET pair to a child `criu swrk FD`.
 *
 * CRIU resolves descriptors in requests (images, work directory) through /proc/PEER/fd, where PEER is the process
 * that made the socket pair (SO_PEERCRED), so the pair is made here and the descriptors stay open with the caller.
 * Configuration files of the machine and of the user are switched off: what CRIU does is what we ask.
 * Threads: one per struct rpc. Source: criu/cr-service.c, criu/crtools.c, criu/config.c.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "criu/job.h"

#define FINISH_MS 10000

int rpc_start(const struct rpc_start *start, struct rpc *ret, struct error *err)
{
	static const char child_fd[] = { '0' + RPC_CHILD_FD, 0 };
	const char *argv[] = { start->program, "--no-default-config", "swrk", child_fd, NULL };
	struct process_options o = { .argv = argv,
				     .environment = start->environment,
				     .stdin_fd = -1,
				     .stdout_fd = -1,
				     .stderr_fd = start->stderr_fd,
				     .new_session = true };
	struct process p = PROCESS_NONE;
	struct stat st;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, errno, "cannot make a socket for CRIU");
	o.source_fds[0] = pair[1];
	o.child_fds[0] = RPC_CHILD_FD;
	o.n_fds = 1;
	if (start->pages_fd >= 0) {
		o.source_fds[1] = start->pages_fd;
		o.child_fds[1] = PAGES_CHILD_FD;
		o.n_fds = 2;
	}
	if (fstat(pair[1], &st) < 0)
		st.st_ino = 0;
	r = process_start(&o, &p, err);
	close(pair[1]);
	if (r < 0) {
		close(pair[0]);
		return r;
	}
	*ret = (struct rpc){ .process = p, .socket_fd = pair[0], .peer_inode = st.st_ino };
	return 0;
}

int rpc_send(struct rpc *rpc, const CriuRpc__Request *request)
{
	size_t length = criu_rpc__request__get_packed_size(request);
	_cleanup_free_ uint8_t *packet = NULL;

	if (length > RPC_MESSAGE_MAX)
		return -EMSGSIZE;
	packet = malloc(length);
	if (!packet)
		return -ENOMEM;
	criu_rpc__request__pack(request, packet);
	for (;;) {
		ssize_t n = send(rpc->socket_fd, packet, length, MSG_NOSIGNAL);

		if (n == (ssize_t)length)
			return 0;
		if (n < 0 && errno == EINTR)
			continue;
		return n < 0 && errno == EPIPE ? -EPIPE : n < 0 ? -errno : -EIO;
	}
}

int rpc_notify(struct rpc *rpc, bool success)
{
	CriuRpc__Request request = CRIU_RPC__REQUEST__INIT;

	request.type = CRIU_RPC__TYPE__NOTIFY;
	request.has_notify_success = true;
	request.notify_success = success;
	return rpc_send(rpc, &request);
}

/* The end of CRIU is watched beside its socket: tasks that it was restoring may hold the socket open for ever. */
static int rpc_wait(struct rpc *rpc, int cancel_fd, uint64_t deadline_ns)
{
	struct pollfd p[3] = { { .fd = rpc->socket_fd, .events = POLLIN },
			       { .fd = cancel_fd, .events = POLLIN },
			       { .fd = rpc->process.pid ? rpc->process.pidfd : -1, .events = POLLIN } };

	for (;;) {
		int r = poll(p, 3, deadline_poll_ms(deadline_ns));

		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0 && p[0].revents)
			return 0;
		if (r > 0 && p[2].revents) /* its last words may have come between the two looks */
			return fd_wait(rpc->socket_fd, POLLIN, 0) > 0 ? 0 : -ECONNRESET;
		if (r > 0 && p[1].revents)
			return -ECANCELED;
		if (r == 0 && clock_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
	}
}

int rpc_receive(struct rpc *rpc, int cancel_fd, uint64_t deadline_ns, CriuRpc__Response **ret)
{
	_cleanup_free_ uint8_t *packet = malloc(RPC_MESSAGE_MAX);
	CriuRpc__Response *response;
	ssize_t n;
	int r;

	if (!packet)
		return -ENOMEM;
	r = rpc_wait(rpc, cancel_fd, deadline_ns);
	if (r < 0)
		return r;
	do
		n = recv(rpc->socket_fd, packet, RPC_MESSAGE_MAX, MSG_TRUNC);
	while (n < 0 && errno == EINTR);
	if (n == 0)
		return -ECONNRESET;
	if (n < 0)
		return -errno;
	if (n > RPC_MESSAGE_MAX)
		return -EBADMSG;
	response = criu_rpc__response__unpack(NULL, (size_t)n, packet);
	if (!response)
		return -EBADMSG;
	*ret = response;
	return 0;
}

void rpc_finish(struct rpc *rpc, uint64_t deadline_ns)
{
	close_fd(&rpc->socket_fd);
	if (process_wait(&rpc->process, deadline_ns) <= 0)
		process_kill(&rpc->process);
}

void rpc_free(struct rpc *rpc)
{
	rpc_finish(rpc, deadline_in_ms(FINISH_MS));
	process_free(&rpc->process);
}
