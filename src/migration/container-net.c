/*
 * A container's network on the two sides of a move: see container-net.h. Threads: the caller's.
 */
#include "migration/container-net.h"

#include <errno.h>
#include <stdlib.h>

#include "net/mute.h"

int container_net_open(const struct driver_ops *driver, const struct workload *w, const struct driver_place *place,
		       struct container_net *ret, struct error *err)
{
	struct container_net n = CONTAINER_NET_NONE;
	int r = driver->network ? driver->network(w, place, &n.place.netns_fd, err) : -ENOENT;

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	r = net_place_is_own(&n.place, err);
	if (r) {
		net_place_close(&n.place);
		return r < 0 ? r : 0;
	}
	n.known = true;
	*ret = n;
	return 0;
}

int container_net_open_pid(pid_t pid, struct container_net *ret, struct error *err)
{
	struct container_net n = CONTAINER_NET_NONE;
	int r = net_place_open_pid(pid, &n.place, err);

	if (!r)
		r = net_place_is_own(&n.place, err);
	if (r) {
		net_place_close(&n.place);
		return r < 0 ? r : 0;
	}
	n.known = true;
	*ret = n;
	return 0;
}

void container_net_free(struct container_net *n)
{
	net_hold_free(TAKE_PTR(n->hold));
	net_place_close(&n->place);
	n->known = false;
}

int container_net_settings(const struct driver_ops *driver, const struct workload *w, struct buffer *ret,
			   struct error *err)
{
	struct container_net net = CONTAINER_NET_NONE;
	int r = 0;

	if (!driver->restore || driver->capabilities & DRIVER_NETWORK_GIVEN)
		return 0;
	r = container_net_open(driver, w, NULL, &net, err);
	if (!r && net.known)
		r = net_place_settings(&net.place, ret, err);
	container_net_free(&net);
	return r;
}

int container_net_leave(struct container_net *n, const char *id, struct error *err)
{
	return n->known ? net_mute(id, &n->place, err) : 0;
}

/* The host's ends of all its veths. */
static int plug(const struct container_net *n, bool in, struct error *err)
{
	_cleanup_free_ struct net_device *devices = NULL;
	size_t count = 0;
	int r = net_place_devices(&n->place, &devices, &count, err);

	for (size_t i = 0; i < count && !r; i++)
		if (devices[i].host_end[0])
			r = net_device_set_up(devices[i].host_end, in, err);
	return r;
}

int container_net_return(struct container_net *n, const char *id, struct error *err)
{
	int r;

	if (!n->known)
		return 0;
	r = plug(n, true, err);
	if (!r)
		r = net_unmute(id, &n->place, err);
	return r < 0 ? r : net_announce_all(&n->place, err);
}

int container_net_gone(struct container_net *n, const char *id, struct error *err)
{
	int r, result;

	if (!n->known)
		return 0;
	result = plug(n, false, err);
	net_hold_free(TAKE_PTR(n->hold));
	r = net_hold_remove(id, &n->place, err);
	if (!r)
		r = net_unmute(id, &n->place, err);
	return r < 0 ? r : result;
}

int container_net_arm(struct container_net *n, const char *id, struct error *err)
{
	int r;

	if (!n->known || n->hold)
		return 0;
	r = net_mute(id, &n->place, err);
	if (!r)
		r = net_hold_install(id, &n->place, NULL, 0, &n->hold, err);
	/* Long before it has something to say: a link that has just come up loses its first frames. */
	return r < 0 ? r : plug(n, true, err);
}

int container_net_take(struct container_net *n, const char *id, struct error *err)
{
	/* Before anything waits: the kernel drops what waits when a hook goes. */
	return container_net_return(n, id, err);
}

int container_net_release(struct container_net *n, struct net_hold_counts *counts, struct error *err)
{
	struct net_hold_counts mine = { 0 };
	int r = n->hold ? net_hold_release(n->hold, &mine, err) : 0;

	counts->packets += mine.packets;
	counts->bytes += mine.bytes;
	return r;
}
