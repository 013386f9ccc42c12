/*
 * See net-rig.h. One thread.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/process.h"
#include "base/uuid.h"
#include "net-rig.h"

struct net_rig net_rig;

void net_rig_enter(int ns)
{
	assert_int_equal(setns(ns, CLONE_NEWNET), 0);
}

void net_rig_link_up(struct nl_sock *s, const char *name)
{
	struct rtnl_link *link = NULL, *change = rtnl_link_alloc();

	assert_int_equal(rtnl_link_get_kernel(s, 0, name, &link), 0);
	rtnl_link_set_flags(change, IFF_UP);
	assert_int_equal(rtnl_link_change(s, link, change, 0), 0);
	rtnl_link_put(link);
	rtnl_link_put(change);
}

struct nl_sock *net_rig_route_socket(void)
{
	struct nl_sock *s = nl_socket_alloc();

	assert_int_equal(nl_connect(s, NETLINK_ROUTE), 0);
	return s;
}

static int open_here(void)
{
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

int net_rig_setup(void **state)
{
	struct rtnl_link *pair = rtnl_link_veth_alloc(), *peer = rtnl_link_veth_get_peer(pair);
	struct nl_sock *s;

	(void)state;
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	net_rig.there = open_here();
	s = net_rig_route_socket();
	net_rig_link_up(s, "lo");
	nl_socket_free(s);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	net_rig.home = open_here();
	s = net_rig_route_socket();
	rtnl_link_set_name(pair, "phaul0");
	rtnl_link_set_name(peer, "phaul1");
	rtnl_link_set_ns_fd(peer, net_rig.there);
	assert_int_equal(rtnl_link_add(s, pair, NLM_F_CREATE | NLM_F_EXCL), 0);
	rtnl_link_put(peer);
	rtnl_link_veth_release(pair);
	net_rig_link_up(s, "lo");
	net_rig_link_up(s, "phaul0");
	nl_socket_free(s);
	assert_int_equal(net_address_parse("10.99.0.1/24@phaul0", &net_rig.here4, NULL), 0);
	assert_int_equal(net_address_parse("fd99::1/64@phaul0", &net_rig.here6, NULL), 0);
	assert_int_equal(net_address_parse("10.99.0.2/24@phaul1", &net_rig.there4, NULL), 0);
	assert_int_equal(net_address_parse("fd99::2/64@phaul1", &net_rig.there6, NULL), 0);
	net_rig_enter(net_rig.there);
	s = net_rig_route_socket();
	net_rig_link_up(s, "phaul1");
	nl_socket_free(s);
	assert_int_equal(net_address_add(&net_rig.there4, NULL), 0);
	assert_int_equal(net_address_add(&net_rig.there6, NULL), 0);
	net_rig_enter(net_rig.home);
	return 0;
}

socklen_t net_rig_socket_address(const struct net_address *a, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	ret->ss_family = (sa_family_t)a->family;
	if (a->family == AF_INET) {
		v4->sin_port = htons(RIG_PORT);
		memcpy(&v4->sin_addr, a->bytes, 4);
		return sizeof(*v4);
	}
	v6->sin6_port = htons(RIG_PORT);
	memcpy(&v6->sin6_addr, a->bytes, 16);
	return sizeof(*v6);
}

int net_rig_knock(const struct net_address *a, int type, int wait_ms)
{
	struct sockaddr_storage to;
	socklen_t length = net_rig_socket_address(a, &to), size = sizeof(int);
	_cleanup_close_ int fd = -1;
	struct pollfd p;
	int error = 0;

	net_rig_enter(net_rig.there);
	fd = socket(a->family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	net_rig_enter(net_rig.home);
	if (connect(fd, (struct sockaddr *)&to, length) < 0 && errno != EINPROGRESS)
		return errno;
	if (type == SOCK_DGRAM)
		assert_int_equal(send(fd, "x", 1, 0), 1);
	p = (struct pollfd){ .fd = fd, .events = type == SOCK_STREAM ? POLLOUT : POLLIN };
	if (poll(&p, 1, wait_ms) == 0)
		return 0;
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), 0);
	return error;
}

bool net_rig_table_exists(const char *family, const char *name)
{
	const char *const argv[] = { "nft", "list", "table", family, name, NULL };

	return process_run(argv, NULL, deadline_in_ms(RIG_ANSWER_MS), NULL) == 0;
}

const char *net_rig_id(void)
{
	static char id[UUID_TEXT_SIZE];
	struct uuid uuid;

	assert_int_equal(uuid_new(&uuid), 0);
	uuid_format(&uuid, id);
	return id;
}
