/*
 * See capture.h. No state besides the socket; one thread at a time.
 */
#include "net/capture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/array.h"
#include "base/fd.h"

#define CAPTURE_BYTES_MAX (32 << 20)
#define FRAME_BYTES_MAX (66 << 10) /* with what segmentation offload leaves together */
#define ARP_TARGET 38		   /* in the frame: RFC 826 */
#define KEEP 0xffffffffU

struct program {
	struct sock_filter *list;
	size_t n, room;
	bool failed;
};

static void put(struct program *p, uint16_t code, uint8_t yes, uint8_t no, uint32_t k)
{
	if (p->failed || array_grow(&p->list, p->n, &p->room, 64, sizeof(*p->list)) < 0) {
		p->failed = true;
		return;
	}
	p->list[p->n++] = (struct sock_filter){ .code = code, .jt = yes, .jf = no, .k = k };
}

static void put_load(struct program *p, uint16_t size, uint32_t offset)
{
	put(p, BPF_LD | BPF_ABS | size, 0, 0, offset);
}

/* Otherwise `skip` instructions further. */
static void put_unless_skip(struct program *p, uint32_t value, uint8_t skip)
{
	put(p, BPF_JMP | BPF_JEQ | BPF_K, 0, skip, value);
}

static void put_return(struct program *p, uint32_t bytes)
{
	put(p, BPF_RET | BPF_K, 0, 0, bytes);
}

static void put_destination(struct program *p, const uint8_t mac[6])
{
	put_load(p, BPF_W, 0);
	put_unless_skip(p, (uint32_t)mac[0] << 24 | (uint32_t)mac[1] << 16 | (uint32_t)mac[2] << 8 | mac[3], 3);
	put_load(p, BPF_H, 4);
	put_unless_skip(p, (uint32_t)mac[4] << 8 | mac[5], 1);
	put_return(p, KEEP);
}

static void put_neighbour(struct program *p, const struct net_neighbour *one)
{
	const uint8_t *b = one->bytes;
	const uint8_t solicited[6] = { 0x33, 0x33, 0xff, b[13], b[14], b[15] };

	put_destination(p, one->mac);
	if (one->family == AF_INET6)
		put_destination(p, solicited);
	if (one->family != AF_INET)
		return;
	put_load(p, BPF_H, 12);
	put_unless_skip(p, ETH_P_ARP, 3);
	put_load(p, BPF_W, ARP_TARGET);
	put_unless_skip(p, (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3], 1);
	put_return(p, KEEP);
}

/* Goes on if the device in hand is one of these: a "jump always" of 32 bits leads there, filled in at the end. */
static void put_devices(struct program *p, const struct capture_port *ports, size_t n, bool masters)
{
	put_load(p, BPF_W, (uint32_t)(SKF_AD_OFF + SKF_AD_IFINDEX));
	for (size_t i = 0; i < n; i++) {
		put_unless_skip(p, (uint32_t)(masters ? ports[i].master : ports[i].index), 1);
		put(p, BPF_JMP | BPF_JA, 0, 0, 0);
	}
	put_return(p, 0);
}

static void fill_jumps(struct program *p, size_t from, size_t to, size_t target)
{
	for (size_t i = from; i < to && !p->failed; i++)
		if (p->list[i].code == (BPF_JMP | BPF_JA))
			p->list[i].k = (uint32_t)(target - i - 1);
}

static int attach(int fd, struct program *p)
{
	struct sock_fprog f = { .len = (unsigned short)p->n, .filter = p->list };
	int r = p->failed ? -ENOMEM : p->n > BPF_MAXINSNS ? -E2BIG : 0;

	if (!r && setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &f, sizeof(f)) < 0)
		r = -errno;
	free(p->list);
	return r;
}

static int attach_nothing(int fd)
{
	struct program p = { 0 };

	put_return(&p, 0);
	return attach(fd, &p);
}

int capture_open(int *ret_fd)
{
	_cleanup_close_ int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_ll all = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int bytes = CAPTURE_BYTES_MAX / 2, on = 1, r; /* the kernel doubles it: socket(7) */

	if (fd < 0)
		return -errno;
	r = attach_nothing(fd);
	if (r < 0)
		return r;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&all, sizeof(all)) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int capture_begin(int fd, const struct capture_port *ports, size_t n_ports, const struct net_neighbour *list, size_t n)
{
	struct program p = { 0 };
	size_t out, end;

	put_load(&p, BPF_W, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE));
	put_unless_skip(&p, PACKET_OUTGOING, 1);
	put(&p, BPF_JMP | BPF_JA, 0, 0, 0);
	put_devices(&p, ports, n_ports, false);
	out = p.n;
	put_devices(&p, ports, n_ports, true);
	end = p.n;
	for (size_t i = 0; i < n; i++)
		put_neighbour(&p, &list[i]);
	put_return(&p, 0);
	fill_jumps(&p, 0, end, end);
	fill_jumps(&p, 0, 3, out);
	return attach(fd, &p);
}

/* Into the container, by the host's end of the device that it is for; a question for everybody by all that are on that bridge. */
static int deliver_one(int fd, const uint8_t *frame, size_t length, int master, const struct net_device *devices,
		       size_t n)
{
	const uint8_t *mac = frame + sizeof(struct virtio_net_hdr);
	int sent = 0;

	for (size_t i = 0; i < n; i++) {
		const struct net_device *d = &devices[i];
		struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_halen = ETH_ALEN };

		if (!d->host_end[0] || !d->has_mac || (int)if_nametoindex(d->bridge) != master ||
		    (!(mac[0] & 1) && memcmp(d->mac, mac, ETH_ALEN) != 0))
			continue;
		to.sll_ifindex = (int)if_nametoindex(d->host_end);
		memcpy(to.sll_addr, mac, ETH_ALEN);
		if (sendto(fd, frame, length, 0, (struct sockaddr *)&to, sizeof(to)) == (ssize_t)length)
			sent++;
	}
	return sent;
}

static int master_of(const struct capture_port *ports, size_t n, int index)
{
	for (size_t i = 0; i < n; i++)
		if (ports[i].index == index)
			return ports[i].master;
	return index; /* the bridge itself: this host's frames */
}

int capture_deliver(int fd, const struct capture_port *ports, size_t n_ports, const struct net_device *devices,
		    size_t n_devices, struct net_hold_counts *counts)
{
	_cleanup_free_ uint8_t *frame = malloc(FRAME_BYTES_MAX);
	int r = attach_nothing(fd);

	if (!frame)
		return -ENOMEM;
	while (!r) {
		struct sockaddr_ll from = { 0 };
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, frame, FRAME_BYTES_MAX, 0, (struct sockaddr *)&from, &size);

		if (n < 0 && errno != EINTR)
			r = errno == EAGAIN	? 1
			    : errno == ENETDOWN ? 0
						: -errno; /* some device of the host went down */
		if (n < (ssize_t)(sizeof(struct virtio_net_hdr) + ETH_HLEN))
			continue;
		if (!deliver_one(fd, frame, (size_t)n, master_of(ports, n_ports, from.sll_ifindex), devices, n_devices))
			continue;
		counts->packets++;
		counts->bytes += (uint64_t)n - sizeof(struct virtio_net_hdr);
	}
	return MIN(r, 0);
}

int capture_drop(int fd)
{
	char start[1];
	int r = attach_nothing(fd);

	while (!r && (recv(fd, start, sizeof(start), MSG_TRUNC) >= 0 || errno == EINTR || errno == ENETDOWN))
		;
	return r;
}
