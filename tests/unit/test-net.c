/*
 * Unit tests of net/, addresses: two network namespaces of the test's own (net-rig.h). Needs root.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <netpacket/packet.h>
#include <poll.h>
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
#include "net-rig.h"

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
	struct net_address *both[] = { &net_rig.here4, &net_rig.here6 }, missing = net_rig.here4;
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

static void test_criu_tables(void **state)
{
	/* As CRIU 4.2.1 cuts it, and whole. */
	static const char *const names[] = { "CRIU-4711", "CRIU-01234567-89ab-4cde-8f",
					     "CRIU-01234567-89ab-4cde-8f01-23456789abcd" };
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *const argv[] = { "nft", "add", "table", "inet", names[i], NULL };

		assert_int_equal(process_run(argv, NULL, deadline_in_ms(RIG_ANSWER_MS), &err), 0);
		assert_true(net_rig_table_exists("inet", names[i]));
	}
	assert_int_equal(net_criu_table_remove("CRIU-4712", NULL, &err), 0);
	assert_true(net_rig_table_exists("inet", names[0]));
	for (int again = 0; again < 2; again++) {
		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			assert_int_equal(net_criu_table_remove(names[i], NULL, &err), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_false(net_rig_table_exists("inet", names[i]));
	assert_int_equal(net_criu_table_remove("phaul-4711", NULL, &err), -EINVAL);
	assert_int_equal(net_criu_table_remove("CRIU-x; flush ruleset", NULL, &err), -EINVAL);
	assert_int_equal(net_criu_table_remove("", NULL, &err), -EINVAL);
}

/* Packets of that protocol that say "address is here", as the neighbour sees them, in a moment of listening. */
static int count_announcements(const struct net_address *a, int fd)
{
	uint64_t deadline = deadline_in_ms(RIG_ANSWER_MS);
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
	struct net_address *both[] = { &net_rig.here4, &net_rig.here6 }, loopback;
	struct error err = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		_cleanup_close_ int fd = -1;

		net_rig_enter(net_rig.there);
		fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(i ? ETH_P_IPV6 : ETH_P_ARP));
		net_rig_enter(net_rig.home);
		assert_true(fd >= 0);
		assert_int_equal(net_address_add(both[i], &err), 0);
		if (net_address_announce(both[i], &err) < 0)
			fail_msg("%s", err.text);
		assert_int_equal(count_announcements(both[i], fd), i ? 3 : 6);
		assert_int_equal(net_address_remove(both[i], &err), 0);
	}
	/* Not ours: nothing may be said in its name. */
	assert_int_equal(net_address_announce(&net_rig.here4, &err), -EADDRNOTAVAIL);
	assert_int_equal(net_address_announce(&net_rig.here6, &err), -EADDRNOTAVAIL);
	assert_int_equal(net_address_parse("127.0.0.9/8@lo", &loopback, &err), 0);
	assert_int_equal(net_address_announce(&loopback, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_add_and_remove),
		cmocka_unit_test(test_criu_tables),
		cmocka_unit_test(test_announce),
	};

	return cmocka_run_group_tests(tests, net_rig_setup, NULL);
}
