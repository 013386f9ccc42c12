/*
 * Addresses on devices, over rtnetlink (libnl-route). See net.h, docs/network.md. No state: each call opens and
 * closes its own socket in the caller's network namespace; any thread.
 */
#include "net/net-internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <string.h>

static int parse_error(const char *text, struct error *err)
{
	return error_set(
		err, EINVAL,
		"\"%.80s\" is not an address to move: write ADDRESS/PREFIX@DEVICE, for example 10.77.0.100/24@eth0",
		text);
}

int net_address_parse(const char *text, struct net_address *ret, struct error *err)
{
	struct net_address a = { 0 };
	char address[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/'), *at = slash ? strchr(slash, '@') : NULL;
	long prefix;
	char *end;

	if (!at || slash == text || (size_t)(slash - text) >= sizeof(address))
		return parse_error(text, err);
	memcpy(address, text, (size_t)(slash - text));
	address[slash - text] = 0;
	a.family = strchr(address, ':') ? AF_INET6 : AF_INET;
	if (inet_pton(a.family, address, a.bytes) != 1)
		return parse_error(text, err);
	prefix = strtol(slash + 1, &end, 10);
	if (end != at || slash[1] < '0' || slash[1] > '9' || prefix < 1 || prefix > (a.family == AF_INET ? 32 : 128))
		return parse_error(text, err);
	if (!at[1] || strlen(at + 1) >= sizeof(a.device) || strpbrk(at + 1, "/ \t\n@"))
		return parse_error(text, err);
	a.prefix_length = (uint8_t)prefix;
	memcpy(a.device, at + 1, strlen(at + 1) + 1);
	*ret = a;
	return 0;
}

void net_address_format(const struct net_address *a, char text[NET_ADDRESS_TEXT_MAX])
{
	char address[INET6_ADDRSTRLEN] = "?";

	inet_ntop(a->family, a->bytes, address, sizeof(address));
	snprintf(text, NET_ADDRESS_TEXT_MAX, "%s/%u@%.15s", address, a->prefix_length, a->device);
}

int net_errno(int nle)
{
	switch (nle < 0 ? -nle : nle) {
	case NLE_PERM:
	case NLE_NOACCESS:
		return EPERM;
	case NLE_NOMEM:
		return ENOMEM;
	case NLE_NODEV:
	case NLE_OBJ_NOTFOUND:
		return ENODEV;
	case NLE_INVAL:
		return EINVAL;
	case NLE_OPNOTSUPP:
		return EOPNOTSUPP;
	default:
		return EIO;
	}
}

static int device_index(const struct net_address *a, int *ret, struct error *err)
{
	unsigned int index = if_nametoindex(a->device);

	if (!index)
		return error_set(err, ENODEV, "there is no network device %s on this host", a->device);
	*ret = (int)index;
	return 0;
}

static int route_socket(struct nl_sock **ret, struct error *err)
{
	struct nl_sock *s = nl_socket_alloc();
	int r = s ? nl_connect(s, NETLINK_ROUTE) : -NLE_NOMEM;

	if (r < 0) {
		nl_socket_free(s);
		return error_set(err, net_errno(r), "cannot talk to the kernel's routing: %s", nl_geterror(r));
	}
	*ret = s;
	return 0;
}

/* The same address in libnl's words. */
static int route_address(const struct net_address *a, int index, struct rtnl_addr **ret)
{
	struct nl_addr *local = nl_addr_build(a->family, a->bytes, a->family == AF_INET ? 4 : 16);
	struct rtnl_addr *address = rtnl_addr_alloc();
	int r = -NLE_NOMEM;

	if (local && address) {
		nl_addr_set_prefixlen(local, a->prefix_length);
		rtnl_addr_set_ifindex(address, index);
		r = rtnl_addr_set_local(address, local);
		/* Duplicate address detection takes a second, in which nothing could be bound; and the source has given it up. */
		if (!r && a->family == AF_INET6)
			rtnl_addr_set_flags(address, IFA_F_NODAD);
	}
	nl_addr_put(local);
	if (r < 0) {
		rtnl_addr_put(address);
		return r;
	}
	*ret = address;
	return 0;
}

static int change(const struct net_address *a, bool add, struct error *err)
{
	struct nl_sock *s = NULL;
	struct rtnl_addr *address = NULL;
	char text[NET_ADDRESS_TEXT_MAX];
	struct error missing = { 0 };
	int index = 0, r = device_index(a, &index, &missing);

	if (r < 0 && !add)
		return 0; /* gone with its device */
	if (r < 0)
		return error_set(err, ENODEV, "%s", missing.text);
	r = route_socket(&s, err);
	if (r < 0)
		return r;
	r = route_address(a, index, &address);
	if (!r)
		r = add ? rtnl_addr_add(s, address, NLM_F_EXCL) : rtnl_addr_delete(s, address, 0);
	if ((add && r == -NLE_EXIST) || (!add && r == -NLE_NOADDR))
		r = 0;
	rtnl_addr_put(address);
	nl_socket_free(s);
	if (!r)
		return 0;
	net_address_format(a, text);
	return error_set(err, net_errno(r), "cannot %s the address %s: %s", add ? "add" : "remove", text,
			 nl_geterror(r));
}

int net_address_add(const struct net_address *a, struct error *err)
{
	return change(a, true, err);
}

int net_address_remove(const struct net_address *a, struct error *err)
{
	return change(a, false, err);
}

struct search {
	const struct net_address *a;
	int index;
	bool found;
};

static void compare_one(struct nl_object *object, void *context)
{
	struct search *s = context;
	struct rtnl_addr *address = (struct rtnl_addr *)object;
	struct nl_addr *local = rtnl_addr_get_local(address);
	size_t length = s->a->family == AF_INET ? 4 : 16;

	if (local && rtnl_addr_get_ifindex(address) == s->index && rtnl_addr_get_family(address) == s->a->family &&
	    nl_addr_get_len(local) == length && !memcmp(nl_addr_get_binary_addr(local), s->a->bytes, length) &&
	    rtnl_addr_get_prefixlen(address) == s->a->prefix_length)
		s->found = true;
}

int net_address_present(const struct net_address *a, struct error *err)
{
	struct search search = { .a = a };
	struct nl_cache *cache = NULL;
	struct nl_sock *s = NULL;
	int r = device_index(a, &search.index, err);

	if (!r)
		r = route_socket(&s, err);
	if (r < 0)
		return r;
	r = rtnl_addr_alloc_cache(s, &cache);
	if (r < 0) {
		nl_socket_free(s);
		return error_set(err, net_errno(r), "cannot list the addresses of this host: %s", nl_geterror(r));
	}
	nl_cache_foreach(cache, compare_one, &search);
	nl_cache_free(cache);
	nl_socket_free(s);
	return search.found;
}
