/*
 * Devices up and down, over rtnetlink (libnl-route): see place.h. No state; any thread.
 */
#include <errno.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>

#include "net/net-internal.h"
#include "net/place.h"

int net_device_set_up(const char *name, bool up, struct error *err)
{
	struct nl_sock *socket = nl_socket_alloc();
	struct rtnl_link *link = NULL, *change = rtnl_link_alloc();
	int r = !socket || !change ? -NLE_NOMEM : nl_connect(socket, NETLINK_ROUTE);

	if (!r)
		r = rtnl_link_get_kernel(socket, 0, name, &link);
	if (!r && !(rtnl_link_get_flags(link) & IFF_UP) == up) {
		if (up)
			rtnl_link_set_flags(change, IFF_UP);
		else
			rtnl_link_unset_flags(change, IFF_UP);
		r = rtnl_link_change(socket, link, change, 0);
	}
	rtnl_link_put(link);
	rtnl_link_put(change);
	nl_socket_free(socket);
	return r < 0 ? error_errno(err, net_errno(r), "cannot set the device %s %s", name, up ? "up" : "down") : 0;
}
