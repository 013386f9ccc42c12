/*
 * Unit tests of net/: two network namespaces of the test's own, joined by a veth pair: "here", where the functions under test
 * run, and "there", a neighbour. Needs root. Nothing outlives the test: namespaces go with their last descriptor.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/process.h"
#include "base/uuid.h"
#include "net/net.h"

#define SILENCE_MS 150 /* an answer over a veth takes well under a millisecond */
#define ANSWER_MS 5000
#define PORT 4711

static int home, there;
static struct net_address here4, here6, there4, there6;

static void enter(int ns)
{
	assert_int_equal(setns(ns, CLONE_NEWNET), 0);
}

static void link_up(struct nl_sock *s, const char *name)
{
	struct rtnl_link *link = NULL, *change = rtnl_link_alloc();

	assert_int_equal(rtnl_link_get_kernel(s, 0, name, &link), 0);
	rtnl_link_set_flags(change, IFF_UP);
	assert_int_equal(rtnl_link_change(s, link, change, 0), 0);
	rtnl_link_put(link);
	rtnl_link_put(change);
}

static struct nl_sock *route_socket(void)
{
	struct nl_sock *s = nl_socket_alloc();

	assert_int_equal(nl_connect(s, NETLINK_ROUTE), 0);
	return s;
}

static int open_here(void)
{
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

static int setup(void **state)
{
	struct rtnl_link *pair = rtnl_link_veth_alloc(), *peer = rtnl_link_veth_get_peer(pair);
	struct nl_sock *s;

	(void)state;
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	there = open_here();
	s = route_socket();
	link_up(s, "lo");
	nl_socket_free(s);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	home = open_here();
	s = route_socket();
	rtnl_link_set_name(pair, "phaul0");
	rtnl_link_set_name(peer, "phaul1");
	rtnl_link_set_ns_fd(peer, there);
	assert_int_equal(rtnl_link_add(s, pair, NLM_F_CREATE | NLM_F_EXCL), 0);
	rtnl_link_put(peer);
	rtnl_link_veth_release(pair);
	link_up(s, "lo");
	link_up(s, "phaul0");
	nl_socket_free(s);
	assert_int_equal(net_address_parse("10.99.0.1/24@phaul0", &here4, NULL), 0);
	assert_int_equal(net_address_parse("fd99::1/64@phaul0", &here6, NULL), 0);
	assert_int_equal(net_address_parse("10.99.0.2/24@phaul1", &there4, NULL), 0);
	assert_int_equal(net_address_parse("fd99::2/64@phaul1", &there6, NULL), 0);
	enter(there);
	s = route_socket();
	link_up(s, "phaul1");
	nl_socket_free(s);
	assert_int_equal(net_address_add(&there4, NULL), 0);
	assert_int_equal(net_address_add(&there6, NULL), 0);
	enter(home);
	return 0;
}

static void test_parse(void **state)
{
	static const char *const good[] = { "10.77.0.100/24@eth0", "fd77::100/64@eth0", "192.0.2.1/32@a-very-long.15",
					    "::1/128@lo" };
	static const char *const bad[] = { "",
					   "10.0.0.1",
					   "10.0.0.1/24",
					   "10.0.0.1@eth0",
					   "10.0.0.1/33@eth0",
					   "10.0.0.1/0@eth0",
					   "10.0.0/8@eth0",
					   "fd77::1/129@eth0",
					   "10.0.0.1/2x@eth0",
					   "10.0.0.1/24@",
					   "/24@eth0",
					   "10.0.0.1/ 24@eth0",
					   "10.0.0.1/-1@eth0",
					   "10.0.0.1/24@a/b",
					   "x/24@eth0",
					   "10.0.0.1/24@sixteencharacter" };
	char text[NET_ADDRESS_TEXT_MAX];
	struct net_address a;
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(net_address_parse(good[i], &a, &err), 0);
		net_address_format(&a, text);
		assert_string_equal(text, good[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(net_address_parse(bad[i], &a, &err), -EINVAL);
}

static void test_add_and_remove(void **state)
{
	struct net_address *both[] = { &here4, &here6 }, missing = here4;
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		assert_int_equal(net_address_present(both[i], &err), 0);
		for (int j = 0; j < 2; j++)
			assert_int_equal(net_address_add(both[i], &err), 0);
		assert_int_equal(net_address_present(both[i], &err), 1);
		for (int j = 0; j < 2; j++)
			assert_int_equal(net_address_remove(both[i], &err), 0);
		assert_int_equal(net_address_present(both[i], &err), 0);
	}
	snprintf(missing.device, sizeof(missing.device), "none");
	assert_int_equal(net_address_present(&missing, &err), -ENODEV);
	assert_int_equal(net_address_add(&missing, &err), -ENODEV);
	assert_non_null(strstr(err.text, "none"));
	assert_int_equal(net_address_remove(&missing, &err), 0);
	assert_int_equal(net_address_announce(&missing, &err), -ENODEV);
}

static socklen_t socket_address(const struct net_address *a, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	ret->ss_family = (sa_family_t)a->family;
	if (a->family == AF_INET) {
		v4->sin_port = htons(PORT);
		memcpy(&v4->sin_addr, a->bytes, 4);
		return sizeof(*v4);
	}
	v6->sin6_port = htons(PORT);
	memcpy(&v6->sin6_addr, a->bytes, 16);
	return sizeof(*v6);
}

/* What the neighbour gets for a TCP or UDP knock at a port where nobody listens: ECONNREFUSED, or 0 for silence. */
static int knock(const struct net_address *a, int type, int wait_ms)
{
	struct sockaddr_storage to;
	socklen_t length = socket_address(a, &to), size = sizeof(int);
	_cleanup_close_ int fd = -1;
	struct pollfd p;
	int error = 0;

	enter(there);
	fd = socket(a->family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	enter(home);
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

static void test_catch(void **state)
{
	struct net_address both[] = { here4, here6 };
	char id[UUID_TEXT_SIZE];
	struct uuid uuid;
	struct error err;

	(void)state;
	assert_int_equal(uuid_new(&uuid), 0);
	uuid_format(&uuid, id);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(net_address_add(&both[i], &err), 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(knock(&both[i], SOCK_STREAM, ANSWER_MS), ECONNREFUSED);
		assert_int_equal(knock(&both[i], SOCK_DGRAM, ANSWER_MS), ECONNREFUSED);
	}
	for (int again = 0; again < 2; again++)
		assert_int_equal(net_catch_install(id, both, 2, &err), 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(knock(&both[i], SOCK_STREAM, SILENCE_MS), 0);
		assert_int_equal(knock(&both[i], SOCK_DGRAM, SILENCE_MS), 0);
	}
	/* Installed anew with one address: the other is free again, in the same step. */
	assert_int_equal(net_catch_install(id, &both[0], 1, &err), 0);
	assert_int_equal(knock(&both[0], SOCK_STREAM, SILENCE_MS), 0);
	assert_int_equal(knock(&both[1], SOCK_STREAM, ANSWER_MS), ECONNREFUSED);
	for (int again = 0; again < 2; again++)
		assert_int_equal(net_catch_remove(id, &err), 0);
	assert_int_equal(knock(&both[0], SOCK_STREAM, ANSWER_MS), ECONNREFUSED);
	assert_int_equal(net_catch_install("not-an-id", both, 2, &err), -EINVAL);
	assert_int_equal(net_catch_remove("", &err), -EINVAL);
	assert_int_equal(net_catch_install(id, both, 0, &err), -EINVAL);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(net_address_remove(&both[i], &err), 0);
}

static bool table_exists(const char *name)
{
	const char *const argv[] = { "nft", "list", "table", "inet", name, NULL };

	return process_run(argv, NULL, deadline_in_ms(ANSWER_MS), NULL) == 0;
}

static void test_criu_tables(void **state)
{
	/* As CRIU 4.2.1 cuts it, and whole. */
	static const char *const names[] = { "CRIU-4711", "CRIU-01234567-89ab-4cde-8f",
					     "CRIU-01234567-89ab-4cde-8f01-23456789abcd" };
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *const argv[] = { "nft", "add", "table", "inet", names[i], NULL };

		assert_int_equal(process_run(argv, NULL, deadline_in_ms(ANSWER_MS), &err), 0);
		assert_true(table_exists(names[i]));
	}
	assert_int_equal(net_criu_table_remove("CRIU-4712", &err), 0);
	assert_true(table_exists(names[0]));
	for (int again = 0; again < 2; again++) {
		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			assert_int_equal(net_criu_table_remove(names[i], &err), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_false(table_exists(names[i]));
	assert_int_equal(net_criu_table_remove("phaul-4711", &err), -EINVAL);
	assert_int_equal(net_criu_table_remove("CRIU-x; flush ruleset", &err), -EINVAL);
	assert_int_equal(net_criu_table_remove("", &err), -EINVAL);
}

/* Packets of that protocol that say "address is here", as the neighbour sees them, in a moment of listening. */
static int count_announcements(const struct net_address *a, int fd)
{
	uint64_t deadline = deadline_in_ms(ANSWER_MS);
	int wanted = a->family == AF_INET ? 6 : 3, n = 0;

	while (n < wanted && fd_wait(fd, POLLIN, deadline) > 0) {
		uint8_t frame[256];
		ssize_t size = recv(fd, frame, sizeof(frame), 0);
		const struct ip6_hdr *ip = (const struct ip6_hdr *)frame;
		const struct nd_neighbor_advert *na = (const struct nd_neighbor_advert *)(frame + sizeof(*ip));

		if (a->family == AF_INET) {
			/* RFC 826: operation at 6, sender's address at 14, target's at 24. */
			bool mine = size >= 28 && !memcmp(frame + 14, a->bytes, 4) && !memcmp(frame + 24, a->bytes, 4);

			n += mine && frame[7] == 1 + n % 2;
			continue;
		}
		if ((size_t)size < sizeof(*ip) + sizeof(*na) + 8 || ip->ip6_nxt != IPPROTO_ICMPV6 ||
		    ip->ip6_hlim != 255)
			continue;
		n += na->nd_na_type == ND_NEIGHBOR_ADVERT && (na->nd_na_flags_reserved & ND_NA_FLAG_OVERRIDE) &&
		     !memcmp(&na->nd_na_target, a->bytes, 16);
	}
	return n;
}

static void test_announce(void **state)
{
	struct net_address *both[] = { &here4, &here6 }, loopback;
	struct error err = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		_cleanup_close_ int fd = -1;

		enter(there);
		fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(i ? ETH_P_IPV6 : ETH_P_ARP));
		enter(home);
		assert_true(fd >= 0);
		assert_int_equal(net_address_add(both[i], &err), 0);
		if (net_address_announce(both[i], &err) < 0)
			fail_msg("%s", err.text);
		assert_int_equal(count_announcements(both[i], fd), i ? 3 : 6);
		assert_int_equal(net_address_remove(both[i], &err), 0);
	}
	/* Not ours: nothing may be said in its name. */
	assert_true(net_address_announce(&here6, &err) < 0);
	assert_int_equal(net_address_parse("127.0.0.9/8@lo", &loopback, &err), 0);
	assert_int_equal(net_address_announce(&loopback, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),	    cmocka_unit_test(test_add_and_remove), cmocka_unit_test(test_catch),
		cmocka_unit_test(test_criu_tables), cmocka_unit_test(test_announce),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
