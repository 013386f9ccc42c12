/*
 * Unit tests of the pacer, and of channels that wait for it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "transport/channel.h"
#include "transport/pacer.h"

#define RATE 1000000

static void test_turns(void **state)
{
	uint64_t first, second, third, late;
	struct pacer p;

	(void)state;
	pacer_init(&p, RATE);
	first = pacer_take(&p, RATE);
	second = pacer_take(&p, RATE / 2);
	third = pacer_take(&p, 1);
	assert_true(first <= clock_now_ns()); /* whatever its size */
	assert_int_equal(second - first, NS_PER_S);
	assert_int_equal(third - second, NS_PER_S / 2);
	pacer_set_rate(&p, 0);
	assert_true(pacer_take(&p, 1ULL << 40) <= clock_now_ns());
	/* What was not used is not saved up. */
	pacer_set_rate(&p, RATE);
	late = pacer_take(&p, 1);
	assert_true(clock_now_ns() - late < NS_PER_S);
	pacer_destroy(&p);
}

static struct channel *open_channel(int *ret_peer)
{
	struct channel *c;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	if (channel_new_plain(pair[0], pair[0], "peer", &c, NULL) < 0)
		abort();
	*ret_peer = pair[1];
	return c;
}

static void test_channel_waits(void **state)
{
	int peer, cancel = eventfd(0, EFD_CLOEXEC);
	struct channel *c = open_channel(&peer);
	uint8_t data[20000] = { 0 };
	struct error err = { 0 };
	struct pacer p;
	uint64_t before;

	(void)state;
	pacer_init(&p, RATE / 10);
	channel_set_pacer(c, &p);
	channel_set_cancel_fd(c, cancel);
	before = clock_now_ns();
	assert_int_equal(channel_write(c, data, sizeof(data), &err), 0);
	assert_int_equal(channel_write(c, data, 1, &err), 0);
	assert_true(clock_now_ns() - before >= 190 * NS_PER_MS);
	/* Whoever waits can be canceled, and nothing has gone. */
	assert_int_equal(channel_write(c, data, 10000, &err), 0);
	assert_int_equal(eventfd_write(cancel, 1), 0);
	assert_int_equal(channel_write(c, data, 1, &err), -ECANCELED);
	channel_set_cancel_fd(c, -1);
	channel_set_pacer(c, NULL);
	assert_int_equal(channel_write(c, data, 1, &err), 0);
	channel_free(c);
	close(peer);
	close(cancel);
	pacer_destroy(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_channel_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
