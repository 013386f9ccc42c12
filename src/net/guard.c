/*
 * See guard.h, docs/network.md. A guard is used by one thread at a time.
 */
#include "net/guard.h"

#include <errno.h>
#include <netinet/in.h> /* before linux/netfilter.h */
#include <linux/netfilter.h>
#include <linux/netfilter_bridge.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "net/capture.h"
#include "net/names.h"
#include "net/nft-internal.h"

#define CHAIN "guard"
#define PRIORITY (-400) /* before all that linux/netfilter_bridge.h names */
#define OTHERS_MS 500	/* as in hold.c */

enum phase {
	PHASE_INVALID,
	PHASE_SILENT,
	PHASE_HOLDING,
	PHASE_LIFTED,
	PHASE_MAX,
};

struct net_guard {
	char table[NET_TABLE_NAME_MAX];
	enum phase phase;
	struct net_neighbour list[NET_NEIGHBOURS_MAX];
	size_t n;
	struct capture_port *ports; /* those that were there */
	size_t n_ports;
	int fd; /* keeps frames; -1: not ready, they would be dropped */
};

static int list_ports(struct net_guard *g, struct error *err)
{
	_cleanup_free_ struct net_device *devices = NULL;
	size_t n = 0;
	int r = net_place_devices(NULL, &devices, &n, err);

	if (r < 0)
		return r;
	g->ports = calloc(n + 1, sizeof(*g->ports));
	if (!g->ports)
		return error_set(err, ENOMEM, "no memory to list the ports of bridges");
	for (size_t i = 0; i < n; i++)
		if (devices[i].master)
			g->ports[g->n_ports++] =
				(struct capture_port){ .index = devices[i].index, .master = devices[i].master };
	return 0;
}

static const struct nft_verdict drop = { .action = NFT_ACTION_DROP };

static void add_silence(const struct net_guard *g, struct nft_batch *b)
{
	for (size_t i = 0; i < g->n_ports; i++)
		nft_rule_accept_device(b, g->table, CHAIN, g->ports[i].index);
	for (size_t i = 0; i < g->n; i++)
		nft_rule_link_source(b, g->table, CHAIN, g->list[i].mac, &drop);
}

/* Frames for it, which are kept as copies; a bridge that knows of no such port would flood them. Questions after its addresses pass: they are for everybody. */
static void add_hold(const struct net_guard *g, struct nft_batch *b)
{
	for (size_t i = 0; i < g->n; i++)
		nft_rule_link_destination(b, g->table, CHAIN, g->list[i].mac, &drop);
}

static void add_rules(const struct net_guard *g, enum phase phase, struct nft_batch *b)
{
	if (phase == PHASE_SILENT)
		add_silence(g, b);
	if (phase == PHASE_HOLDING)
		add_hold(g, b);
}

static int make_table(const struct net_guard *g, bool anew)
{
	const struct nft_chain chain = { .name = CHAIN, .hook = NF_BR_PRE_ROUTING, .priority = PRIORITY };
	_cleanup_nft_batch_ struct nft_batch b = { 0 };

	nft_begin(&b);
	b.family = NFPROTO_BRIDGE;
	if (anew)
		nft_replace_table(&b, g->table);
	else
		nft_create_table(&b, g->table);
	nft_add_chain(&b, g->table, &chain);
	add_rules(g, PHASE_SILENT, &b);
	return nft_commit(&b);
}

/* Only rules change: the hook stays, and with it what waits in any queue (docs/network.md). */
static int change(struct net_guard *g, enum phase phase)
{
	_cleanup_nft_batch_ struct nft_batch b = { 0 };
	int r;

	nft_begin(&b);
	b.family = NFPROTO_BRIDGE;
	nft_flush_chain(&b, g->table, CHAIN);
	add_rules(g, phase, &b);
	r = nft_commit(&b);
	if (!r)
		g->phase = phase;
	return r;
}

int net_guard_install(const char *id, const struct net_neighbour *list, size_t n, struct net_guard **ret,
		      struct error *err)
{
	struct net_guard *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return error_set(err, ENOMEM, "no memory to guard a container's network");
	g->fd = -1;
	g->phase = PHASE_SILENT;
	r = net_table_name(NET_HOLD_PREFIX, id, g->table, err);
	if (!r && n > NET_NEIGHBOURS_MAX)
		r = error_set(err, EINVAL, "a container has at most %d addresses, not %zu", NET_NEIGHBOURS_MAX, n);
	if (!r) {
		memcpy(g->list, list, n * sizeof(*list));
		g->n = n;
		r = list_ports(g, err);
	}
	if (!r) {
		r = make_table(g, false);
		r = r == -EEXIST ? make_table(g, true) : r;
		if (r < 0)
			error_errno(err, -r, "cannot install the nftables table bridge %s", g->table);
	}
	if (r < 0) {
		net_guard_free(g);
		return r;
	}
	*ret = g;
	return 0;
}

int net_guard_get_ready(struct net_guard *g, struct error *err)
{
	int r = g->fd >= 0 ? 0 : capture_open(&g->fd);

	return r < 0 ? error_errno(err, -r, "cannot make a packet socket to keep a container's frames") : 0;
}

int net_guard_hold(struct net_guard *g, struct error *err)
{
	int r;

	if (g->phase == PHASE_HOLDING)
		return 0;
	/* The copies first: what is kept and passes as well does no harm. */
	r = capture_begin(g->fd, g->ports, g->n_ports, g->list, g->n);
	if (!r)
		r = change(g, PHASE_HOLDING);
	return r < 0 ? error_errno(err, -r, "cannot keep a container's frames (nftables table bridge %s)", g->table)
		     : 0;
}

int net_guard_silence(struct net_guard *g, struct error *err)
{
	int r = g->phase == PHASE_SILENT ? 0 : change(g, PHASE_SILENT);

	if (!r && g->fd >= 0)
		r = capture_drop(g->fd);
	return r < 0 ? error_errno(err, -r, "cannot drop frames in the nftables table bridge %s", g->table) : 0;
}

/* The rules first: between them and the end of the copies a frame comes twice, the other way round it would be lost. */
int net_guard_lift(struct net_guard *g, const struct net_place *container, struct net_hold_counts *ret,
		   struct error *err)
{
	_cleanup_free_ struct net_device *devices = NULL;
	struct net_hold_counts counts = { 0 };
	size_t n = 0;
	int r;

	if (g->phase == PHASE_LIFTED)
		return 0;
	r = g->phase == PHASE_HOLDING ? net_place_devices(container, &devices, &n, err) : 0;
	if (r < 0)
		return r;
	r = change(g, PHASE_LIFTED);
	if (!r && g->fd >= 0)
		r = capture_deliver(g->fd, g->ports, g->n_ports, devices, n, &counts);
	if (r < 0)
		return error_errno(err, -r, "cannot let in what waits at the bridge (nftables table bridge %s)",
				   g->table);
	ret->packets += counts.packets;
	ret->bytes += counts.bytes;
	return 0;
}

bool net_guard_holds(const struct net_guard *g)
{
	return g && g->fd >= 0;
}

void net_guard_free(struct net_guard *g)
{
	struct error err = { 0 };

	if (!g)
		return;
	if (g->phase == PHASE_LIFTED && nft_remove_table(NFPROTO_BRIDGE, g->table, OTHERS_MS, &err) < 0)
		log_warning("%s", err.text);
	close_fd(&g->fd);
	free(g->ports);
	free(g);
}
