/*
 * The devices and addresses of a network namespace, over rtnetlink (libnl-route): see place.h. No state; any thread.
 */
#include <errno.h>
#include <linux/if_addr.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "net/place.h"

struct list {
	struct net_device *devices;
	size_t n_devices, devices_room;
	struct net_place_address *addresses;
	size_t n_addresses, addresses_room;
	bool want_addresses;
	int failed;
};

static void take_link(struct nl_object *object, void *context)
{
	struct rtnl_link *link = (struct rtnl_link *)object;
	struct nl_addr *mac = rtnl_link_get_addr(link);
	unsigned int flags = rtnl_link_get_flags(link);
	const char *name = rtnl_link_get_name(link);
	struct list *l = context;
	struct net_device d = { .index = rtnl_link_get_ifindex(link),
				.link = rtnl_link_get_link(link),
				.master = rtnl_link_get_master(link),
				.up = flags & IFF_UP,
				.loopback = flags & IFF_LOOPBACK };

	if (l->failed || array_grow(&l->devices, l->n_devices, &l->devices_room, 8, sizeof(d)) < 0) {
		l->failed = -ENOMEM;
		return;
	}
	snprintf(d.name, sizeof(d.name), "%s", name ? name : "");
	d.has_mac = rtnl_link_get_arptype(link) == ARPHRD_ETHER && mac && nl_addr_get_len(mac) == sizeof(d.mac);
	if (d.has_mac)
		memcpy(d.mac, nl_addr_get_binary_addr(mac), sizeof(d.mac));
	l->devices[l->n_devices++] = d;
}

static bool is_link_local(const struct net_address *a)
{
	return a->family == AF_INET ? a->bytes[0] == 169 && a->bytes[1] == 254
				    : a->bytes[0] == 0xfe && (a->bytes[1] & 0xc0) == 0x80;
}

static const struct net_device *device_of(const struct list *l, int index)
{
	for (size_t i = 0; i < l->n_devices; i++)
		if (l->devices[i].index == index)
			return &l->devices[i];
	return NULL;
}

static void take_address(struct nl_object *object, void *context)
{
	struct rtnl_addr *address = (struct rtnl_addr *)object;
	struct nl_addr *local = rtnl_addr_get_local(address);
	int family = rtnl_addr_get_family(address);
	struct net_place_address a = { .address = { .family = family } };
	const struct net_device *device;
	struct list *l = context;
	size_t length = family == AF_INET ? 4 : 16;

	device = device_of(l, rtnl_addr_get_ifindex(address));
	if (!device || device->loopback || (family != AF_INET && family != AF_INET6) || !local ||
	    nl_addr_get_len(local) != length)
		return;
	if (l->failed || array_grow(&l->addresses, l->n_addresses, &l->addresses_room, 8, sizeof(a)) < 0) {
		l->failed = -ENOMEM;
		return;
	}
	memcpy(a.address.bytes, nl_addr_get_binary_addr(local), length);
	memcpy(a.address.device, device->name, sizeof(device->name));
	memcpy(a.mac, device->mac, sizeof(a.mac));
	a.address.prefix_length = (uint8_t)rtnl_addr_get_prefixlen(address);
	a.has_mac = device->has_mac;
	a.up = device->up;
	a.tentative = rtnl_addr_get_flags(address) & (IFA_F_TENTATIVE | IFA_F_DADFAILED);
	a.link_local = is_link_local(&a.address);
	l->addresses[l->n_addresses++] = a;
}

static int list_all(void *context, struct error *err)
{
	struct list *l = context;
	struct nl_sock *s = nl_socket_alloc();
	struct nl_cache *links = NULL, *addresses = NULL;
	int r = s ? nl_connect(s, NETLINK_ROUTE) : -NLE_NOMEM;

	if (!r)
		r = rtnl_link_alloc_cache(s, AF_UNSPEC, &links);
	if (!r)
		nl_cache_foreach(links, take_link, l);
	if (!r && l->want_addresses)
		r = rtnl_addr_alloc_cache(s, &addresses);
	if (!r && addresses)
		nl_cache_foreach(addresses, take_address, l);
	nl_cache_free(addresses);
	nl_cache_free(links);
	nl_socket_free(s);
	if (r < 0)
		return error_set(err, EIO, "cannot list the devices and addresses of a network namespace: %s",
				 nl_geterror(r));
	return l->failed ? error_set(err, ENOMEM, "no memory to list network devices") : 0;
}

/* A veth of the caller's namespace whose other end has that index. Indices repeat across namespaces: the device there must name ours, too. */
static void find_host_end(struct net_device *d, struct nl_cache *here)
{
	struct rtnl_link *end = d->link ? rtnl_link_get(here, d->link) : NULL;
	const char *type = end ? rtnl_link_get_type(end) : NULL, *name;
	struct rtnl_link *bridge;

	if (type && !strcmp(type, "veth") && rtnl_link_get_link(end) == d->index) {
		name = rtnl_link_get_name(end);
		snprintf(d->host_end, sizeof(d->host_end), "%s", name ? name : "");
		bridge = rtnl_link_get_master(end) ? rtnl_link_get(here, rtnl_link_get_master(end)) : NULL;
		name = bridge ? rtnl_link_get_name(bridge) : NULL;
		snprintf(d->bridge, sizeof(d->bridge), "%s", name ? name : "");
		rtnl_link_put(bridge);
	}
	rtnl_link_put(end);
}

static int find_host_ends(struct list *l, struct error *err)
{
	struct nl_sock *s = nl_socket_alloc();
	struct nl_cache *here = NULL;
	int r = s ? nl_connect(s, NETLINK_ROUTE) : -NLE_NOMEM;

	if (!r)
		r = rtnl_link_alloc_cache(s, AF_UNSPEC, &here);
	for (size_t i = 0; !r && i < l->n_devices; i++)
		find_host_end(&l->devices[i], here);
	nl_cache_free(here);
	nl_socket_free(s);
	return r < 0 ? error_set(err, EIO, "cannot list the network devices of this host: %s", nl_geterror(r)) : 0;
}

int net_place_devices(const struct net_place *place, struct net_device **ret, size_t *ret_n, struct error *err)
{
	struct list l = { 0 };
	int own = net_place_is_own(place, err);
	int r = own < 0 ? own : net_place_call(place, list_all, &l, err);

	if (!r && !own)
		r = find_host_ends(&l, err);
	if (r < 0) {
		free(l.devices);
		return r;
	}
	*ret = l.devices;
	*ret_n = l.n_devices;
	return 0;
}

int net_place_addresses(const struct net_place *place, struct net_place_address **ret, size_t *ret_n, struct error *err)
{
	struct list l = { .want_addresses = true };
	int r = net_place_call(place, list_all, &l, err);

	free(l.devices);
	if (r < 0) {
		free(l.addresses);
		return r;
	}
	*ret = l.addresses;
	*ret_n = l.n_addresses;
	return 0;
}
