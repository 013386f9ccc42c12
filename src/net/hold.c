/*
 * See hold.h, docs/network.md. A hold is used by one thread at a time.
 */
#include "net/hold.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h> /* before linux/netfilter.h */
#include <linux/netfilter.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/uuid.h"
#include "net/names.h"
#include "net/nft-internal.h"
#include "net/queue.h"

#define CHAIN "hold"
#define PRIORITY (-400) /* before raw (-300) and connection tracking: linux/netfilter_ipv4.h */
#define ADDRESSES_MAX 64
#define OTHERS_MS 500 /* how long the removal of a table waits for other migrations' packets to be let in */

struct net_hold {
	char table[NET_TABLE_NAME_MAX];
	struct net_place place; /* a duplicate */
	int fd;			/* the queue's listener; -1: packets are dropped */
	struct nft_verdict verdict;
	bool released;
};

int net_table_name(const char *prefix, const char *id, char name[NET_TABLE_NAME_MAX], struct error *err)
{
	struct uuid parsed;

	if (!uuid_parse(id, &parsed))
		return error_set(err, EINVAL, "\"%.64s\" is not a migration's id", id);
	snprintf(name, NET_TABLE_NAME_MAX, "%s%s", prefix, id);
	return 0;
}

struct install {
	struct net_hold *h;
	const struct net_address *addresses;
	size_t n;
	bool anew; /* there is a table of this name */
};

static int install_once(const struct install *i)
{
	const struct nft_chain chain = { .name = CHAIN, .hook = NF_INET_PRE_ROUTING, .priority = PRIORITY };
	_cleanup_nft_batch_ struct nft_batch b = { 0 };
	const char *table = i->h->table;

	nft_begin(&b);
	if (i->anew)
		nft_replace_table(&b, table);
	else
		nft_create_table(&b, table);
	nft_add_chain(&b, table, &chain);
	nft_rule_accept_discovery(&b, table, CHAIN);
	for (size_t k = 0; k < i->n; k++)
		nft_rule_destination(&b, table, CHAIN, i->addresses[k].family, i->addresses[k].bytes, &i->h->verdict);
	if (!i->n) {
		nft_rule_accept_loopback(&b, table, CHAIN, false);
		nft_rule_all(&b, table, CHAIN, &i->h->verdict);
	}
	return nft_commit(&b);
}

static int install_table(struct install *i)
{
	int r = install_once(i);

	if (r != -EEXIST || i->anew)
		return r;
	i->anew = true;
	return install_once(i);
}

/* nf_tables' own queue expression where there is one, else that of xtables, else none. */
static int install_here(void *context, struct error *err)
{
	static const enum nft_action order[] = { NFT_ACTION_QUEUE, NFT_ACTION_XT_QUEUE };
	struct install *i = context;
	struct net_hold *h = i->h;
	int r = queue_open(&h->fd, &h->verdict.queue), why = r;

	for (size_t k = 0; k < ARRAY_SIZE(order) && h->fd >= 0; k++) {
		h->verdict.action = order[k];
		r = why = install_table(i);
		if (!r)
			return 0;
	}
	close_fd(&h->fd);
	h->verdict.action = NFT_ACTION_DROP;
	r = install_table(i);
	if (r < 0)
		return error_errno(err, -r,
				   "cannot install the nftables table inet %s (does this kernel have nf_tables?)",
				   h->table);
	log_warning(
		"packets for the workload are dropped until it runs here, not held: this kernel has no nfnetlink queue "
		"to use from nftables (%s)",
		strerror(-why));
	return 0;
}

int net_hold_install(const char *id, const struct net_place *place, const struct net_address *addresses, size_t n,
		     struct net_hold **ret, struct error *err)
{
	struct net_hold *h = calloc(1, sizeof(*h));
	struct install i = { .h = h, .addresses = addresses, .n = n };
	int r;

	if (!h)
		return error_set(err, ENOMEM, "no memory to hold packets");
	h->fd = -1;
	h->place = NET_PLACE_HERE;
	r = net_table_name(NET_HOLD_PREFIX, id, h->table, err);
	if (!r && n > ADDRESSES_MAX)
		r = error_set(err, EINVAL, "a migration moves at most %d addresses, not %zu", ADDRESSES_MAX, n);
	if (!r && !n && net_place_is_own(place, NULL) == 1)
		r = error_set(err, EINVAL,
			      "all that arrives in the host's own network namespace cannot be held: name addresses");
	if (!r && place && place->netns_fd >= 0) {
		h->place.netns_fd = fcntl(place->netns_fd, F_DUPFD_CLOEXEC, 3);
		if (h->place.netns_fd < 0)
			r = error_errno(err, errno, "cannot keep a network namespace");
	}
	if (!r)
		r = net_place_call(&h->place, install_here, &i, err);
	if (r < 0) {
		net_hold_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

bool net_hold_queues(const struct net_hold *h)
{
	return h && h->fd >= 0;
}

static int flush_rules(const struct net_hold *h)
{
	_cleanup_nft_batch_ struct nft_batch b = { 0 };

	nft_begin(&b);
	nft_flush_chain(&b, h->table, CHAIN);
	return nft_commit(&b);
}

/* Only the rules go: with the table's hook the kernel would drop what waits in any queue of the namespace. Let in before that, so that
 * what waits is in before the first packet that passes by, and after it, for what came in between. */
static int release_here(void *context, struct error *err)
{
	struct net_hold *h = context;
	int r = h->fd >= 0 ? queue_accept_all(h->fd, h->verdict.queue) : 0;

	if (!r)
		r = flush_rules(h);
	if (!r && h->fd >= 0)
		r = queue_accept_all(h->fd, h->verdict.queue);
	if (r < 0)
		return error_errno(err, -r, "cannot let in what waits in the nftables table inet %s", h->table);
	return 0;
}

int net_hold_release(struct net_hold *h, struct net_hold_counts *ret, struct error *err)
{
	struct net_hold_counts counts = { 0 };
	int r = h->released ? 0 : net_place_call(&h->place, release_here, h, err);

	if (r < 0)
		return r;
	if (h->fd >= 0 && !h->released)
		queue_count(h->fd, &counts.packets, &counts.bytes);
	h->released = true;
	if (ret)
		*ret = counts;
	return 0;
}

static int remove_here(void *context, struct error *err)
{
	return nft_remove_table(NFPROTO_INET, context, OTHERS_MS, err);
}

/* A guard's, too (guard.h). */
static int remove_all_here(void *context, struct error *err)
{
	int r = remove_here(context, err), other = nft_remove_table(NFPROTO_BRIDGE, context, 0, r ? NULL : err);

	return r ? r : other;
}

void net_hold_free(struct net_hold *h)
{
	struct error err = { 0 };

	if (!h)
		return;
	if (h->released && net_place_call(&h->place, remove_here, h->table, &err) < 0)
		log_warning("%s", err.text);
	if (h->fd >= 0)
		nft_close_aside(TAKE_FD(h->fd));
	net_place_close(&h->place);
	free(h);
}

void net_hold_freep(struct net_hold **h)
{
	net_hold_free(*h);
}

int net_hold_remove(const char *id, const struct net_place *place, struct error *err)
{
	char table[NET_TABLE_NAME_MAX];
	int r = net_table_name(NET_HOLD_PREFIX, id, table, err);

	return r < 0 ? r : net_place_call(place, remove_all_here, table, err);
}
