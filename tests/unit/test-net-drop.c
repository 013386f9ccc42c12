/*
 * Unit test of net/hold where the kernel has no queue, which is simulated: queue.h is implemented here. Needs root.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "net-rig.h"
#include "net/hold.h"
#include "net/queue.h"

int queue_open(int *ret_fd, uint16_t *ret_number)
{
	(void)ret_fd;
	(void)ret_number;
	return -EPROTONOSUPPORT;
}

int queue_accept_all(int fd, uint16_t number)
{
	(void)fd;
	(void)number;
	fail_msg("there is no queue");
	return 0;
}

void queue_await_idle(uint64_t deadline_ns)
{
	(void)deadline_ns;
}

void queue_count(int fd, uint64_t *ret_packets, uint64_t *ret_bytes)
{
	(void)fd;
	*ret_packets = *ret_bytes = 0;
	fail_msg("there is no queue");
}

static void test_drop(void **state)
{
	const struct net_address both[] = { net_rig.here4, net_rig.here6 };
	_cleanup_net_hold_ struct net_hold *hold = NULL;
	struct net_hold_counts counts = { 1, 1 };
	struct error err;

	(void)state;
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(net_address_add(&both[i], &err), 0);
	assert_int_equal(net_hold_install(net_rig_id(), NULL, both, 2, &hold, &err), 0);
	assert_false(net_hold_queues(hold));
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(net_rig_knock(&both[i], SOCK_STREAM, RIG_SILENCE_MS), 0);
		assert_int_equal(net_rig_knock(&both[i], SOCK_DGRAM, RIG_SILENCE_MS), 0);
	}
	assert_int_equal(net_hold_release(hold, &counts, &err), 0);
	assert_int_equal(counts.packets + counts.bytes, 0);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(net_rig_knock(&both[i], SOCK_STREAM, RIG_ANSWER_MS), ECONNREFUSED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drop),
	};

	return cmocka_run_group_tests(tests, net_rig_setup, NULL);
}
