/*
 * Telling the neighbours where an address is now. See net.h. No state; any thread.
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
#include <netpacket/packet.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "net/net-internal.h"

#define REPEAT 3
#define HOP_LIMIT 255 /* anything else is ignored: RFC 4861, section 7.1.2 */

struct arp_packet {
	uint16_t hardware, protocol;
	uint8_t hardware_length, protocol_length;
	uint16_t operation;
	uint8_t sender_mac[ETH_ALEN], sender_ip[4];
	uint8_t target_mac[ETH_ALEN], target_ip[4];
} __attribute__((packed));

struct advertisement {
	struct nd_neighbor_advert head;
	struct nd_opt_hdr option;
	uint8_t mac[ETH_ALEN];
} __attribute__((packed));

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

static int announce_arp(const struct net_address *a, const uint8_t mac[ETH_ALEN])
{
	_cleanup_packet_ int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_ll to = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(ETH_P_ARP),
				  .sll_ifindex = (int)if_nametoindex(a->device),
				  .sll_halen = ETH_ALEN };
	struct arp_packet p = { .hardware = htons(ARPHRD_ETHER),
				.protocol = htons(ETH_P_IP),
				.hardware_length = ETH_ALEN,
				.protocol_length = 4 };

	if (fd < 0)
		return -errno;
	memset(to.sll_addr, 0xff, ETH_ALEN);
	memcpy(p.sender_mac, mac, ETH_ALEN);
	memcpy(p.sender_ip, a->bytes, 4);
	memcpy(p.target_ip, a->bytes, 4);
	for (int i = 0; i < 2 * REPEAT; i++) {
		bool reply = i % 2;

		p.operation = htons(reply ? ARPOP_REPLY : ARPOP_REQUEST);
		if (reply)
			memcpy(p.target_mac, mac, ETH_ALEN);
		else
			memset(p.target_mac, 0, ETH_ALEN);
		if (sendto(fd, &p, sizeof(p), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
			return -errno;
	}
	return 0;
}

static int announce_nd(const struct net_address *a, const uint8_t mac[ETH_ALEN])
{
	_cleanup_close_ int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6);
	int hops = HOP_LIMIT, device = (int)if_nametoindex(a->device);
	struct sockaddr_in6 from = { .sin6_family = AF_INET6, .sin6_scope_id = (uint32_t)device };
	struct sockaddr_in6 to = from;
	struct advertisement p = {
		.head = { .nd_na_hdr = { .icmp6_type = ND_NEIGHBOR_ADVERT } },
		.option = { .nd_opt_type = ND_OPT_TARGET_LINKADDR, .nd_opt_len = 1 },
	};

	p.head.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE;
	memcpy(&p.head.nd_na_target, a->bytes, 16);
	memcpy(p.mac, mac, ETH_ALEN);
	memcpy(&from.sin6_addr, a->bytes, 16);
	inet_pton(AF_INET6, "ff02::1", &to.sin6_addr);
	if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof(hops)) < 0 ||
	    setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &device, sizeof(device)) < 0 ||
	    bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0)
		return -errno;
	for (int i = 0; i < REPEAT; i++)
		if (sendto(fd, &p, sizeof(p), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
			return -errno;
	return 0;
}

int net_address_announce(const struct net_address *a, struct error *err)
{
	uint8_t mac[ETH_ALEN];
	char text[NET_ADDRESS_TEXT_MAX];
	int r = device_mac(a, mac, err);

	if (r <= 0)
		return r;
	r = a->family == AF_INET ? announce_arp(a, mac) : announce_nd(a, mac);
	if (!r)
		return 0;
	net_address_format(a, text);
	return error_errno(err, -r, "cannot announce the address %s", text);
}
