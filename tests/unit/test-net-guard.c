/*
 * Unit tests of net/guard: a bridge at home, the neighbour "there" behind one of its ports (net-rig.h), and a guest that gets a port later.
 * Needs root.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/process.h"
#include "net-rig.h"
#include "net/guard.h"
#include "net/leftovers.h"
#include "net/names.h"

#define PROTOCOL 0x88b5 /* for experiments: IEEE 802 */
#define FRAMES 100
#define WAIT_MS 2000
#define PORT_MS 30000
#define GUEST_MAC "02:77:00:00:01:00"

static const uint8_t guest_mac[6] = { 0x02, 0x77, 0, 0, 1, 0 };
static const uint8_t all[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
static const struct net_neighbour neighbours[] = {
	{ .mac = { 0x02, 0x77, 0, 0, 1, 0 }, .family = AF_INET, .bytes = { 10, 99, 0, 9 } },
	{ .mac = { 0x02, 0x77, 0, 0, 1, 0 }, .family = AF_INET6, .bytes = { 0xfd, 0x99, [15] = 9 } },
};

static struct net_place guest;

struct frame {
	struct ether_header head;
	uint8_t text[46];
} __attribute__((packed));

static void ip(const char *words, ...) __attribute__((format(printf, 1, 2)));

static void ip(const char *words, ...)
{
	const char *argv[24] = { "ip" };
	char text[256], line[256], *save = NULL;
	struct error err = { 0 };
	size_t n = 1;
	va_list ap;

	va_start(ap, words);
	vsnprintf(line, sizeof(line), words, ap);
	va_end(ap);
	memcpy(text, line, sizeof(text));
	for (char *word = strtok_r(text, " ", &save); word && n < 23; word = strtok_r(NULL, " ", &save))
		argv[n++] = word;
	if (process_run(argv, NULL, deadline_in_ms(10000), &err))
		fail_msg("ip %s: %s", line, err.text);
}

/* A port forwards frames once the kernel has seen that its link is up: some work of its own, done a while after the command. */
static void wait_for_port(const char *device)
{
	const char *argv[] = { "ip", "-details", "link", "show", "dev", device, NULL };
	uint64_t deadline = deadline_in_ms(PORT_MS);
	bool forwards = false;

	while (!forwards) {
		_cleanup_buffer_ struct buffer text = { 0 };

		assert_true(clock_now_ns() < deadline);
		assert_int_equal(process_run(argv, &text, deadline, NULL), 0);
		forwards = memmem(text.data, text.length, "state forwarding", strlen("state forwarding"));
	}
}

static int setup(void **state)
{
	int r = net_rig_setup(state);

	ip("link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0");
	ip("link set br0 up");
	ip("link set phaul0 master br0");
	wait_for_port("phaul0");
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	guest.netns_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	net_rig_enter(net_rig.home);
	return r;
}

/* The guest's cable, as an engine lays it. */
static void guest_arrives(void)
{
	ip("link add guest0 type veth peer name eth0 netns /proc/%d/fd/%d", getpid(), guest.netns_fd);
	net_rig_enter(guest.netns_fd);
	ip("link set eth0 address " GUEST_MAC " up");
	net_rig_enter(net_rig.home);
	ip("link set guest0 master br0 up");
	wait_for_port("guest0");
}

/* After every test, so that one that failed leaves the next a clean bridge. */
static int guest_leaves(void **state)
{
	(void)state;
	net_rig_enter(net_rig.home);
	if (if_nametoindex("guest0"))
		ip("link delete guest0");
	return 0;
}

/* A socket for frames of that kind on the device, in that namespace. */
static int open_socket(int ns, const char *device, uint16_t protocol)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(protocol) };
	int fd;

	net_rig_enter(ns);
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	address.sll_ifindex = (int)if_nametoindex(device);
	assert_true(fd >= 0 && address.sll_ifindex);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	net_rig_enter(net_rig.home);
	return fd;
}

static void send_frame(int fd, const uint8_t to[6], const uint8_t from[6], unsigned int number)
{
	struct frame f = { .head.ether_type = htons(PROTOCOL) };

	memcpy(f.head.ether_dhost, to, sizeof(f.head.ether_dhost));
	memcpy(f.head.ether_shost, from, sizeof(f.head.ether_shost));
	snprintf((char *)f.text, sizeof(f.text), "%u", number);
	assert_int_equal(send(fd, &f, sizeof(f), 0), sizeof(f));
}

/* The number of the next frame that comes in, or -1 for none. */
static int next_frame(int fd, int wait_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct sockaddr_ll from = { 0 };
	socklen_t size = sizeof(from);
	struct frame f = { 0 };
	unsigned int number = 0;

	do {
		if (poll(&p, 1, wait_ms) < 1)
			return -1;
		assert_true(recvfrom(fd, &f, sizeof(f), 0, (struct sockaddr *)&from, &size) > 0);
	} while (from.sll_pkttype == PACKET_OUTGOING);
	assert_int_equal(sscanf((char *)f.text, "%u", &number), 1);
	return (int)number;
}

