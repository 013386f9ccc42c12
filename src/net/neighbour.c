/*
 * Neighbours of a container, as the target has to know them before the container is there: see guard.h. No state; any thread.
 */
#include "net/guard.h"

#include <stdlib.h>
#include <string.h>

#include "net/net-internal.h"

int net_neighbours_announce(const char *bridge, const struct net_neighbour *list, size_t n, struct error *err)
{
	int r = net_announce(bridge, list, n);

	return r < 0 ? error_errno(err, -r, "cannot announce the container's addresses on %.15s", bridge) : 0;
}

static void add(struct net_neighbour *ret, size_t *n, const uint8_t mac[6], const struct net_address *a)
{
	struct net_neighbour *one = &ret[*n];

	if (*n >= NET_NEIGHBOURS_MAX)
		return;
	*one = (struct net_neighbour){ .family = a ? a->family : 0 };
	memcpy(one->mac, mac, sizeof(one->mac));
	if (a)
		memcpy(one->bytes, a->bytes, sizeof(one->bytes));
	(*n)++;
}

int net_place_neighbours(const struct net_place *place, struct net_neighbour ret[NET_NEIGHBOURS_MAX], size_t *ret_n,
			 struct error *err)
{
	_cleanup_free_ struct net_place_address *addresses = NULL;
	_cleanup_free_ struct net_device *devices = NULL;
	size_t n_addresses = 0, n_devices = 0, n = 0;
	int r = net_place_addresses(place, &addresses, &n_addresses, err);

	if (!r)
		r = net_place_devices(place, &devices, &n_devices, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_addresses; i++)
		if (addresses[i].has_mac && addresses[i].up)
			add(ret, &n, addresses[i].mac, &addresses[i].address);
	for (size_t i = 0; i < n_devices; i++) {
		bool known = !devices[i].has_mac || !devices[i].up || devices[i].loopback;

		for (size_t k = 0; k < n && !known; k++)
			known = !memcmp(ret[k].mac, devices[i].mac, sizeof(ret[k].mac));
		if (!known)
			add(ret, &n, devices[i].mac, NULL);
	}
	*ret_n = n;
	return 0;
}
