/*
 * The rules that phaul's nftables tables are made of: see nft.h. A batch is used by one thread.
 *
 * A message has room for far more than the ~300 bytes of any rule here, so that its parts cannot fail.
 */
#include "net/nft-internal.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/xt_NFQUEUE.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netlink/attr.h>
#include <sys/socket.h>

#define IPV4_DESTINATION 16 /* offset in the header: RFC 791 */
#define IPV6_NEXT_HEADER 6  /* RFC 8200 */
#define IPV6_DESTINATION 24
#define IPV6_HEADER 40
#define LINK_DESTINATION 0 /* of an Ethernet frame */
#define LINK_SOURCE 6
#define MAC_BYTES 6
#define XT_NFQUEUE_REVISION 3

/* Opens an expression of a rule's list; *ret_data is where its attributes go. */
static struct nlattr *expression_start(struct nl_msg *m, const char *name, struct nlattr **ret_data)
{
	struct nlattr *element = nla_nest_start(m, NFTA_LIST_ELEM | NLA_F_NESTED);

	nla_put_string(m, NFTA_EXPR_NAME, name);
	*ret_data = nla_nest_start(m, NFTA_EXPR_DATA | NLA_F_NESTED);
	return element;
}

static void expression_end(struct nl_msg *m, struct nlattr *element, struct nlattr *data)
{
	nla_nest_end(m, data);
	nla_nest_end(m, element);
}

static void put_compare(struct nl_msg *m, uint32_t operation, const void *value, int length)
{
	struct nlattr *data, *element = expression_start(m, "cmp", &data), *nest;

	nla_put_u32(m, NFTA_CMP_SREG, htonl(NFT_REG_1));
	nla_put_u32(m, NFTA_CMP_OP, htonl(operation));
	nest = nla_nest_start(m, NFTA_CMP_DATA | NLA_F_NESTED);
	nla_put(m, NFTA_DATA_VALUE, length, value);
	nla_nest_end(m, nest);
	expression_end(m, element, data);
}

static void put_meta_match(struct nl_msg *m, uint32_t key, const void *value, int length)
{
	struct nlattr *data, *element = expression_start(m, "meta", &data);

	nla_put_u32(m, NFTA_META_KEY, htonl(key));
	nla_put_u32(m, NFTA_META_DREG, htonl(NFT_REG_1));
	expression_end(m, element, data);
	put_compare(m, NFT_CMP_EQ, value, length);
}

static void put_protocol_match(struct nl_msg *m, uint8_t protocol)
{
	put_meta_match(m, NFT_META_NFPROTO, &protocol, sizeof(protocol));
}

static void put_load_of(struct nl_msg *m, uint32_t base, uint32_t offset, uint32_t length)
{
	struct nlattr *data, *element = expression_start(m, "payload", &data);

	nla_put_u32(m, NFTA_PAYLOAD_DREG, htonl(NFT_REG_1));
	nla_put_u32(m, NFTA_PAYLOAD_BASE, htonl(base));
	nla_put_u32(m, NFTA_PAYLOAD_OFFSET, htonl(offset));
	nla_put_u32(m, NFTA_PAYLOAD_LEN, htonl(length));
	expression_end(m, element, data);
}

/* Bytes of the network header and behind it. */
static void put_load(struct nl_msg *m, uint32_t offset, uint32_t length)
{
	put_load_of(m, NFT_PAYLOAD_NETWORK_HEADER, offset, length);
}

static void put_code(struct nl_msg *m, uint32_t code)
{
	struct nlattr *data, *element = expression_start(m, "immediate", &data), *value, *verdict;

	nla_put_u32(m, NFTA_IMMEDIATE_DREG, htonl(NFT_REG_VERDICT));
	value = nla_nest_start(m, NFTA_IMMEDIATE_DATA | NLA_F_NESTED);
	verdict = nla_nest_start(m, NFTA_DATA_VERDICT | NLA_F_NESTED);
	nla_put_u32(m, NFTA_VERDICT_CODE, htonl(code));
	nla_nest_end(m, verdict);
	nla_nest_end(m, value);
	expression_end(m, element, data);
}

static void put_queue(struct nl_msg *m, uint16_t number)
{
	struct nlattr *data, *element = expression_start(m, "queue", &data);

	nla_put_u16(m, NFTA_QUEUE_NUM, htons(number));
	nla_put_u16(m, NFTA_QUEUE_TOTAL, htons(1));
	expression_end(m, element, data);
}

static void put_xt_queue(struct nl_msg *m, uint16_t number)
{
	union {
		struct xt_NFQ_info_v3 info;
		uint64_t aligned; /* the kernel wants XT_ALIGN() of the size */
	} target = { .info = { .queuenum = number, .queues_total = 1 } };
	struct nlattr *data, *element = expression_start(m, "target", &data);

	nla_put_string(m, NFTA_TARGET_NAME, "NFQUEUE");
	nla_put_u32(m, NFTA_TARGET_REV, htonl(XT_NFQUEUE_REVISION));
	nla_put(m, NFTA_TARGET_INFO, sizeof(target), &target);
	expression_end(m, element, data);
}

