/*
 * Transactions of nf_tables: see nft.h. A batch is used by one thread.
 *
 * A batch is BATCH_BEGIN, messages, BATCH_END in one send; the kernel works on it inside of that send and answers at once. Only the last
 * message asks for an acknowledgement; errors come for each that failed.
 *
 * A transaction takes some 50 us. Closing a netfilter socket after something was deleted waits for an RCU grace period, 10 to 20 ms
 * (nft_rcv_nl_event() in the kernel's nf_tables_api.c), which would be downtime: a detached thread closes it,
 * somewhat later.
 */
#include "net/nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/msg.h>
#include <netlink/attr.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "net/nft-internal.h"

#define MESSAGE_SIZE 1024
#define CLOSE_AFTER_MS 50

void nft_batch_free(struct nft_batch *b)
{
	buffer_free(&b->bytes);
}

void nft_batch_fail(struct nft_batch *b, int r)
{
	if (r < 0 && !b->failed)
		b->failed = r;
}

/* A message with its nfgenmsg head; NULL when memory ran out. */
static struct nl_msg *message(struct nft_batch *b, uint16_t type, uint16_t flags, uint8_t family, uint16_t resource)
{
	struct nl_msg *m = nlmsg_alloc_size(MESSAGE_SIZE);
	struct nlmsghdr *h =
		m ? nlmsg_put(m, 0, b->sequence++, type, sizeof(struct nfgenmsg), NLM_F_REQUEST | flags) : NULL;
	struct nfgenmsg *head;

	if (!h) {
		nlmsg_free(m);
		nft_batch_fail(b, -ENOMEM);
		return NULL;
	}
	head = nlmsg_data(h);
	*head = (struct nfgenmsg){ .nfgen_family = family, .version = NFNETLINK_V0, .res_id = htons(resource) };
	return m;
}

struct nl_msg *nft_message(struct nft_batch *b, int type, uint16_t flags)
{
	return message(b, (uint16_t)((NFNL_SUBSYS_NFTABLES << 8) | type), flags, b->family, 0);
}

void nft_batch_append(struct nft_batch *b, struct nl_msg *m)
{
	const struct nlmsghdr *h;

	if (!m)
		return;
	h = nlmsg_hdr(m);
	nft_batch_fail(b, buffer_append(&b->bytes, h, NLMSG_ALIGN(h->nlmsg_len)));
	nlmsg_free(m);
}

