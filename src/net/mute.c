/*
 * See mute.h. No state; any thread.
 *
 * Chains of family netdev see every frame, but only of devices that are there; those of inet and arp see what the namespace's own
 * stack makes, on any device. Postrouting rather than output: what the namespace forwards leaves it too.
 */
#include "net/mute.h"

#include <errno.h>
#include <netinet/in.h> /* before linux/netfilter.h */
#include <linux/netfilter.h>
#include <linux/netfilter_arp.h>
#include <string.h>

#include "net/names.h"
#include "net/nft-internal.h"

#define PRIORITY (-400)
#define CHAIN_NAME_MAX 32

struct mute {
	const char *table;
	const struct net_device *devices;
	size_t n_devices;
	const char *device; /* only this one, from outside */
};

static const uint8_t families[] = { NFPROTO_NETDEV, NFPROTO_INET, NFPROTO_ARP };

static void add_device_chain(struct nft_batch *b, const char *table, const char *device, uint32_t hook)
{
	char name[CHAIN_NAME_MAX];

	snprintf(name, sizeof(name), "%s-%s", hook == NF_NETDEV_EGRESS ? "out" : "in", device);
	nft_add_chain(b, table,
		      &(struct nft_chain){
			      .name = name, .hook = hook, .priority = PRIORITY, .device = device, .drops = true });
}

/* The first time nothing need be deleted, which would make the next transaction wait. */
static void make_table(struct nft_batch *b, uint8_t family, const char *table, bool anew)
{
	b->family = family;
	if (anew)
		nft_replace_table(b, table);
	else
		nft_create_table(b, table);
}

static int mute_devices(const struct mute *m, int fd, bool anew)
{
	_cleanup_nft_batch_ struct nft_batch b = { 0 };

	nft_begin(&b);
	make_table(&b, NFPROTO_NETDEV, m->table, anew);
	for (size_t i = 0; i < m->n_devices; i++)
		if (!m->devices[i].loopback)
			add_device_chain(&b, m->table, m->devices[i].name, NF_NETDEV_EGRESS);
	return nft_commit_on(fd, &b);
}

static int mute_stack(const struct mute *m, int fd, bool anew)
{
	_cleanup_nft_batch_ struct nft_batch b = { 0 };

	nft_begin(&b);
	make_table(&b, NFPROTO_INET, m->table, anew);
	nft_add_chain(&b, m->table,
		      &(struct nft_chain){
			      .name = "out", .hook = NF_INET_POST_ROUTING, .priority = PRIORITY, .drops = true });
	nft_rule_accept_loopback(&b, m->table, "out", true);
	make_table(&b, NFPROTO_ARP, m->table, anew);
	nft_add_chain(&b, m->table,
		      &(struct nft_chain){ .name = "out", .hook = NF_ARP_OUT, .priority = PRIORITY, .drops = true });
	return nft_commit_on(fd, &b);
}

static int mute_here(void *context, struct error *err)
{
	const struct mute *m = context;
	int fd = nft_socket_open(), by_device, by_stack;

	if (fd < 0)
		return error_errno(err, -fd, "cannot talk to the kernel's netfilter");
	by_device = mute_devices(m, fd, false);
	if (by_device == -EEXIST)
		by_device = mute_devices(m, fd, true);
	by_stack = mute_stack(m, fd, false);
	if (by_stack == -EEXIST)
		by_stack = mute_stack(m, fd, true);
	nft_close_aside(fd);
	if (by_device < 0 && by_stack < 0)
		return error_errno(
			err, -by_device,
			"cannot keep a network namespace silent: nftables hook egress is refused, and so are "
			"families inet and arp (%s)",
			strerror(-by_stack));
	return 0;
}

int net_mute(const char *id, const struct net_place *place, struct error *err)
{
	_cleanup_free_ struct net_device *devices = NULL;
	char table[NET_TABLE_NAME_MAX];
	struct mute m = { .table = table };
	int r = net_table_name(NET_MUTE_PREFIX, id, table, err), own = net_place_is_own(place, err);

	if (!r && own == 1)
		return error_set(err, EINVAL, "the host's own network namespace cannot be silenced");
	if (!r)
		r = MIN(own, 0);
	if (!r)
		r = net_place_devices(place, &devices, &m.n_devices, err);
	m.devices = devices;
	return r < 0 ? r : net_place_call(place, mute_here, &m, err);
}

static int mute_one(void *context, struct error *err)
{
	_cleanup_nft_batch_ struct nft_batch b = { 0 };
	const struct mute *m = context;
	int r;

	if (!if_nametoindex(m->device)) /* which not every kernel minds */
		return error_set(err, ENODEV, "there is no network device %s on this host", m->device);
	nft_begin(&b);
	b.family = NFPROTO_NETDEV;
	nft_add_table(&b, m->table);
	add_device_chain(&b, m->table, m->device, NF_NETDEV_INGRESS);
	r = nft_commit(&b);
	if (r < 0)
		return error_errno(err, -r, "cannot silence the network device %s", m->device);
	return 0;
}

int net_mute_device(const char *id, const struct net_place *place, const char *device, struct error *err)
{
	char table[NET_TABLE_NAME_MAX];
	struct mute m = { .table = table, .device = device };
	int r = net_table_name(NET_MUTE_PREFIX, id, table, err);

	if (!r && (!device[0] || strlen(device) >= IFNAMSIZ))
		r = error_set(err, EINVAL, "\"%.32s\" is not the name of a network device", device);
	return r < 0 ? r : net_place_call(place, mute_one, &m, err);
}

static int unmute_here(void *context, struct error *err)
{
	const struct mute *m = context;
	int fd = nft_socket_open(), first = 0;

	if (fd < 0)
		return error_errno(err, -fd, "cannot talk to the kernel's netfilter");
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		_cleanup_nft_batch_ struct nft_batch b = { 0 };
		int r;

		nft_begin(&b);
		b.family = families[i];
		nft_delete_table(&b, m->table);
		r = nft_commit_on(fd, &b);
		/* A family that the kernel lacks has no tables. */
		if (r < 0 && r != -ENOENT && r != -EOPNOTSUPP && r != -EAFNOSUPPORT && !first)
			first = error_errno(err, -r, "cannot remove the nftables table %s", m->table);
	}
	nft_close_aside(fd);
	return first;
}

int net_unmute(const char *id, const struct net_place *place, struct error *err)
{
	char table[NET_TABLE_NAME_MAX];
	struct mute m = { .table = table };
	int r = net_table_name(NET_MUTE_PREFIX, id, table, err);

	return r < 0 ? r : net_place_call(place, unmute_here, &m, err);
}

static int list_mutes(void *context, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		int r = nft_list_tables(families[i], NET_MUTE_PREFIX, context);

		if (r < 0 && r != -EOPNOTSUPP && r != -EAFNOSUPPORT && r != -ENOENT)
			return error_errno(err, -r, "cannot list the nftables tables");
	}
	return buffer_append(context, "", 1) < 0 ? error_set(err, ENOMEM, "no memory to list nftables tables") : 0;
}

int net_unmute_all(const struct net_place *place, struct error *err)
{
	_cleanup_buffer_ struct buffer names = { 0 };
	char *save = NULL;
	int r = net_place_call(place, list_mutes, &names, err);

	for (char *name = r ? NULL : strtok_r((char *)names.data, "\n", &save); name && !r;
	     name = strtok_r(NULL, "\n", &save))
		r = net_place_call(place, unmute_here, &(struct mute){ .table = name }, err);
	return r;
}