static struct net_guard *install(const char *id)
{
	struct net_guard *g = NULL;
	struct error err = { 0 };

	if (net_guard_install(id, neighbours, 2, &g, &err) < 0)
		fail_msg("%s", err.text);
	return g;
}

static bool table_exists(const char *id)
{
	char name[NET_TABLE_NAME_MAX];

	assert_int_equal(net_table_name(NET_HOLD_PREFIX, id, name, NULL), 0);
	return net_rig_table_exists("bridge", name);
}

static void test_silent(void **state)
{
	const char *id = net_rig_id();
	struct net_hold_counts counts = { 0 };
	struct net_guard *g = install(id);
	int outside, inside;

	(void)state;
	outside = open_socket(net_rig.there, "phaul1", PROTOCOL);
	/* What runs elsewhere is heard. */
	guest_arrives();
	inside = open_socket(guest.netns_fd, "eth0", PROTOCOL);
	send_frame(outside, all, guest_mac, 1);
	assert_int_equal(next_frame(inside, WAIT_MS), 1);
	send_frame(inside, all, guest_mac, 2);
	assert_int_equal(next_frame(outside, RIG_SILENCE_MS), -1);
	/* Under another's address it may speak: it is not the one that is meant. */
	send_frame(inside, all, (const uint8_t[]){ 2, 2, 2, 2, 2, 2 }, 3);
	assert_int_equal(next_frame(outside, WAIT_MS), 3);
	assert_int_equal(net_guard_lift(g, NULL, &counts, NULL), 0);
	send_frame(inside, all, guest_mac, 4);
	assert_int_equal(next_frame(outside, WAIT_MS), 4);
	assert_int_equal(net_guard_silence(g, NULL), 0);
	send_frame(inside, all, guest_mac, 5);
	assert_int_equal(next_frame(outside, RIG_SILENCE_MS), -1);
	assert_int_equal(net_guard_lift(g, NULL, &counts, NULL), 0);
	net_guard_free(g);
	assert_false(table_exists(id));
	assert_int_equal(counts.packets, 0);
	close(outside);
	close(inside);
}

static void test_hold(void **state)
{
	const char *id = net_rig_id();
	struct net_hold_counts counts = { 0 };
	struct net_guard *g = install(id);
	int outside, inside, home;

	(void)state;
	outside = open_socket(net_rig.there, "phaul1", PROTOCOL);
	home = open_socket(net_rig.home, "br0", PROTOCOL);
	assert_false(net_guard_holds(g));
	assert_int_equal(net_guard_get_ready(g, NULL), 0);
	assert_true(net_guard_holds(g));
	send_frame(outside, guest_mac, all, 1000); /* too early */
	assert_int_equal(net_guard_hold(g, NULL), 0);
	assert_int_equal(net_guard_hold(g, NULL), 0);
	for (unsigned int i = 0; i < FRAMES; i++)
		send_frame(outside, guest_mac, (const uint8_t[]){ 2, 2, 2, 2, 2, 2 }, i);
	send_frame(home, guest_mac, (const uint8_t[]){ 2, 2, 2, 2, 2, 2 }, FRAMES); /* of this host */
	send_frame(outside, (const uint8_t[]){ 2, 9, 9, 9, 9, 9 }, all, 2000);	    /* for another */
	guest_arrives();
	inside = open_socket(guest.netns_fd, "eth0", PROTOCOL);
	assert_int_equal(next_frame(inside, RIG_SILENCE_MS), -1);
	assert_int_equal(net_guard_lift(g, &guest, &counts, NULL), 0);
	for (int i = 0; i <= FRAMES; i++)
		assert_int_equal(next_frame(inside, WAIT_MS), i);
	assert_int_equal(counts.packets, FRAMES + 1);
	assert_true(counts.bytes >= FRAMES * sizeof(struct frame));
	send_frame(outside, guest_mac, (const uint8_t[]){ 2, 2, 2, 2, 2, 2 }, 7);
	assert_int_equal(next_frame(inside, WAIT_MS), 7);
	assert_int_equal(net_guard_lift(g, &guest, &counts, NULL), 0);
	assert_int_equal(next_frame(inside, RIG_SILENCE_MS), -1);
	net_guard_free(g);
	assert_false(table_exists(id));
	close(outside);
	close(inside);
	close(home);
}

static void test_aborted(void **state)
{
	const char *id = net_rig_id();
	struct net_hold_counts counts = { 0 };
	struct net_guard *g = install(id);
	int outside = open_socket(net_rig.there, "phaul1", PROTOCOL), inside;

	(void)state;
	assert_int_equal(net_guard_get_ready(g, NULL), 0);
	assert_int_equal(net_guard_hold(g, NULL), 0);
	send_frame(outside, guest_mac, (const uint8_t[]){ 2, 2, 2, 2, 2, 2 }, 1);
	assert_int_equal(net_guard_silence(g, NULL), 0);
	guest_arrives();
	inside = open_socket(guest.netns_fd, "eth0", PROTOCOL);
	assert_int_equal(net_guard_lift(g, &guest, &counts, NULL), 0);
	assert_int_equal(next_frame(inside, RIG_SILENCE_MS), -1);
	assert_int_equal(counts.packets, 0);
	net_guard_free(g);
	close(outside);
	close(inside);
}

