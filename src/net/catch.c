/*
 * The catch: an nftables table that keeps the workload's traffic from the target's kernel until the sockets are there. See
 * net.h, docs/network.md. No state; any thread.
 *
 * Without it a segment that arrives before CRIU has made its socket is answered by a reset, and a datagram by "port
 * unreachable". Prerouting, before connection tracking and before anything else: what is dropped there leaves no trace.
 * A table, once made, outlives this process on purpose; it is found by its name after a crash.
 */
#include "net/net.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <string.h>

#include "base/uuid.h"
#include "net/nft.h"

#define TABLE_NAME_MAX 64
#define CHAIN "catch"
#define PRIORITY (-400) /* before raw (-300), defragmentation and connection tracking: linux/netfilter_ipv4.h */
#define ADDRESSES_MAX 64

static int table_name(const char *id, char name[TABLE_NAME_MAX], struct error *err)
{
	struct uuid parsed;

	if (!uuid_parse(id, &parsed))
		return error_set(err, EINVAL, "\"%.64s\" is not a migration's id", id);
	snprintf(name, TABLE_NAME_MAX, "phaul-%s", id);
	return 0;
}

int net_catch_install(const char *id, const struct net_address *addresses, size_t n, struct error *err)
{
	_cleanup_nft_batch_ struct nft_batch b = { 0 };
	char table[TABLE_NAME_MAX];
	int r = table_name(id, table, err);

	if (r < 0)
		return r;
	if (!n || n > ADDRESSES_MAX)
		return error_set(err, EINVAL, "a migration moves 1 to %d addresses, not %zu", ADDRESSES_MAX, n);
	nft_begin(&b);
	nft_add_table(&b, table); /* add, delete, add: whatever was there is replaced in one step */
	nft_delete_table(&b, table);
	nft_add_table(&b, table);
	nft_add_chain(&b, table, CHAIN, NF_INET_PRE_ROUTING, PRIORITY);
	for (size_t i = 0; i < n; i++)
		nft_drop_destination(&b, table, CHAIN, addresses[i].family, addresses[i].bytes);
	r = nft_commit(&b);
	if (r < 0)
		return error_errno(
			err, -r, "cannot install the nftables table inet %s (does this kernel have nf_tables?)", table);
	return 0;
}

static int remove_table(const char *table, struct error *err)
{
	_cleanup_nft_batch_ struct nft_batch b = { 0 };
	int r;

	nft_begin(&b);
	nft_delete_table(&b, table);
	r = nft_commit(&b);
	if (r < 0 && r != -ENOENT)
		return error_errno(err, -r, "cannot remove the nftables table inet %s", table);
	return 0;
}

int net_catch_remove(const char *id, struct error *err)
{
	char table[TABLE_NAME_MAX];
	int r = table_name(id, table, err);

	return r < 0 ? r : remove_table(table, err);
}

int net_criu_table_remove(const char *table, struct error *err)
{
	static const char prefix[] = "CRIU-";
	size_t length = strlen(table);

	if (strncmp(table, prefix, strlen(prefix)) != 0 || length <= strlen(prefix) || length >= TABLE_NAME_MAX ||
	    strspn(table + strlen(prefix), "0123456789abcdefABCDEF-") != length - strlen(prefix))
		return error_set(err, EINVAL, "\"%.64s\" is not the name of a table of CRIU's", table);
	return remove_table(table, err);
}
