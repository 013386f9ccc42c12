/*
 * See queue.h. No state; one thread per queue at a time.
 */
#include "net/queue.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "net/nft-internal.h"

#define TRIES 16
#define NUMBER_MIN 1024 /* lower ones are what people write into their rules */
#define IDLE_POLL_MS 1	/* nobody tells */
#define COPY_BYTES 0xffff
#define LAST_ID 0x7fffffff /* the kernel compares as TCP does: half of all numbers are "before" */

static struct nl_msg *queue_message(int type, uint16_t flags, uint16_t number)
{
	struct nl_msg *m = nlmsg_alloc_size(256);
	struct nlmsghdr *h =
		nlmsg_put(m, 0, 1, (NFNL_SUBSYS_QUEUE << 8) | type, sizeof(struct nfgenmsg), NLM_F_REQUEST | flags);
	struct nfgenmsg *head;

	if (!m || !h) {
		nlmsg_free(m);
		return NULL;
	}
	head = nlmsg_data(h);
	*head = (struct nfgenmsg){ .nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(number) };
	return m;
}

static int ask(int fd, struct nl_msg *m)
{
	const struct nlmsghdr *h = nlmsg_hdr(m);
	int r = send(fd, h, h->nlmsg_len, 0) < 0 ? -errno : 0;

	nlmsg_free(m);
	return r;
}

/* -EBUSY: somebody has this number. */
static int bind_number(int fd, uint16_t number)
{
	struct nfqnl_msg_config_cmd bind = { .command = NFQNL_CFG_CMD_BIND, .pf = htons(AF_UNSPEC) };
	struct nfqnl_msg_config_params copy = { .copy_range = htonl(COPY_BYTES), .copy_mode = NFQNL_COPY_PACKET };
	struct nl_msg *m = queue_message(NFQNL_MSG_CONFIG, NLM_F_ACK, number);
	int r;

	if (!m)
		return -ENOMEM;
	/* Room for these five is certain. GSO: what came as one large packet stays one. */
	nla_put(m, NFQA_CFG_CMD, sizeof(bind), &bind);
	nla_put(m, NFQA_CFG_PARAMS, sizeof(copy), &copy);
	nla_put_u32(m, NFQA_CFG_QUEUE_MAXLEN, htonl(QUEUE_PACKETS_MAX));
	nla_put_u32(m, NFQA_CFG_FLAGS, htonl(NFQA_CFG_F_GSO));
	nla_put_u32(m, NFQA_CFG_MASK, htonl(NFQA_CFG_F_GSO));
	r = ask(fd, m);
	return r < 0 ? r : nft_read_answers(fd);
}

int queue_open(int *ret_fd, uint16_t *ret_number)
{
	_cleanup_close_ int fd = nft_socket_open();
	int bytes = QUEUE_BYTES_MAX / 2, on = 1, r = -EBUSY; /* the kernel doubles it: socket(7) */

	if (fd < 0)
		return fd;
	/* A full buffer is expected, and no error of the next system call. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 ||
	    setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof(on)) < 0)
		return -errno;
	for (int i = 0; i < TRIES && r == -EBUSY; i++) {
		uint16_t number;

		if (getrandom(&number, sizeof(number), 0) != sizeof(number))
			return -EIO;
		if (number < NUMBER_MIN)
			continue;
		r = bind_number(fd, number);
		*ret_number = number;
	}
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int queue_accept_all(int fd, uint16_t number)
{
	struct nfqnl_msg_verdict_hdr verdict = { .verdict = htonl(NF_ACCEPT), .id = htonl(LAST_ID) };
	struct nl_msg *m = queue_message(NFQNL_MSG_VERDICT_BATCH, 0, number);

	if (!m)
		return -ENOMEM;
	nla_put(m, NFQA_VERDICT_HDR, sizeof(verdict), &verdict);
	return ask(fd, m);
}

void queue_count(int fd, uint64_t *ret_packets, uint64_t *ret_bytes)
{
	_Alignas(struct nlmsghdr) char start[1024]; /* the kernel's attributes come first, the packet last */
	ssize_t n;

	*ret_packets = *ret_bytes = 0;
	while ((n = recv(fd, start, sizeof(start), MSG_DONTWAIT | MSG_TRUNC)) > 0) {
		const struct nlmsghdr *h = (const struct nlmsghdr *)start;

		if (h->nlmsg_type != ((NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_PACKET))
			continue; /* "nothing waits", in answer to a verdict */
		(*ret_packets)++;
		*ret_bytes += (uint64_t)n;
	}
}

/* "number portid waiting ...", a line each. A kernel without queues has no such file. */
static bool packets_wait(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/thread-self/net/netfilter/nfnetlink_queue", "re");
	unsigned int waiting = 0;

	while (f && !waiting && fscanf(f, "%*u %*u %u%*[^\n]", &waiting) == 1)
		;
	return waiting;
}

void queue_await_idle(uint64_t deadline_ns)
{
	while (packets_wait() && clock_now_ns() < deadline_ns)
		poll(NULL, 0, IDLE_POLL_MS);
}
