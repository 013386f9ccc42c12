/*
 * Inside of net/: what its files that speak rtnetlink share.
 */
#pragma once

#include "base/cleanup.h"
#include "net/guard.h"
#include "net/net.h"

/* A positive errno for libnl's number, of either sign; they are its own (libnl3, errno.h). */
int net_errno(int nle);

/* Closes a packet socket, a while later: the kernel lets its receivers come to an end first, some 10 ms, for which nobody may wait in a freeze. */
void net_packet_close(int *fd);
#define _cleanup_packet_ _cleanup_(net_packet_close)

/* Tells the neighbours on that device's side, some times over. Without an address of its own an entry is passed over. Negative errno: the first failure, the others
 * were tried. */
int net_announce(const char *device, const struct net_neighbour *list, size_t n);
