/*
 * A network namespace to work in: a container's, or the caller's own. And what is in it: devices and addresses.
 *
 * Every function of net/ that takes a place does its work in that namespace and leaves the caller in its own: a short-lived thread
 * enters it. Needs CAP_SYS_ADMIN over that namespace. A place NULL is the caller's own namespace, without a thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "net/net.h"

struct net_place {
	int netns_fd; /* owned; -1: the caller's own namespace */
};

#define NET_PLACE_HERE ((struct net_place){ .netns_fd = -1 })
#define _cleanup_net_place_ _cleanup_(net_place_close)

/* Opens a namespace by a file that names it (/run/netns/NAME, /proc/PID/ns/net, Docker's SandboxKey) or by a process in it. The
 * namespace lives at least until net_place_close(), which takes NULL, and a place that is closed or HERE.
 * -EINVAL: no network namespace; -ESRCH, -ENOENT: not there. ret is untouched on failure. */
int net_place_open_path(const char *path, struct net_place *ret, struct error *err);
int net_place_open_pid(pid_t pid, struct net_place *ret, struct error *err);
void net_place_close(struct net_place *place);

/* 1: it is the caller's own namespace (a container with the host's network), 0: another one, or a negative errno. */
int net_place_is_own(const struct net_place *place, struct error *err);

/* Calls work(context, err) in the namespace and returns what it returns, or a negative errno where that cannot be entered. In another
 * namespace it runs in a thread of its own, with all signals blocked, while the caller waits: not for what blocks long. */
int net_place_call(const struct net_place *place, int (*work)(void *context, struct error *err), void *context,
		   struct error *err);

struct net_device {
	char name[IFNAMSIZ];
	int master;	 /* the index of the bridge that it is a port of, or of what else it belongs to; 0: none */
	int index, link; /* link: the other end's index, in its namespace, for veth; else what it is stacked on, or 0 */
	uint8_t mac[6];
	bool has_mac; /* Ethernet */
	bool up, loopback;
	char host_end[IFNAMSIZ]; /* the veth of the caller's own namespace that leads there, or "" */
	char bridge[IFNAMSIZ];	 /* that one is a port of, or "" */
};

struct net_place_address {
	struct net_address address; /* with the device's name */
	uint8_t mac[6];
	bool has_mac, up; /* of the device */
	bool link_local;  /* IPv6 fe80::/10, IPv4 169.254.0.0/16 */
	bool tentative;	  /* IPv6, duplicate address detection is under way or failed: not to be used yet */
};

/* What may be set there by /proc/sys/net/core, ipv4 and ipv6 (not of single devices), as lines "core/somaxconn=4096". Some milliseconds. */
int net_place_settings(const struct net_place *place, struct buffer *ret, struct error *err);

/* Both: an array that the caller frees, NULL for none, in the kernel's order. Loopback devices are listed, the addresses on them are not. */
int net_place_devices(const struct net_place *place, struct net_device **ret, size_t *ret_n, struct error *err);
int net_place_addresses(const struct net_place *place, struct net_place_address **ret, size_t *ret_n,
			struct error *err);

/* Sets a device of the caller's own namespace up or down; nothing happens to one that is so already. -ENODEV. */
int net_device_set_up(const char *name, bool up, struct error *err);

/* Announces every address of the namespace from inside, each on its device (net_address_announce()); devices that are down and those without
 * neighbours are passed over, and so are tentative addresses. Blocks for well under a millisecond per address. Tries all; the first failure. */
int net_announce_all(const struct net_place *place, struct error *err);
