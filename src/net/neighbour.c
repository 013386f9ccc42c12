/*
 * Neighbours of a container, as the target has to know them before the container is there: see guard.h. No state; any thread.
 *
 * The frames are those of announce.c, but whole: their source is not the device that sends them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <netpacket/packet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "net/guard.h"
#include "net/net-internal.h"

#define REPEAT 3
#define HOP_LIMIT 255

struct arp_frame {
	struct ether_header head;
	struct arphdr arp;
	uint8_t sender_mac[ETH_ALEN], sender_ip[4];
	uint8_t target_mac[ETH_ALEN], target_ip[4];
} __attribute__((packed));

struct advertisement_frame {
	struct ether_header head;
	struct ip6_hdr ip;
	struct nd_neighbor_advert advert;
	struct nd_opt_hdr option;
	uint8_t mac[ETH_ALEN];
} __attribute__((packed));

static int send_frame(int fd, int index, const void *frame, size_t length)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = index, .sll_halen = ETH_ALEN };

	memcpy(to.sll_addr, frame, ETH_ALEN);
	return sendto(fd, frame, length, 0, (struct sockaddr *)&to, sizeof(to)) < 0 ? -errno : 0;
}

static int send_arp(int fd, int index, const struct net_neighbour *one)
{
	struct arp_frame f = { .head.ether_type = htons(ETHERTYPE_ARP),
			       .arp = { .ar_hrd = htons(ARPHRD_ETHER),
					.ar_pro = htons(ETHERTYPE_IP),
					.ar_hln = ETH_ALEN,
					.ar_pln = 4,
					.ar_op = htons(ARPOP_REQUEST) } };
	int r;

	memset(f.head.ether_dhost, 0xff, ETH_ALEN);
	memcpy(f.head.ether_shost, one->mac, ETH_ALEN);
	memcpy(f.sender_mac, one->mac, ETH_ALEN);
	memcpy(f.sender_ip, one->bytes, 4);
	memcpy(f.target_ip, one->bytes, 4);
	r = send_frame(fd, index, &f, sizeof(f));
	if (r < 0)
		return r;
	f.arp.ar_op = htons(ARPOP_REPLY);
	memcpy(f.target_mac, one->mac, ETH_ALEN);
	return send_frame(fd, index, &f, sizeof(f));
}

/* RFC 1071, over bytes in network order. */
static uint32_t sum_up(uint32_t sum, const void *data, size_t length)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i + 1 < length; i += 2)
		sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
	return sum;
}

static int send_advertisement(int fd, int index, const struct net_neighbour *one)
{
	struct advertisement_frame f = {
		.head = { .ether_dhost = { 0x33, 0x33, 0, 0, 0, 1 }, .ether_type = htons(ETHERTYPE_IPV6) },
		.advert.nd_na_hdr = { .icmp6_type = ND_NEIGHBOR_ADVERT },
		.option = { .nd_opt_type = ND_OPT_TARGET_LINKADDR, .nd_opt_len = 1 },
	};
	const size_t body = sizeof(f) - offsetof(struct advertisement_frame, advert);
	struct nd_neighbor_advert advert = f.advert;
	uint32_t sum = IPPROTO_ICMPV6 + (uint32_t)body;

	memcpy(f.head.ether_shost, one->mac, ETH_ALEN);
	f.ip.ip6_vfc = 6 << 4;
	f.ip.ip6_plen = htons((uint16_t)body);
	f.ip.ip6_nxt = IPPROTO_ICMPV6;
	f.ip.ip6_hlim = HOP_LIMIT;
	memcpy((char *)&f + offsetof(struct advertisement_frame, ip.ip6_src), one->bytes, 16);
	inet_pton(AF_INET6, "ff02::1", (char *)&f + offsetof(struct advertisement_frame, ip.ip6_dst));
	advert.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE;
	memcpy(&advert.nd_na_target, one->bytes, 16);
	f.advert = advert;
	memcpy(f.mac, one->mac, ETH_ALEN);
	sum = sum_up(sum, (const char *)&f + offsetof(struct advertisement_frame, ip.ip6_src), 32);
	sum = sum_up(sum, (const char *)&f + offsetof(struct advertisement_frame, advert), body);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	f.advert.nd_na_hdr.icmp6_cksum = htons((uint16_t)~sum);
	return send_frame(fd, index, &f, sizeof(f));
}

int net_neighbours_announce(const char *bridge, const struct net_neighbour *list, size_t n, struct error *err)
{
	_cleanup_packet_ int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	int index = (int)if_nametoindex(bridge), first = 0;

	if (!index)
		return error_set(err, ENODEV, "there is no network device %.15s on this host", bridge);
	if (fd < 0)
		return error_errno(err, errno, "cannot make a packet socket");
	for (size_t i = 0; i < n * REPEAT; i++) {
		const struct net_neighbour *one = &list[i % n];
		int r = one->family == AF_INET	  ? send_arp(fd, index, one)
			: one->family == AF_INET6 ? send_advertisement(fd, index, one)
						  : 0;

		first = first ? first : r;
	}
	return first < 0 ? error_errno(err, -first, "cannot announce the container's addresses on %.15s", bridge) : 0;
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
