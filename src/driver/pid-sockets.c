/*
 * The other ends of pipes and sockets: see pid-sockets.h. No state; any thread.
 *
 * Nobody outside is searched for, since not all of the outside is visible from inside a pid namespace: a copy of the
 * descriptor (pidfd_getfd(2)) is asked whether its other end is still open, and NETLINK_SOCK_DIAG (sock_diag(7)) names the
 * peer of each unix socket. Source of what CRIU can dump: sk-inet.c, sk-unix.c, sk-tcp.c, sockets.c.
 */
#include "driver/pid-sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>

#include "base/array.h"
#include "base/fd.h"

#define DIAG_BUFFER 32768

struct unix_socket {
	uint32_t inode, peer;
	uint8_t type;
	char path[109]; /* sun_path, terminated */
};

struct unix_sockets {
	struct unix_socket *list;
	size_t n, n_allocated;
};

int ends_add(struct ends *e, const struct end *one)
{
	if (array_grow(&e->list, e->n, &e->n_allocated, 64, sizeof(*e->list)) < 0)
		return -ENOMEM;
	e->list[e->n++] = *one;
	return 0;
}

void ends_free(struct ends *e)
{
	free(e->list);
	*e = (struct ends){ 0 };
}

static int compare_ends(const void *a, const void *b)
{
	const struct end *x = a, *y = b;

	return x->inode < y->inode ? -1 : x->inode > y->inode;
}

/* One entry per inode, with the sides of all. */
static void ends_merge(struct ends *e)
{
	size_t kept = 0;

	if (e->n)
		qsort(e->list, e->n, sizeof(*e->list), compare_ends);
	for (size_t i = 0; i < e->n; i++) {
		if (kept && e->list[kept - 1].inode == e->list[i].inode)
			e->list[kept - 1].sides |= e->list[i].sides;
		else
			e->list[kept++] = e->list[i];
	}
	e->n = kept;
}

static const struct end *ends_find(const struct ends *e, uint64_t inode)
{
	struct end key = { .inode = inode };

	return e->n ? bsearch(&key, e->list, e->n, sizeof(*e->list), compare_ends) : NULL;
}

/* The tree holds one side only: has anybody the other? poll(2): POLLHUP no writer, POLLERR no reader. */
static int other_side_open(const struct end *e)
{
	_cleanup_close_ int fd = scan_take_fd(e->pid, e->fd);
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };

	if (fd < 0)
		return fd == -ESRCH || fd == -EBADF ? 0 : fd;
	if (poll(&p, 1, 0) < 0)
		return -errno;
	return !(p.revents & (POLLHUP | POLLERR));
}

int pid_check_pipes(struct ends *pipes, struct obstacles *ret)
{
	ends_merge(pipes);
	for (size_t i = 0; i < pipes->n; i++) {
		const struct end *e = &pipes->list[i];
		int r = e->sides == 3 ? 0 : other_side_open(e);

		if (r > 0)
			r = obstacles_add(
				ret, OBSTACLE_REFUSES, false,
				"redirect it to a file, or move the tree that holds both processes",
				"process %d (%s) %s a pipe (descriptor %d) whose other end is outside of the tree",
				e->pid, e->name, e->sides == 1 ? "reads from" : "writes to", e->fd);
		if (r < 0)
			return r;
	}
	return 0;
}

static int get_option(int fd, int level, int option)
{
	int value = -1;
	socklen_t length = sizeof(value);

	return getsockopt(fd, level, option, &value, &length) < 0 ? -1 : value;
}

static int check_tcp(int fd, const struct end *e, struct obstacles *o)
{
	char ulp[16] = "";
	socklen_t length = sizeof(ulp) - 1;

	if (!getsockopt(fd, IPPROTO_TCP, TCP_ULP, ulp, &length) && ulp[0])
		return obstacles_add(
			o, OBSTACLE_REFUSES, false, "switch kernel TLS off in the program's configuration",
			"process %d (%s) has a TCP connection handled by the kernel's %s, which CRIU cannot dump",
			e->pid, e->name, ulp);
	return 0;
}

static int check_family(int fd, const struct end *e, struct obstacles *o, bool *ret_unix)
{
	int family = get_option(fd, SOL_SOCKET, SO_DOMAIN), type = get_option(fd, SOL_SOCKET, SO_TYPE);
	int protocol = get_option(fd, SOL_SOCKET, SO_PROTOCOL);

	switch (family) {
	case AF_UNIX:
		*ret_unix = true;
		return 0;
	case AF_PACKET:
	case AF_NETLINK:
		return 0;
	case AF_INET:
	case AF_INET6:
		if (protocol == IPPROTO_TCP)
			return check_tcp(fd, e, o);
		if (type == SOCK_RAW || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE)
			return 0;
		if (type == SOCK_DGRAM && (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6))
			return 0;
		break;
	default:
		break;
	}
	return obstacles_add(
		o, OBSTACLE_REFUSES, false, "have the program close it",
		"process %d (%s) has a socket (descriptor %d) that CRIU cannot dump: address family %d, protocol %d",
		e->pid, e->name, e->fd, family, protocol);
}

