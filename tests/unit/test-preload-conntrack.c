/*
 * libphaul-criu.so's sendmsg() (built as library_sendmsg here): the question for tracked connections, asked as CRIU asks it in a network namespace of the
 * test's own, is answered rightly whether there are some or none. Needs root and nft.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/process.h"
#include "criu/preload/library.h"

struct library library;

static int said;

void library_say(bool *once, const char *what)
{
	(void)once;
	assert_non_null(strstr(what, "tracked connections"));
	said++;
}

ssize_t library_sendmsg(int fd, const struct msghdr *m, int flags);

static int setup(void **state)
{
	static const char *const nft[] = {
		"nft",
		"add table inet t; add chain inet t c { type filter hook output priority 0; }; "
		"add rule inet t c ct state new accept",
		NULL
	};
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	(void)state;
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
	close(fd);
	/* A rule that asks for the state makes the kernel track this namespace. */
	assert_int_equal(process_run(nft, NULL, deadline_in_ms(10000), NULL), 0);
	library = (struct library){ .active = true, .hide = true };
	return 0;
}

/* Entries in the answer; negative: an error's number. The flags and the type are CRIU's, but for `type`. */
static int ask(int protocol, uint16_t type)
{
	struct {
		struct nlmsghdr head;
		struct nfgenmsg family;
	} question = { .head = { .nlmsg_len = sizeof(question),
				 .nlmsg_type = type,
				 .nlmsg_flags = NLM_F_DUMP | NLM_F_REQUEST,
				 .nlmsg_seq = 24680 } },
	  before = question;
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct iovec iov = { &question, sizeof(question) };
	struct msghdr m = { .msg_name = &kernel, .msg_namelen = sizeof(kernel), .msg_iov = &iov, .msg_iovlen = 1 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), entries = 0;
	struct timeval patience = { .tv_sec = 10 };
	static char answer[65536] __attribute__((aligned(8)));

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	errno = ENOTTY;
	assert_int_equal(library_sendmsg(fd, &m, 0), sizeof(question));
	assert_int_equal(errno, ENOTTY);
	assert_memory_equal(&question, &before, sizeof(question));
	for (;;) {
		ssize_t n = recv(fd, answer, sizeof(answer), 0);
		struct nlmsghdr *h = (struct nlmsghdr *)answer;

		assert_true(n > 0);
		for (; NLMSG_OK(h, (size_t)n); h = NLMSG_NEXT(h, n)) {
			assert_int_equal(h->nlmsg_seq, 24680);
			if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR) {
				int *status = NLMSG_DATA(h);

				close(fd);
				return h->nlmsg_type == NLMSG_DONE ? entries : *status;
			}
			entries++;
		}
	}
}

#define TRACKED (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET)

static void test_none(void **state)
{
	(void)state;
	said = 0;
	assert_int_equal(ask(NETLINK_NETFILTER, TRACKED), 0);
	assert_int_equal(said, 1);
}

static void test_some(void **state)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons(4711),
				  .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_int_equal(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)), 1);
	said = 0;
	assert_true(ask(NETLINK_NETFILTER, TRACKED) >= 1);
	assert_int_equal(said, 0);
	close(fd);
}

static void test_others(void **state)
{
	(void)state;
	said = 0;
	assert_int_equal(ask(NETLINK_NETFILTER, NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_EXP_GET), 0);
	/* The same number is something else elsewhere. */
	(void)ask(NETLINK_SOCK_DIAG, TRACKED);
	library.hide = false;
	assert_int_equal(ask(NETLINK_NETFILTER, TRACKED), 0);
	assert_int_equal(said, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup(test_none, setup),
					    cmocka_unit_test_setup(test_some, setup),
					    cmocka_unit_test_setup(test_others, setup) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