void nft_begin(struct nft_batch *b)
{
	*b = (struct nft_batch){ .sequence = 1, .family = NFPROTO_INET };
	nft_batch_append(b, message(b, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
}

static void append_table(struct nft_batch *b, int type, uint16_t flags, const char *table)
{
	struct nl_msg *m = nft_message(b, type, flags);

	if (m)
		nft_batch_fail(b, nla_put_string(m, NFTA_TABLE_NAME, table));
	nft_batch_append(b, m);
}

void nft_add_table(struct nft_batch *b, const char *table)
{
	append_table(b, NFT_MSG_NEWTABLE, NLM_F_CREATE, table);
}

void nft_create_table(struct nft_batch *b, const char *table)
{
	append_table(b, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, table);
}

void nft_delete_table(struct nft_batch *b, const char *table)
{
	append_table(b, NFT_MSG_DELTABLE, NLM_F_ACK, table);
}

void nft_replace_table(struct nft_batch *b, const char *table)
{
	nft_add_table(b, table); /* so that there is one to delete */
	nft_delete_table(b, table);
	nft_add_table(b, table);
}

void nft_add_chain(struct nft_batch *b, const char *table, const struct nft_chain *chain)
{
	struct nl_msg *m = nft_message(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK);
	struct nlattr *nest;

	if (!m)
		return;
	nft_batch_fail(b, nla_put_string(m, NFTA_CHAIN_TABLE, table));
	nft_batch_fail(b, nla_put_string(m, NFTA_CHAIN_NAME, chain->name));
	nest = nla_nest_start(m, NFTA_CHAIN_HOOK | NLA_F_NESTED);
	nft_batch_fail(b, nla_put_u32(m, NFTA_HOOK_HOOKNUM, htonl(chain->hook)));
	nft_batch_fail(b, nla_put_u32(m, NFTA_HOOK_PRIORITY, htonl((uint32_t)chain->priority)));
	if (chain->device)
		nft_batch_fail(b, nla_put_string(m, NFTA_HOOK_DEV, chain->device));
	if (nest)
		nla_nest_end(m, nest);
	nft_batch_fail(b, nla_put_u32(m, NFTA_CHAIN_POLICY, htonl(chain->drops ? NF_DROP : NF_ACCEPT)));
	nft_batch_fail(b, nla_put_string(m, NFTA_CHAIN_TYPE, "filter"));
	nft_batch_append(b, m);
}

void nft_flush_chain(struct nft_batch *b, const char *table, const char *chain)
{
	struct nl_msg *m = nft_message(b, NFT_MSG_DELRULE, NLM_F_ACK);

	if (m) {
		nft_batch_fail(b, nla_put_string(m, NFTA_RULE_TABLE, table));
		nft_batch_fail(b, nla_put_string(m, NFTA_RULE_CHAIN, chain));
	}
	nft_batch_append(b, m);
}

int nft_socket_open(void)
{
	_cleanup_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	if (fd < 0 || connect(fd, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* What the kernel said, which is all there already: the first error, or 0 when acknowledgements came only. */
int nft_read_answers(int fd)
{
	uint8_t answer[8192] __attribute__((aligned(NLMSG_ALIGNTO)));
	int first = -EPROTO; /* nobody said anything */

	for (;;) {
		ssize_t n = recv(fd, answer, sizeof(answer), MSG_DONTWAIT);
		int left = (int)n;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? first : -errno;
		for (struct nlmsghdr *h = (struct nlmsghdr *)answer; nlmsg_ok(h, left); h = nlmsg_next(h, &left)) {
			const struct nlmsgerr *e = nlmsg_data(h);

			if (h->nlmsg_type != NLMSG_ERROR)
				continue;
			if (first == -EPROTO || !first)
				first = e->error;
		}
	}
}

static void *close_thread(void *context)
{
	/* The kernel lets no other transaction of the namespace in while it waits: whoever has one next, as CRIU has, shall be first. */
	poll(NULL, 0, CLOSE_AFTER_MS);
	close((int)(intptr_t)context);
	return NULL;
}

/* Closes fd soon, without waiting for it; here and now when there can be no thread. */
void nft_close_aside(int fd)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, before;
	int r;

	sigfillset(&all); /* signals of the process are not for this thread */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attr, close_thread, (void *)(intptr_t)fd);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		close(fd);
}

int nft_commit_on(int fd, struct nft_batch *b)
{
	nft_batch_append(b, message(b, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
	if (b->failed)
		return b->failed < -4095 ? -EIO : b->failed;
	return send(fd, b->bytes.data, b->bytes.length, 0) < 0 ? -errno : nft_read_answers(fd);
}

int nft_commit(struct nft_batch *b)
{
	int fd = nft_socket_open(), r;

	if (fd < 0)
		return fd;
	r = nft_commit_on(fd, b);
	nft_close_aside(fd);
	return r;
}

/* One answer of a dump; 1 at its end. */
static int take_table(const struct nlmsghdr *h, const char *prefix, struct buffer *ret)
{
	const struct nlattr *name;
	const char *text;

	if (h->nlmsg_type == NLMSG_DONE)
		return 1;
	if (h->nlmsg_type == NLMSG_ERROR)
		return ((const struct nlmsgerr *)nlmsg_data(h))->error;
	name = nlmsg_find_attr((struct nlmsghdr *)h, sizeof(struct nfgenmsg), NFTA_TABLE_NAME);
	text = name ? nla_get_string((struct nlattr *)name) : NULL;
	return text && !strncmp(text, prefix, strlen(prefix)) ? buffer_printf(ret, "%s\n", text) : 0;
}

int nft_list_tables(uint8_t family, const char *prefix, struct buffer *ret)
{
	_cleanup_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	_cleanup_nft_batch_ struct nft_batch b = { .sequence = 1, .family = family };
	_Alignas(struct nlmsghdr) char answer[32768];
	int r;

	nft_batch_append(&b, nft_message(&b, NFT_MSG_GETTABLE, NLM_F_DUMP));
	r = fd < 0 ? -errno : b.failed;
	if (!r && send(fd, b.bytes.data, b.bytes.length, 0) < 0)
		r = -errno;
	while (!r) {
		ssize_t n = recv(fd, answer, sizeof(answer), 0);
		int left = (int)n;

		if (n < 0)
			r = errno == EINTR ? 0 : -errno;
		for (struct nlmsghdr *h = (struct nlmsghdr *)answer; !r && nlmsg_ok(h, left); h = nlmsg_next(h, &left))
			r = take_table(h, prefix, ret);
	}
	return MIN(r, 0);
}
