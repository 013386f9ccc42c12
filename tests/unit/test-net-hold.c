/*
 * Unit tests of net/hold: packets of a neighbour wait, and come in in their order; what happens without a listener, beyond the
 * bounds, and when another hold of the namespace goes. Needs root; two network namespaces of the test's own (net-rig.h).
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/uuid.h"
#include "net-rig.h"
#include "net/hold.h"
#include "net/queue.h"

#define MANY 200

static struct net_address both[2];

static int setup(void **state)
{
	int r = net_rig_setup(state);

	both[0] = net_rig.here4;
	both[1] = net_rig.here6;
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(net_address_add(&both[i], NULL), 0);
	return r;
}

/* A UDP socket in each of the two namespaces, there connected to home; the neighbours know each other. */
static void udp_pair(const struct net_address *a, int *ret_home, int *ret_there)
{
	struct sockaddr_storage to;
	socklen_t length = net_rig_socket_address(a, &to);
	char byte;

	*ret_home = socket(a->family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(*ret_home, (struct sockaddr *)&to, length), 0);
	net_rig_enter(net_rig.there);
	*ret_there = socket(a->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	net_rig_enter(net_rig.home);
	assert_int_equal(connect(*ret_there, (struct sockaddr *)&to, length), 0);
	assert_int_equal(send(*ret_there, "x", 1, 0), 1);
	assert_int_equal(fd_wait(*ret_home, POLLIN, deadline_in_ms(RIG_ANSWER_MS)), 1);
	assert_int_equal(recv(*ret_home, &byte, 1, 0), 1);
}

static void send_numbers(int fd, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++)
		assert_int_equal(send(fd, &i, sizeof(i), 0), sizeof(i));
}

/* Those numbers and no others, in that order. */
static void expect_numbers(int fd, uint32_t first, uint32_t n)
{
	uint32_t number;

	for (uint32_t i = first; i < first + n; i++) {
		assert_int_equal(fd_wait(fd, POLLIN, deadline_in_ms(RIG_ANSWER_MS)), 1);
		assert_int_equal(recv(fd, &number, sizeof(number), 0), sizeof(number));
		assert_int_equal(number, i);
	}
	assert_int_equal(recv(fd, &number, sizeof(number), 0), -1);
}

static void test_order(void **state)
{
	for (size_t i = 0; i < 2; i++) {
		_cleanup_net_hold_ struct net_hold *hold = NULL;
		_cleanup_close_ int home = -1, there = -1;
		struct net_hold_counts counts;
		struct error err = { 0 };
		uint64_t before;

		udp_pair(&both[i], &home, &there);
		if (net_hold_install(net_rig_id(), NULL, both, 2, &hold, &err) < 0)
			fail_msg("%s", err.text);
		assert_true(net_hold_queues(hold));
		send_numbers(there, 0, MANY);
		assert_int_equal(fd_wait(home, POLLIN, deadline_in_ms(RIG_SILENCE_MS)), 0);
		before = clock_now_ns();
		assert_int_equal(net_hold_release(hold, &counts, &err), 0);
		print_message("# %d packets let in within %.2f ms\n", MANY, (double)(clock_now_ns() - before) / 1e6);
		assert_int_equal(counts.packets, MANY);
		assert_true(counts.bytes >= MANY * 32);
		send_numbers(there, MANY, 1);
		expect_numbers(home, 0, MANY + 1);
		assert_int_equal(net_hold_release(hold, &counts, &err), 0);
		assert_int_equal(counts.packets, 0);
	}
	(void)state;
}

/* Two migrations to one host: the end of one, which takes a hook away, does not take the packets of the other. */
static void *release_soon(void *context)
{
	struct error err;

	poll(NULL, 0, 20);
	assert_int_equal(net_hold_release(context, NULL, &err), 0);
	return NULL;
}

static void test_two(void **state)
{
	_cleanup_net_hold_ struct net_hold *first = NULL, *second = NULL;
	_cleanup_close_ int home = -1, there = -1;
	struct error err;
	pthread_t thread;

	(void)state;
	udp_pair(&both[0], &home, &there);
	assert_int_equal(net_hold_install(net_rig_id(), NULL, &both[1], 1, &first, &err), 0);
	assert_int_equal(net_hold_install(net_rig_id(), NULL, &both[0], 1, &second, &err), 0);
	send_numbers(there, 0, MANY);
	assert_int_equal(net_hold_release(first, NULL, &err), 0);
	assert_int_equal(pthread_create(&thread, NULL, release_soon, second), 0);
	net_hold_free(TAKE_PTR(first));
	expect_numbers(home, 0, MANY);
	pthread_join(thread, NULL);
}

