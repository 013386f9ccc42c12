/*
 * Transactions of nf_tables over raw nfnetlink: just what phaul's own tables need.
 *
 * Not the nft program and not libnftables, because a removal is part of the downtime and both read the whole ruleset first.
 * All of it is about the network namespace of the calling thread.
 * Source of the format: linux/netfilter/nf_tables.h, nfnetlink.h; `nft --debug=netlink,mnl`.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

struct nft_batch {
	struct buffer bytes;
	uint32_t sequence;
	uint8_t family; /* NFPROTO_* of what follows; nft_begin() sets NFPROTO_INET */
	int failed;	/* the first failure while building; nft_commit() returns it */
};

#define _cleanup_nft_batch_ _cleanup_(nft_batch_free)

void nft_batch_free(struct nft_batch *b);
void nft_begin(struct nft_batch *b);

/* Adding a table that is there is fine, creating one is not (-EEXIST); deleting one that is not fails with -ENOENT. Replacing empties what may be
 * there, in the same step, but whatever deletes makes the namespace's next transaction wait for an RCU grace period. */
void nft_add_table(struct nft_batch *b, const char *table);
void nft_create_table(struct nft_batch *b, const char *table);
void nft_replace_table(struct nft_batch *b, const char *table);
void nft_delete_table(struct nft_batch *b, const char *table);

/* A batch of its own that deletes a table of the calling thread's namespace, after waiting up to patience_ms until nobody's packets wait
 * in a queue there (queue.h). Fine if there is none. */
int nft_remove_table(uint8_t family, const char *table, int patience_ms, struct error *err);

/* A base chain of type filter. */
struct nft_chain {
	const char *name;
	uint32_t hook; /* NF_INET_*, NF_NETDEV_*, NF_ARP_*, NF_BR_* */
	int32_t priority;
	const char *device; /* for family netdev; else NULL */
	bool drops;	    /* the policy */
};

void nft_add_chain(struct nft_batch *b, const char *table, const struct nft_chain *chain);

/* Removes its rules. The hook stays, so that packets in queues stay too (docs/network.md). */
void nft_flush_chain(struct nft_batch *b, const char *table, const char *chain);

enum nft_action {
	NFT_ACTION_DROP,
	NFT_ACTION_QUEUE,    /* nf_tables' own expression */
	NFT_ACTION_XT_QUEUE, /* the target of xtables, through nft_compat */
};

/* Both queue without "bypass": packets are dropped while nobody listens. */
struct nft_verdict {
	enum nft_action action;
	uint16_t queue;
};

/* Rules, appended. In family inet; the last one in any. address: 4 or 16 bytes of AF_INET, AF_INET6. */
void nft_rule_destination(struct nft_batch *b, const char *table, const char *chain, int family, const uint8_t *address,
			  const struct nft_verdict *verdict);
void nft_rule_all(struct nft_batch *b, const char *table, const char *chain, const struct nft_verdict *verdict);
/* In family bridge: frames to and from a device's address, frames that came in by a port. */
void nft_rule_link_destination(struct nft_batch *b, const char *table, const char *chain, const uint8_t mac[6],
			       const struct nft_verdict *verdict);
void nft_rule_link_source(struct nft_batch *b, const char *table, const char *chain, const uint8_t mac[6],
			  const struct nft_verdict *verdict);
void nft_rule_accept_device(struct nft_batch *b, const char *table, const char *chain, int index);
/* Neighbour and router discovery of IPv6: without it nobody finds the way here. */
void nft_rule_accept_discovery(struct nft_batch *b, const char *table, const char *chain);
/* What the namespace says to itself. output: by the device it leaves through, else the one it came in. */
void nft_rule_accept_loopback(struct nft_batch *b, const char *table, const char *chain, bool output);

/* The names of all tables of that family (NFPROTO_*) that begin with prefix, each on a line of its own, appended to `ret`. */
int nft_list_tables(uint8_t family, const char *prefix, struct buffer *ret);

/* All or nothing; 0 or a negative errno of the kernel. */
int nft_commit(struct nft_batch *b);
