/*
 * CRIU's side of the door. criu restore connects once; per task it sends its pid (int32; negative for a
 * zombie, and nothing follows), then one byte with the userfaultfd as SCM_RIGHTS; at the end, when the tasks are about to
 * run, 0x52535446. It expects no answer (CRIU: criu/uffd.c, send_uffd(), lazy_pages_finish_restore()).
 *
 * Like the events, everything is received into the shared state: the pid, and the control message with the number of the
 * descriptor. The only thing a killed pager can leave without a trace is a connection just accepted, and that is
 * found by looking through the descriptor table.
 *
 * Threads: none; the pager is a process with one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/un.h>

#include "base/buffer.h"
#include "base/fd.h"
#include "memory/pager-server.h"

#define RESTORE_FINISHED 0x52535446
#define EVENTS_NEEDED                                                                                                  \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

static void set_connected(struct pager_state *s)
{
	bool all = true;

	for (uint32_t i = 0; i < s->n_spaces; i++)
		all &= state_space(s, i)->connected != 0;
	if (all || s->marker)
		s->connected = 1;
}

int pager_connect_accept(struct pager_server *srv)
{
	int fd = accept4(srv->state->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED
			       ? 0
			       : pager_state_fail(srv->state, errno, "the pager cannot accept CRIU's connection");
	srv->state->criu_fd = fd;
	return 0;
}

/* A connection that a predecessor accepted and could not write down. */
static int find_accepted(struct pager_state *s)
{
	struct sockaddr_un ours = { 0 }, other;
	socklen_t ours_length = sizeof(ours), length;
	_cleanup_closedir_ DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	if (!dir || getsockname(s->listen_fd, (struct sockaddr *)&ours, &ours_length) < 0)
		return 0;
	while ((entry = readdir(dir))) {
		int fd = atoi(entry->d_name), listening = 0;
		socklen_t size = sizeof(listening);

		length = sizeof(other);
		if (fd <= 2 || fd == s->listen_fd || getsockname(fd, (struct sockaddr *)&other, &length) < 0)
			continue;
		if (length == ours_length && !memcmp(&ours, &other, length) &&
		    !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) && !listening)
			return fd;
	}
	return 0;
}

/* The features that CRIU has agreed on with the kernel, from fdinfo ("API:\taa:FEATURES:..."). */
static int check_features(int uffd, uint64_t *ret)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[64], *line;
	unsigned long long api, features;
	int r;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", uffd);
	r = fd_read_file(AT_FDCWD, path, 4096, &text);
	if (r < 0)
		return r;
	line = text.length ? strstr((char *)text.data, "API:") : NULL;
	if (!line || sscanf(line, "API: %llx:%llx", &api, &features) != 2)
		return -EPROTO;
	*ret = features;
	return 0;
}

static struct pager_space_state *find_space(struct pager_state *s, int32_t pid, uint32_t *ret)
{
	for (uint32_t i = 0; i < s->n_spaces; i++)
		if (state_space(s, i)->image_pid == pid) {
			*ret = i;
			return state_space(s, i);
		}
	return NULL;
}

static int received_fd(const struct pager_handshake *h)
{
	struct msghdr msg = { .msg_control = (void *)h->control, .msg_controllen = sizeof(h->control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int fd;

	if (!c || c->cmsg_len != CMSG_LEN(sizeof(fd)) || c->cmsg_type != SCM_RIGHTS)
		return -1;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* Takes over the userfaultfd that lies in the handshake's buffer, if it was not yet. */
static int adopt(struct pager_state *s)
{
	struct pager_handshake *h = &s->handshake;
	int fd = received_fd(h);
	struct pager_space_state *sp;
	uint64_t features;
	uint32_t i;

	if (h->pid && !pager_member_find(s, fd)) {
		sp = find_space(s, h->pid, &i);
		if (!sp)
			return pager_state_fail(s, ENOENT, "CRIU restores process %d, whose memory nobody sent",
						h->pid);
		if (check_features(fd, &features) < 0 || (features & EVENTS_NEEDED) != EVENTS_NEEDED)
			return pager_state_fail(s, EOPNOTSUPP,
						"CRIU's userfaultfd of process %d does not report forks and changes of "
						"mappings; this kernel or CRIU cannot restore lazily",
						h->pid);
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
		if (!pager_member_new(s, i, fd, NULL))
			return pager_state_fail(s, ENOMEM, "the pager has no room left for process %d", h->pid);
		sp->connected = 1;
	}
	h->pid = 0;
	atomic_thread_fence(memory_order_seq_cst);
	memset(h->control, 0, sizeof(h->control));
	set_connected(s);
	return 0;
}

static int broken(struct pager_state *s)
{
	return pager_state_fail(s, EPROTO, "what came over CRIU's lazy-pages.socket is not CRIU's handshake");
}

/* The end of the connection: as it should be after the marker, or when the restore is given up. */
static void hang_up(struct pager_state *s)
{
	int fd = s->criu_fd;

	s->criu_fd = -1;
	close(fd);
}

static int take_pid(struct pager_state *s, ssize_t n)
{
	struct pager_handshake *h = &s->handshake;

	if (n != sizeof(h->pid))
		return broken(s);
	if (h->pid == RESTORE_FINISHED) {
		s->marker = 1;
		h->pid = 0;
		set_connected(s);
	} else if (h->pid < 0) {
		struct pager_space_state *sp;
		uint32_t i;

		/* A zombie: it has no memory. */
		sp = find_space(s, -h->pid, &i);
		if (sp)
			sp->connected = 1;
		h->pid = 0;
		set_connected(s);
	}
	return 0;
}

int pager_connect_receive(struct pager_server *srv)
{
	struct pager_state *s = srv->state;
	struct pager_handshake *h = &s->handshake;
	struct iovec iov = { .iov_base = &h->byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = h->control, .msg_controllen = sizeof(h->control)
	};
	ssize_t n;

	if (!h->pid)
		n = recv(s->criu_fd, &h->pid, sizeof(h->pid), MSG_DONTWAIT);
	else
		n = recvmsg(s->criu_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		hang_up(s);
		return 0;
	}
	if (!msg.msg_controllen || received_fd(h) < 0)
		return h->control[0] || (msg.msg_flags & MSG_CTRUNC) ? broken(s) : take_pid(s, n);
	return adopt(s);
}

int pager_connect_recover(struct pager_server *srv)
{
	struct pager_state *s = srv->state;
	struct pager_handshake *h = &s->handshake;

	if (!s->criu_fd)
		s->criu_fd = find_accepted(s);
	if (received_fd(h) >= 0)
		return adopt(s);
	if (h->pid == RESTORE_FINISHED || h->pid < 0)
		return take_pid(s, sizeof(h->pid));
	return 0;
}
