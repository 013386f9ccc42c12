/*
 * Telling the neighbours where an address is now. See net.h and net-internal.h. No state; any thread.
 *
 * Whole frames, since their source is not always a device of this host: a container that is not there yet is announced, too.
 *
 * IPv4: gratuitous ARP, a request and a reply, since hosts differ in which of the two they believe (RFC 5227, section 3;
 * arp_accept in ip-sysctl). IPv6: an unsolicited neighbour advertisement with the override flag to all nodes (RFC 4861,
 * section 7.2.6). All of it REPEAT times, because nobody acknowledges it.
 */
#include "net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <netpacket/packet.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "net/net-internal.h"

#define REPEAT 3
#define HOP_LIMIT 255 /* anything else is ignored: RFC 4861, section 7.1.2 */

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

/* 1 and the address, or 0 for a device whose neighbours need not be told (loopback, tunnels). */
static int device_mac(const struct net_address *a, uint8_t mac[ETH_ALEN], struct error *err)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { 0 };

	memcpy(request.ifr_name, a->device, sizeof(request.ifr_name));
	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return error_errno(err, errno, "cannot ask for the state of the network device %s", a->device);
	if (request.ifr_flags & (IFF_NOARP | IFF_LOOPBACK))
		return 0;
	if (!(request.ifr_flags & IFF_UP))
		return error_set(err, ENETDOWN, "the network device %s is down: an address on it cannot be announced",
				 a->device);
	if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		return error_errno(err, errno, "cannot ask for the hardware address of %s", a->device);
	if (request.ifr_hwaddr.sa_family != ARPHRD_ETHER)
		return 0;
	memcpy(mac, request.ifr_hwaddr.sa_data, ETH_ALEN);
	return 1;
}

int net_announce(const char *device, const struct net_neighbour *list, size_t n)
{
	_cleanup_packet_ int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	int index = (int)if_nametoindex(device), first = 0;

	if (fd < 0 || !index)
		return -errno;
	for (size_t i = 0; i < n * REPEAT; i++) {
		const struct net_neighbour *one = &list[i % n];
		int r = one->family == AF_INET	  ? send_arp(fd, index, one)
			: one->family == AF_INET6 ? send_advertisement(fd, index, one)
						  : 0;

		first = first ? first : r;
	}
	return first;
}

/* Nothing may be said in the name of an address that this host does not have. */
static int check_ours(const struct net_address *a)
{
	_cleanup_close_ int fd = socket(a->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_scope_id = if_nametoindex(a->device) };
	bool is_v4 = a->family == AF_INET;

	memcpy(&v4.sin_addr, a->bytes, sizeof(v4.sin_addr));
	memcpy(&v6.sin6_addr, a->bytes, sizeof(v6.sin6_addr));
	if (fd < 0 ||
	    bind(fd, is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, is_v4 ? sizeof(v4) : sizeof(v6)) < 0)
		return -errno;
	return 0;
}

int net_address_announce(const struct net_address *a, struct error *err)
{
	struct net_neighbour self = { .family = a->family };
	char text[NET_ADDRESS_TEXT_MAX];
	int r = device_mac(a, self.mac, err);

	if (r <= 0)
		return r;
	memcpy(self.bytes, a->bytes, sizeof(self.bytes));
	r = check_ours(a);
	if (!r)
		r = net_announce(a->device, &self, 1);
	if (!r)
		return 0;
	net_address_format(a, text);
	return error_errno(err, -r, "cannot announce the address %s", text);
}
