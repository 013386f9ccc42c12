/*
 * libphaul-criu.so, sendmsg() of the question for all tracked connections: not asked where there are none.
 *
 * CRIU asks the kernel for the tracked connections of every network namespace that it dumps, in the freeze. There is one table for all
 * namespaces, with a bucket for every 16 KiB of the machine's memory or so (262144 from 4 GiB on), and the kernel locks and looks at each: 15 ms.
 * Most containers have no entry in it, and the namespace's own counter says so. Then the question is changed for the one for
 * unconfirmed ones, which is answered in the same form from a short list, and as empty.
 *
 * Only in CRIU versions whose use of the answer was read (protocol.h), in a dump. Threads: CRIU's main one. Source: criu/net.c (dump_nf_ct), criu/libnetlink.c
 * (do_rtnl_req), linux/netfilter/nfnetlink_conntrack.h.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "library.h"

#define COUNTER "/proc/sys/net/netfilter/nf_conntrack_count" /* of the namespace of whoever opens it */

struct question {
	struct nlmsghdr head;
	struct nfgenmsg family;
};

/* CRIU's, as all versions that we know ask it. */
static bool is_question(int fd, const struct msghdr *m, struct question *ret)
{
	int domain = 0, protocol = 0;
	socklen_t length = sizeof(int), too = sizeof(int);

	if (!m || m->msg_iovlen != 1 || m->msg_iov[0].iov_len != sizeof(*ret))
		return false;
	memcpy(ret, m->msg_iov[0].iov_base, sizeof(*ret));
	return ret->head.nlmsg_len == sizeof(*ret) &&
	       ret->head.nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET) &&
	       ret->head.nlmsg_flags == (NLM_F_DUMP | NLM_F_REQUEST) &&
	       !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) && domain == AF_NETLINK &&
	       !getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &too) && protocol == NETLINK_NETFILTER;
}

static bool none_tracked(void)
{
	int fd = open(COUNTER, O_RDONLY | O_CLOEXEC);
	char text[16];
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text));
	close(fd);
	return n == 2 && text[0] == '0' && text[1] == '\n';
}

EXPORTED ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	static ssize_t (*real)(int, const struct msghdr *, int);
	static bool said;
	int saved = errno;
	struct question question;
	struct iovec iov = { &question, sizeof(question) };
	struct msghdr changed;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "sendmsg");
	if (!library.hide || !is_question(fd, m, &question) || !none_tracked()) {
		errno = saved;
		return real(fd, m, flags);
	}
	question.head.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_UNCONFIRMED;
	changed = *m;
	changed.msg_iov = &iov;
	library_say(&said, "no walk over the table of tracked connections");
	errno = saved;
	return real(fd, &changed, flags);
}