/* Nobody answers for the workload, and nothing comes in, when this process is gone; until somebody removes the table by its name. */
static void test_no_listener(void **state)
{
	char id[UUID_TEXT_SIZE], table[80];
	struct net_hold *hold = NULL;
	struct error err;

	(void)state;
	snprintf(id, sizeof(id), "%s", net_rig_id());
	snprintf(table, sizeof(table), "phaul-%s", id);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(net_rig_knock(&both[i], SOCK_STREAM, RIG_ANSWER_MS), ECONNREFUSED);
		assert_int_equal(net_rig_knock(&both[i], SOCK_DGRAM, RIG_ANSWER_MS), ECONNREFUSED);
	}
	assert_int_equal(net_hold_install(id, NULL, both, 2, &hold, &err), 0);
	net_hold_free(hold);
	assert_true(net_rig_table_exists("inet", table));
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(net_rig_knock(&both[i], SOCK_STREAM, RIG_SILENCE_MS), 0);
		assert_int_equal(net_rig_knock(&both[i], SOCK_DGRAM, RIG_SILENCE_MS), 0);
	}
	/* Installed anew with one address: the other is free again, in the same step. */
	assert_int_equal(net_hold_install(id, NULL, &both[0], 1, &hold, &err), 0);
	net_hold_free(hold);
	assert_int_equal(net_rig_knock(&both[0], SOCK_STREAM, RIG_SILENCE_MS), 0);
	assert_int_equal(net_rig_knock(&both[1], SOCK_STREAM, RIG_ANSWER_MS), ECONNREFUSED);
	for (int again = 0; again < 2; again++)
		assert_int_equal(net_hold_remove(id, NULL, &err), 0);
	assert_false(net_rig_table_exists("inet", table));
	assert_int_equal(net_rig_knock(&both[0], SOCK_STREAM, RIG_ANSWER_MS), ECONNREFUSED);
}

static void test_released_leaves_nothing(void **state)
{
	struct net_hold *hold = NULL;
	char table[80];
	struct error err;

	(void)state;
	snprintf(table, sizeof(table), "phaul-%s", net_rig_id());
	assert_int_equal(net_hold_install(table + strlen("phaul-"), NULL, both, 2, &hold, &err), 0);
	assert_int_equal(net_hold_release(hold, NULL, &err), 0);
	assert_int_equal(net_rig_knock(&both[0], SOCK_STREAM, RIG_ANSWER_MS), ECONNREFUSED);
	net_hold_free(hold);
	assert_false(net_rig_table_exists("inet", table));
}

/* Everything that arrives in another namespace; what it says to itself goes on, and so does neighbour discovery. */
static void test_all(void **state)
{
	_cleanup_net_place_ struct net_place there = NET_PLACE_HERE;
	_cleanup_net_hold_ struct net_hold *hold = NULL;
	_cleanup_close_ int inside = -1, out = -1, own = -1;
	struct sockaddr_storage to;
	struct error err = { 0 };
	char path[64];
	uint32_t zero = 0;

	(void)state;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", net_rig.there);
	assert_int_equal(net_place_open_path(path, &there, &err), 0);
	net_rig_socket_address(&net_rig.there6, &to);
	net_rig_enter(net_rig.there);
	inside = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	own = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	net_rig_enter(net_rig.home);
	out = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(inside, (struct sockaddr *)&to, sizeof(struct sockaddr_in6)), 0);
	assert_int_equal(connect(out, (struct sockaddr *)&to, sizeof(struct sockaddr_in6)), 0);
	if (net_hold_install(net_rig_id(), &there, NULL, 0, &hold, &err) < 0)
		fail_msg("%s", err.text);
	send_numbers(out, 1, MANY); /* which asks for the neighbour first */
	assert_int_equal(fd_wait(inside, POLLIN, deadline_in_ms(RIG_SILENCE_MS)), 0);
	assert_int_equal(sendto(own, &zero, sizeof(zero), 0, (struct sockaddr *)&to, sizeof(struct sockaddr_in6)), 4);
	expect_numbers(inside, 0, 1);
	assert_int_equal(net_hold_release(hold, NULL, &err), 0);
	expect_numbers(inside, 1, MANY);
}

/* More than may wait: the first ones come in, the others are lost, and nothing else is. */
static void test_bound(void **state)
{
	_cleanup_net_hold_ struct net_hold *hold = NULL;
	_cleanup_close_ int home = -1, there = -1;
	struct net_hold_counts counts;
	int room = 64 << 20;
	struct error err;

	(void)state;
	udp_pair(&both[0], &home, &there);
	assert_int_equal(setsockopt(home, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)), 0);
	assert_int_equal(net_hold_install(net_rig_id(), NULL, both, 2, &hold, &err), 0);
	send_numbers(there, 0, QUEUE_PACKETS_MAX + MANY);
	assert_int_equal(net_hold_release(hold, &counts, &err), 0);
	expect_numbers(home, 0, QUEUE_PACKETS_MAX);
	assert_int_equal(counts.packets, QUEUE_PACKETS_MAX);
}

static void test_refusals(void **state)
{
	struct net_hold *hold = NULL;
	struct error err;

	(void)state;
	assert_int_equal(net_hold_install("not-an-id", NULL, both, 2, &hold, &err), -EINVAL);
	assert_int_equal(net_hold_install(net_rig_id(), NULL, both, 65, &hold, &err), -EINVAL);
	assert_int_equal(net_hold_install(net_rig_id(), NULL, both, 0, &hold, &err), -EINVAL);
	assert_null(hold);
	assert_int_equal(net_hold_remove("", NULL, &err), -EINVAL);
	assert_false(net_hold_queues(NULL));
	net_hold_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),	    cmocka_unit_test(test_two),
		cmocka_unit_test(test_no_listener), cmocka_unit_test(test_released_leaves_nothing),
		cmocka_unit_test(test_all),	    cmocka_unit_test(test_bound),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
