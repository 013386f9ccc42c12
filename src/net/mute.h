/*
 * A container's network made silent: nothing leaves its devices, no answer to ARP, no frame from which a switch could learn.
 *
 * Which copy of a container is muted: the target's from the moment its devices exist until it takes over, the source's from the
 * freeze on, until the end or a rollback. It is done with nftables tables `phaul-mute-ID`, in that namespace: they outlive this
 * process, and whoever knows the id and the namespace can remove them.
 */
#pragma once

#include "net/place.h"

/* Nothing leaves any device but loopback from here on; what arrives is received as before. Mutes first what is there already: family
 * netdev, hook egress, every frame (Linux 5.16). In addition, for devices that come later and for kernels without that hook: families inet and arp, all that
 * the namespace sends or forwards. One of both is enough; -EOPNOTSUPP: the kernel has neither.
 * -EINVAL: the caller's own namespace, which nobody wants silent.
 * id: canonical UUID text. Idempotent: called again it looks at the devices anew. 0.6 ms; again: up to 40 ms, for the kernel's sake. Sending from
 * there fails meanwhile with ENOBUFS or EPERM, an announcement (net_announce_all()) too. */
int net_mute(const char *id, const struct net_place *place, struct error *err);

/* The same from outside, for a namespace that is not to be touched or cannot be entered: drops what comes out of `device` of
 * this place, the host's end of a container's veth (hook ingress). For several devices of one id: one call each. Idempotent. */
int net_mute_device(const char *id, const struct net_place *place, const char *device, struct error *err);

/* Takes back every mute in this namespace, whosever: a container that once moved away and comes back finds its old namespace muted. */
int net_unmute_all(const struct net_place *place, struct error *err);

/* Takes back whatever the two above did under this id in this namespace. Fine if nothing is there. 0.3 ms. At the target, unmute before packets
 * wait in a hold of that namespace: the kernel drops what waits when a hook goes. */
int net_unmute(const char *id, const struct net_place *place, struct error *err);
