/*
 * Service addresses that follow a workload: added, announced, given back. hold.h makes what arrives for them wait, mute.h keeps a
 * container silent, place.h leads into other network namespaces.
 *
 * Everything is in the network namespace of the caller. Names of what is made carry the migration's id, so that it
 * can be found and removed after a crash; every remove of something missing is a success.
 */
#pragma once

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct net_address {
	int family;	   /* AF_INET, AF_INET6 */
	uint8_t bytes[16]; /* network order; 4 used for AF_INET */
	uint8_t prefix_length;
	char device[IFNAMSIZ];
};

#define NET_ADDRESS_TEXT_MAX 96

/* "10.77.0.100/24@eth0", "fd77::100/64@eth0". -EINVAL with a sentence. */
int net_address_parse(const char *text, struct net_address *ret, struct error *err);
void net_address_format(const struct net_address *a, char text[NET_ADDRESS_TEXT_MAX]);

/* 1 present on that device, 0 not, negative: no such device and other failures. */
int net_address_present(const struct net_address *a, struct error *err);
/* 0 also when it is there / gone already. IPv6 without duplicate address detection. */
int net_address_add(const struct net_address *a, struct error *err);
int net_address_remove(const struct net_address *a, struct error *err);

/* Tells the neighbours: gratuitous ARP (request and reply), unsolicited neighbour advertisement with override. */
int net_address_announce(const struct net_address *a, struct error *err);

struct net_place;

/* What CRIU leaves behind (engines.md, Network): removes its table `inet CRIU-...`, which criu/ names from the run's log
 * (criu_network_table()), from that namespace; NULL: the caller's. -EINVAL: that is no name CRIU gives. Fine if there is none. */
int net_criu_table_remove(const char *table, const struct net_place *place, struct error *err);