static void put_verdict(struct nl_msg *m, const struct nft_verdict *verdict)
{
	switch (verdict->action) {
	case NFT_ACTION_DROP:
		put_code(m, NF_DROP);
		break;
	case NFT_ACTION_QUEUE:
		put_queue(m, verdict->queue);
		break;
	case NFT_ACTION_XT_QUEUE:
		put_xt_queue(m, verdict->queue);
		break;
	}
}

static struct nl_msg *rule_start(struct nft_batch *b, const char *table, const char *chain, struct nlattr **ret_list)
{
	struct nl_msg *m = nft_message(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK);

	if (!m)
		return NULL;
	nft_batch_fail(b, nla_put_string(m, NFTA_RULE_TABLE, table));
	nft_batch_fail(b, nla_put_string(m, NFTA_RULE_CHAIN, chain));
	*ret_list = nla_nest_start(m, NFTA_RULE_EXPRESSIONS | NLA_F_NESTED);
	return m;
}

static void rule_end(struct nft_batch *b, struct nl_msg *m, struct nlattr *list)
{
	nla_nest_end(m, list);
	nft_batch_append(b, m);
}

void nft_rule_destination(struct nft_batch *b, const char *table, const char *chain, int family, const uint8_t *address,
			  const struct nft_verdict *verdict)
{
	bool v4 = family == AF_INET;
	uint32_t length = v4 ? 4 : 16;
	struct nlattr *list;
	struct nl_msg *m = rule_start(b, table, chain, &list);

	if (!m)
		return;
	put_protocol_match(m, v4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
	put_load(m, v4 ? IPV4_DESTINATION : IPV6_DESTINATION, length);
	put_compare(m, NFT_CMP_EQ, address, (int)length);
	put_verdict(m, verdict);
	rule_end(b, m, list);
}

void nft_rule_all(struct nft_batch *b, const char *table, const char *chain, const struct nft_verdict *verdict)
{
	struct nlattr *list;
	struct nl_msg *m = rule_start(b, table, chain, &list);

	if (!m)
		return;
	put_verdict(m, verdict);
	rule_end(b, m, list);
}

static void rule_link(struct nft_batch *b, const char *table, const char *chain, uint32_t offset, const uint8_t mac[6],
		      const struct nft_verdict *verdict)
{
	struct nlattr *list;
	struct nl_msg *m = rule_start(b, table, chain, &list);

	if (!m)
		return;
	put_load_of(m, NFT_PAYLOAD_LL_HEADER, offset, MAC_BYTES);
	put_compare(m, NFT_CMP_EQ, mac, MAC_BYTES);
	put_verdict(m, verdict);
	rule_end(b, m, list);
}

void nft_rule_link_destination(struct nft_batch *b, const char *table, const char *chain, const uint8_t mac[6],
			       const struct nft_verdict *verdict)
{
	rule_link(b, table, chain, LINK_DESTINATION, mac, verdict);
}

void nft_rule_link_source(struct nft_batch *b, const char *table, const char *chain, const uint8_t mac[6],
			  const struct nft_verdict *verdict)
{
	rule_link(b, table, chain, LINK_SOURCE, mac, verdict);
}

void nft_rule_accept_device(struct nft_batch *b, const char *table, const char *chain, int index)
{
	uint32_t number = (uint32_t)index;
	struct nlattr *list;
	struct nl_msg *m = rule_start(b, table, chain, &list);

	if (!m)
		return;
	put_meta_match(m, NFT_META_IIF, &number, sizeof(number));
	put_code(m, NF_ACCEPT);
	rule_end(b, m, list);
}

void nft_rule_accept_discovery(struct nft_batch *b, const char *table, const char *chain)
{
	static const uint8_t icmp6 = IPPROTO_ICMPV6, first = ND_ROUTER_SOLICIT, last = ND_REDIRECT;
	struct nlattr *list;
	struct nl_msg *m = rule_start(b, table, chain, &list);

	if (!m)
		return;
	put_protocol_match(m, NFPROTO_IPV6);
	put_load(m, IPV6_NEXT_HEADER, 1);
	put_compare(m, NFT_CMP_EQ, &icmp6, 1);
	put_load(m, IPV6_HEADER, 1); /* the type: such packets have no header in between (RFC 6980) */
	put_compare(m, NFT_CMP_GTE, &first, 1);
	put_compare(m, NFT_CMP_LTE, &last, 1);
	put_code(m, NF_ACCEPT);
	rule_end(b, m, list);
}

void nft_rule_accept_loopback(struct nft_batch *b, const char *table, const char *chain, bool output)
{
	static const uint16_t loopback = ARPHRD_LOOPBACK;
	struct nlattr *list;
	struct nl_msg *m = rule_start(b, table, chain, &list);

	if (!m)
		return;
	put_meta_match(m, output ? NFT_META_OIFTYPE : NFT_META_IIFTYPE, &loopback, sizeof(loopback));
	put_code(m, NF_ACCEPT);
	rule_end(b, m, list);
}
