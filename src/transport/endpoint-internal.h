/*
 * Shared by the files that make connections: preamble, routes as text, addresses, sockets' settings.
 */
#pragma once

#include <sys/socket.h>

#include "base/process.h"
#include "transport/channel-internal.h"
#include "transport/endpoint.h"

#define PREAMBLE_BYTES 32
#define ROUTE_HEX_BYTES (2 * ROUTE_BYTES)
#define ADDRESS_TEXT_MAX 128

void preamble_encode(const uint8_t *route, uint8_t preamble[PREAMBLE_BYTES]);
/* The route in a preamble, or NULL when it is none of ours. */
const uint8_t *preamble_route(const uint8_t preamble[PREAMBLE_BYTES]);
bool route_is_new(const uint8_t route[ROUTE_BYTES]);

/* Lower-case hexadecimal, and only that: safe as part of a file name. */
void route_format(const uint8_t route[ROUTE_BYTES], char hex[ROUTE_HEX_BYTES + 1]);
bool route_parse(const char *hex, uint8_t route[ROUTE_BYTES]);

/* "10.0.0.1:7433", "[::1]:7433". */
void address_format(const struct sockaddr *address, socklen_t length, char text[ADDRESS_TEXT_MAX]);

/* No delay, keepalive, and a bound on how long the kernel waits for acknowledgements. */
void tcp_tune(int fd);

/* channel_accept_tls() that a readable cancel_fd ends with -ECANCELED. */
int accept_tls(int fd, struct tls_identity *identity, int64_t timeout_ms, int cancel_fd, struct channel **ret,
	       struct error *err);

/* The ssh below a channel. */
struct ssh_child {
	struct process process;
	int stderr_fd;
	bool greeted;
	char host[320];
	char program[256]; /* what was to run at the target */
};

int dial_ssh(const struct endpoint *e, const struct dial_options *options, const uint8_t *route, struct channel **ret,
	     struct error *err);
