/*
 * Transactions of nf_tables over raw nfnetlink: just what phaul's own tables need.
 *
 * Not the nft program and not libnftables, because a removal is part of the downtime and both read the whole ruleset first.
 * Source of the format: linux/netfilter/nf_tables.h, nfnetlink.h; `nft --debug=netlink,mnl`.
 */
#pragma once

#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

struct nft_batch {
	struct buffer bytes;
	uint32_t sequence;
	int failed; /* the first failure while building; nft_commit() returns it */
};

#define _cleanup_nft_batch_ _cleanup_(nft_batch_free)

void nft_batch_free(struct nft_batch *b);
void nft_begin(struct nft_batch *b);

/* Family inet in all of them. Adding a table that is there is fine; deleting one that is not fails with -ENOENT. */
void nft_add_table(struct nft_batch *b, const char *table);
void nft_delete_table(struct nft_batch *b, const char *table);

/* A base chain of type filter, policy accept. hook: NF_INET_*. */
void nft_add_chain(struct nft_batch *b, const char *table, const char *chain, uint32_t hook, int32_t priority);

/* Drops packets to this address. family: AF_INET, AF_INET6. */
void nft_drop_destination(struct nft_batch *b, const char *table, const char *chain, int family,
			  const uint8_t *address);

/* The names of all tables of family inet in this network namespace that begin with prefix, each on a line of its own, appended to `ret`. */
int nft_list_tables(const char *prefix, struct buffer *ret);

/* All or nothing; 0 or a negative errno of the kernel. */
int nft_commit(struct nft_batch *b);
