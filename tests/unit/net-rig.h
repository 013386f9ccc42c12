/*
 * For tests of net/: two network namespaces of the test's own, joined by a veth pair: "home", where the functions under test
 * run, and "there", a neighbour. Needs root. Nothing outlives the test: namespaces go with their last descriptor.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "net/net.h"

#define RIG_SILENCE_MS 150 /* an answer over a veth takes well under a millisecond */
#define RIG_ANSWER_MS 5000
#define RIG_PORT 4711

struct nl_sock;

extern struct net_rig {
	int home, there;		   /* descriptors of the namespaces */
	struct net_address here4, here6;   /* on phaul0 at home; not set up */
	struct net_address there4, there6; /* on phaul1 there; set up */
} net_rig;

/* For cmocka_run_group_tests(). */
int net_rig_setup(void **state);

void net_rig_enter(int ns);
struct nl_sock *net_rig_route_socket(void);
void net_rig_link_up(struct nl_sock *s, const char *name);

/* An address as sockets want it; port RIG_PORT. */
socklen_t net_rig_socket_address(const struct net_address *a, struct sockaddr_storage *ret);

/* What the neighbour gets for a TCP or UDP knock at a port where nobody listens: ECONNREFUSED, or 0 for silence. */
int net_rig_knock(const struct net_address *a, int type, int wait_ms);

/* In the namespace where the caller is. */
bool net_rig_table_exists(const char *family, const char *name);

/* A fresh id in text. */
const char *net_rig_id(void);