static int add_unix(struct unix_sockets *u, const struct nlmsghdr *h)
{
	const struct unix_diag_msg *m = NLMSG_DATA(h);
	int length = (int)(h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)));
	struct unix_socket one = { .inode = m->udiag_ino, .type = m->udiag_type };

	for (struct rtattr *a = (struct rtattr *)(m + 1); RTA_OK(a, length); a = RTA_NEXT(a, length)) {
		size_t n = RTA_PAYLOAD(a);
		const char *name = RTA_DATA(a);

		if (a->rta_type == UNIX_DIAG_PEER && n >= sizeof(one.peer))
			memcpy(&one.peer, RTA_DATA(a), sizeof(one.peer));
		if (a->rta_type == UNIX_DIAG_NAME && n && n < sizeof(one.path)) {
			memcpy(one.path, name, n);
			if (!one.path[0])
				one.path[0] = '@'; /* the abstract name space: unix(7) */
		}
	}
	if (array_grow(&u->list, u->n, &u->n_allocated, 256, sizeof(*u->list)) < 0)
		return -ENOMEM;
	u->list[u->n++] = one;
	return 0;
}

static int dump_unix(int fd, struct unix_sockets *ret)
{
	struct {
		struct nlmsghdr h;
		struct unix_diag_req r;
	} request = {
		.h = { .nlmsg_len = sizeof(request),
		       .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.r = { .sdiag_family = AF_UNIX, .udiag_states = ~0U, .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER },
	};
	_cleanup_free_ uint8_t *answer = malloc(DIAG_BUFFER);
	int r = 0;

	if (!answer)
		return -ENOMEM;
	if (send(fd, &request, sizeof(request), 0) < 0)
		return -errno;
	for (;;) {
		ssize_t n = recv(fd, answer, DIAG_BUFFER, 0);
		unsigned int left;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPROTO;
		left = (unsigned int)n;
		for (struct nlmsghdr *h = (struct nlmsghdr *)answer; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type == NLMSG_DONE)
				return r;
			if (h->nlmsg_type == NLMSG_ERROR)
				return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
			if (h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct unix_diag_msg)) && !r)
				r = add_unix(ret, h);
		}
	}
}

/* A diagnosis socket in the network namespace of pid: setns(2) moves this thread only, there and back. */
static int diag_socket(pid_t pid)
{
	_cleanup_close_ int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), there = -1;
	char path[64];
	int fd = -1, r = 0;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	there = open(path, O_RDONLY | O_CLOEXEC);
	if (home < 0 || there < 0)
		return -errno;
	if (tree_namespace(pid, "net") != tree_namespace(getpid(), "net") && setns(there, CLONE_NEWNET) < 0)
		return -errno;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0)
		r = -errno;
	if (setns(home, CLONE_NEWNET) < 0 && !r)
		r = -errno;
	if (r < 0)
		close_fd(&fd);
	return r < 0 ? r : fd;
}

static int check_unix(const struct unix_sockets *u, const struct ends *sockets, struct obstacles *o)
{
	for (size_t i = 0; i < u->n; i++) {
		const struct unix_socket *s = &u->list[i];
		const struct end *e = ends_find(sockets, s->inode);
		const char *peer = "";
		int r;

		if (!e || !s->peer || ends_find(sockets, s->peer))
			continue;
		for (size_t j = 0; j < u->n; j++)
			if (u->list[j].inode == s->peer)
				peer = u->list[j].path;
		r = obstacles_add(o, OBSTACLE_REFUSES, false,
				  "have the program close that connection, or move a tree that holds both ends",
				  "process %d (%s) has a unix socket (descriptor %d) connected to a process outside of "
				  "the tree%s%s",
				  e->pid, e->name, e->fd, peer[0] ? ", at " : "", peer);
		if (r < 0)
			return r;
	}
	return 0;
}

int pid_check_sockets(const struct tree *t, struct ends *sockets, struct obstacles *ret, struct error *err)
{
	struct unix_sockets u = { 0 };
	bool any_unix = false;
	int r = 0;

	ends_merge(sockets);
	for (size_t i = 0; i < sockets->n && !r; i++) {
		_cleanup_close_ int fd = scan_take_fd(sockets->list[i].pid, sockets->list[i].fd);

		if (fd >= 0)
			r = check_family(fd, &sockets->list[i], ret, &any_unix);
		else if (fd != -ESRCH && fd != -EBADF)
			r = fd;
	}
	if (!r && any_unix) {
		_cleanup_close_ int fd = diag_socket(t->processes[0].pid);

		r = fd < 0 ? fd : dump_unix(fd, &u);
		if (!r)
			r = check_unix(&u, sockets, ret);
	}
	free(u.list);
	if (r < 0)
		return error_errno(err, -r, "cannot look at the sockets of the tree of process %d",
				   t->processes[0].pid);
	return 0;
}