/* As after a crash: the table stays, drops, is found and removed. */
static void test_left_behind(void **state)
{
	_cleanup_buffer_ struct buffer lines = { 0 };
	const char *id = net_rig_id();
	struct net_guard *g = install(id), *again;
	char line[64];

	(void)state;
	assert_int_equal(net_guard_get_ready(g, NULL), 0);
	assert_int_equal(net_guard_hold(g, NULL), 0);
	net_guard_free(g);
	assert_true(table_exists(id));
	snprintf(line, sizeof(line), "hold %s\n", id);
	assert_int_equal(net_leftovers_list(NULL, &lines, NULL), 0);
	assert_non_null(memmem(lines.data, lines.length, line, strlen(line)));
	again = install(id); /* in its place */
	net_guard_free(again);
	assert_true(table_exists(id));
	assert_int_equal(net_hold_remove(id, NULL, NULL), 0);
	assert_false(table_exists(id));
	assert_int_equal(net_hold_remove(id, NULL, NULL), 0);
	net_guard_free(NULL);
}

static void test_announce(void **state)
{
	int arp = open_socket(net_rig.there, "phaul1", ETHERTYPE_ARP);
	int ipv6 = open_socket(net_rig.there, "phaul1", ETHERTYPE_IPV6);
	struct pollfd p[2] = { { .fd = arp, .events = POLLIN }, { .fd = ipv6, .events = POLLIN } };
	uint8_t frame[256];
	struct error err = { 0 };

	(void)state;
	assert_int_equal(net_neighbours_announce("br0", neighbours, 2, &err), 0);
	assert_int_equal(poll(&p[0], 1, WAIT_MS), 1);
	assert_int_equal(recv(arp, frame, sizeof(frame), 0), 42);
	assert_memory_equal(frame + 6, guest_mac, 6);
	assert_memory_equal(frame + 28, neighbours[0].bytes, 4);
	assert_memory_equal(frame + 38, neighbours[0].bytes, 4);
	do {
		assert_int_equal(poll(&p[1], 1, WAIT_MS), 1);
		assert_true(recv(ipv6, frame, sizeof(frame), 0) > 0);
	} while (memcmp(frame + 6, guest_mac, 6) != 0);
	assert_int_equal(frame[54], 136); /* a neighbour advertisement: RFC 4861 */
	assert_memory_equal(frame + 62, neighbours[1].bytes, 16);
	/* The checksum over the pseudo header comes out as all ones. */
	uint32_t sum = 58 + 32;
	for (int i = 22; i < 86; i += 2)
		sum += (uint32_t)frame[i] << 8 | frame[i + 1];
	assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff);
	assert_int_equal(net_neighbours_announce("none0", neighbours, 2, &err), -ENODEV);
	assert_non_null(strstr(err.text, "none0"));
	close(arp);
	close(ipv6);
}

static void test_neighbours(void **state)
{
	struct net_neighbour found[NET_NEIGHBOURS_MAX];
	size_t n = 0;
	bool four = false;

	(void)state;
	guest_arrives();
	assert_int_equal(net_place_neighbours(&guest, found, &n, NULL), 0);
	assert_true(n >= 1);
	for (size_t i = 0; i < n; i++)
		assert_memory_equal(found[i].mac, guest_mac, 6);
	net_rig_enter(guest.netns_fd);
	ip("address add 10.99.0.9/24 dev eth0");
	net_rig_enter(net_rig.home);
	assert_int_equal(net_place_neighbours(&guest, found, &n, NULL), 0);
	for (size_t i = 0; i < n; i++)
		four |= found[i].family == AF_INET && !memcmp(found[i].bytes, neighbours[0].bytes, 4);
	assert_true(four);
}

static void test_wrong(void **state)
{
	struct net_neighbour many[NET_NEIGHBOURS_MAX + 1] = { 0 };
	struct net_guard *g = NULL;
	struct error err;

	(void)state;
	assert_int_equal(net_guard_install("no id", neighbours, 2, &g, &err), -EINVAL);
	assert_int_equal(net_guard_install(net_rig_id(), many, NET_NEIGHBOURS_MAX + 1, &g, &err), -EINVAL);
	assert_null(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_silent, guest_leaves),
		cmocka_unit_test_teardown(test_hold, guest_leaves),
		cmocka_unit_test_teardown(test_aborted, guest_leaves),
		cmocka_unit_test(test_left_behind),
		cmocka_unit_test(test_announce),
		cmocka_unit_test_teardown(test_neighbours, guest_leaves),
		cmocka_unit_test(test_wrong),
	};

	return cmocka_run_group_tests_name("net-guard", tests, setup, NULL);
}
