/*
 * Endpoints: their spelling, and dialling them over TCP with TLS.
 *
 * A dial ends within its timeout whatever the peer does (a deadline for all of it, not only of silence); only the
 * resolver is out of our hands: names that are not addresses go through getaddrinfo(3), which has timeouts of its own.
 * No state; any thread.
 */
#include "transport/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>

#include "base/fd.h"
#include "transport/endpoint-internal.h"
#include "transport/tls-internal.h"

#define KEEPALIVE_IDLE_S 15
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT 6
/* What may lie in a socket beyond what the link is carrying. Without it megabytes do, and what is asked after them is answered when a
 * slow link has carried them: too late for a timeout, and too late for an abort. */
#define NOT_SENT_BYTES (512 << 10)
#define USER_TIMEOUT_MS 60000 /* also bounds how long a peer may leave its window closed */

/* Digits only, 1 to 65535. */
static bool parse_port(const char *text, uint16_t *ret)
{
	unsigned long port;
	char *end;

	if (text[0] < '0' || text[0] > '9' || strlen(text) > 5)
		return false;
	port = strtoul(text, &end, 10);
	if (*end || !port || port > 65535)
		return false;
	*ret = (uint16_t)port;
	return true;
}

/* Letters, digits and a few more: these words also go onto ssh's command line, so none may look like an option. */
static bool plain_word(const char *text, const char *extra)
{
	if (!*text || *text == '-')
		return false;
	for (const char *p = text; *p; p++)
		if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
		      strchr(extra, *p)))
			return false;
	return true;
}

static int bad_endpoint(const char *text, const char *why, struct error *err)
{
	return error_set(err, EINVAL,
			 "'%.200s' is no target: %s; give HOST, HOST:PORT, [V6]:PORT or "
			 "ssh://[USER@]HOST[:PORT]",
			 text, why);
}

/* Splits [V6]:PORT and HOST:PORT in place; a bare IPv6 address has more than one colon and no port. */
static const char *split_port(char *text, char **ret_host, const char **ret_port)
{
	char *colon, *bracket;

	*ret_port = NULL;
	*ret_host = text;
	if (text[0] == '[') {
		bracket = strchr(text, ']');
		if (!bracket)
			return "the bracket is not closed";
		*bracket = 0;
		*ret_host = text + 1;
		if (bracket[1] && bracket[1] != ':')
			return "a colon and the port must follow the bracket";
		*ret_port = bracket[1] ? bracket + 2 : NULL;
		return NULL;
	}
	colon = strchr(text, ':');
	if (!colon || strchr(colon + 1, ':'))
		return NULL;
	*colon = 0;
	*ret_port = colon + 1;
	return NULL;
}

int endpoint_parse(const char *text, struct endpoint *ret, struct error *err)
{
	struct endpoint e = { .kind = ENDPOINT_TLS, .port = ENDPOINT_PORT_DEFAULT };
	char copy[400], *rest = copy, *host, *at;
	const char *port, *why;

	if ((size_t)snprintf(copy, sizeof(copy), "%s", text) >= sizeof(copy))
		return bad_endpoint(text, "it is too long", err);
	if (!strncmp(copy, "ssh://", 6)) {
		e.kind = ENDPOINT_SSH;
		e.port = 0;
		rest += 6;
		at = strrchr(rest, '@');
		if (at) {
			*at = 0;
			if (strlen(rest) >= sizeof(e.user) || !plain_word(rest, "._-+"))
				return bad_endpoint(text, "the user's name is not usable", err);
			memcpy(e.user, rest, strlen(rest) + 1);
			rest = at + 1;
		}
	} else if (strstr(copy, "://")) {
		return bad_endpoint(text, "only ssh:// is known", err);
	}
	why = split_port(rest, &host, &port);
	if (why)
		return bad_endpoint(text, why, err);
	if (port && !parse_port(port, &e.port))
		return bad_endpoint(text, "the port must be a number from 1 to 65535", err);
	if (!*host)
		return bad_endpoint(text, "the host is missing", err);
	if (strlen(host) >= sizeof(e.host) || !plain_word(host, "._-:%"))
		return bad_endpoint(text, "the host's name is not usable", err);
	memcpy(e.host, host, strlen(host) + 1);
	*ret = e;
	return 0;
}

void preamble_encode(const uint8_t *route, uint8_t preamble[PREAMBLE_BYTES])
{
	memset(preamble, 0, PREAMBLE_BYTES);
	memcpy(preamble, PHAUL_GREETING, PHAUL_GREETING_BYTES);
	if (route)
		memcpy(preamble + PHAUL_GREETING_BYTES, route, ROUTE_BYTES);
}

const uint8_t *preamble_route(const uint8_t preamble[PREAMBLE_BYTES])
{
	static const uint8_t zero[PREAMBLE_BYTES - PHAUL_GREETING_BYTES - ROUTE_BYTES];

	if (memcmp(preamble, PHAUL_GREETING, PHAUL_GREETING_BYTES) != 0 ||
	    memcmp(preamble + PHAUL_GREETING_BYTES + ROUTE_BYTES, zero, sizeof(zero)) != 0)
		return NULL;
	return preamble + PHAUL_GREETING_BYTES;
}

bool route_is_new(const uint8_t route[ROUTE_BYTES])
{
	static const uint8_t zero[ROUTE_BYTES];

	return !memcmp(route, zero, ROUTE_BYTES);
}

void route_format(const uint8_t route[ROUTE_BYTES], char hex[ROUTE_HEX_BYTES + 1])
{
	for (size_t i = 0; i < ROUTE_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", route[i]);
}

bool route_parse(const char *hex, uint8_t route[ROUTE_BYTES])
{
	static const char digits[] = "0123456789abcdef";

	if (strlen(hex) != ROUTE_HEX_BYTES || strspn(hex, digits) != ROUTE_HEX_BYTES)
		return false;
	for (size_t i = 0; i < ROUTE_BYTES; i++)
		route[i] = (uint8_t)((strchr(digits, hex[2 * i]) - digits) << 4 |
				     (strchr(digits, hex[2 * i + 1]) - digits));
	return true;
}

void address_format(const struct sockaddr *address, socklen_t length, char text[ADDRESS_TEXT_MAX])
{
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (getnameinfo(address, length, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(text, ADDRESS_TEXT_MAX, "unknown address");
	else
		snprintf(text, ADDRESS_TEXT_MAX, strchr(host, ':') ? "[%.60s]:%.20s" : "%.60s:%.20s", host, port);
}

void tcp_tune(int fd)
{
	static const struct {
		int level, option, value;
	} settings[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS },
		{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT_BYTES },
	};

	/* None is needed for correctness, and some are refused on sockets that are not TCP (in tests). */
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		(void)setsockopt(fd, settings[i].level, settings[i].option, &settings[i].value, sizeof(int));
}

static int connect_error(const struct endpoint *e, const char *address, int number, const struct dial_options *options,
			 struct error *err)
{
	switch (number) {
	case ECONNREFUSED:
		return error_set(err, ECONNREFUSED,
				 "the target %s refused the connection: is `phaul serve` running there?", address);
	case ETIMEDOUT:
		return error_set(err, ETIMEDOUT,
				 "the target %s did not answer within %.1f s: is it up, and does a firewall "
				 "let port %u through?",
				 address, (double)options->timeout_ms / 1000, e->port);
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ENETDOWN:
	case EHOSTDOWN:
		return error_set(err, EHOSTUNREACH, "there is no route to the target %s", address);
	case ECANCELED:
		return error_set(err, ECANCELED, "canceled while connecting to the target %s", address);
	default:
		return error_errno(err, number, "cannot connect to the target %s", address);
	}
}

/* Waits until connect(2) has come to its end; its result as a positive errno. */
static int connect_wait(int fd, int cancel_fd, uint64_t deadline_ns)
{
	struct pollfd p[2] = { { .fd = fd, .events = POLLOUT }, { .fd = cancel_fd, .events = POLLIN } };
	socklen_t length = sizeof(int);
	int number;

	for (;;) {
		int r = poll(p, 2, deadline_poll_ms(deadline_ns));

		if (r < 0 && errno != EINTR)
			return errno;
		if (r > 0 && p[1].revents)
			return ECANCELED;
		if (r > 0)
			return getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &length) < 0 ? errno : number;
		if (clock_now_ns() >= deadline_ns)
			return ETIMEDOUT;
	}
}

static int connect_address(const struct addrinfo *a, const struct dial_options *options, uint64_t deadline_ns,
			   int *ret_fd)
{
	_cleanup_close_ int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int number = 0;

	if (fd < 0)
		return errno;
	tcp_tune(fd);
	if (connect(fd, a->ai_addr, a->ai_addrlen) < 0)
		number = errno == EINPROGRESS ? connect_wait(fd, options->cancel_fd, deadline_ns) : errno;
	if (!number)
		*ret_fd = TAKE_FD(fd);
	return number;
}

static int tcp_connect(const struct endpoint *e, const struct dial_options *options, uint64_t deadline_ns, int *ret_fd,
		       char address[ADDRESS_TEXT_MAX], struct error *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	struct addrinfo *all;
	char port[8];
	int number, r;

	snprintf(port, sizeof(port), "%u", e->port);
	r = getaddrinfo(e->host, port, &hints, &all);
	if (r)
		return error_set(err, EHOSTUNREACH, "cannot find the address of the target '%s': %s", e->host,
				 r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
	number = EHOSTUNREACH;
	for (const struct addrinfo *a = all; a; a = a->ai_next) {
		address_format(a->ai_addr, a->ai_addrlen, address);
		number = connect_address(a, options, deadline_ns, ret_fd);
		if (!number || number == ETIMEDOUT || number == ECANCELED)
			break;
	}
	freeaddrinfo(all);
	return number ? connect_error(e, address, number, options, err) : 0;
}

/* The channel is bounded by the dial's own deadline and cancel descriptor until it is handed out. */
static void channel_bound(struct channel *c, uint64_t deadline_ns, int cancel_fd)
{
	c->deadline_ns = deadline_ns;
	c->cancel_fd = cancel_fd;
}

static int dial_tls(const struct endpoint *e, const struct dial_options *options, const uint8_t *route,
		    struct channel **ret, struct error *err)
{
	_cleanup_channel_ struct channel *c = NULL;
	uint64_t deadline = deadline_in_ms(options->timeout_ms);
	char address[ADDRESS_TEXT_MAX] = "";
	uint8_t preamble[PREAMBLE_BYTES];
	int fd = -1, r;

	if (!options->identity)
		return error_set(err, EINVAL, "no certificate was given for the connection to %s", e->host);
	r = tcp_connect(e, options, deadline, &fd, address, err);
	if (!r)
		r = channel_new_plain(fd, fd, address, &c, err);
	if (r < 0)
		return r;
	channel_bound(c, deadline, options->cancel_fd);
	preamble_encode(route, preamble);
	r = channel_write(c, preamble, sizeof(preamble), err);
	if (!r)
		r = channel_start_tls(c, options->identity, false, options->expected_name, err);
	if (r == -ETIMEDOUT)
		return error_set(err, ETIMEDOUT,
				 "the target %s took the connection but did not finish the handshake within "
				 "%.1f s: is it `phaul serve` that listens there?",
				 address, (double)options->timeout_ms / 1000);
	if (r < 0)
		return r;
	channel_bound(c, DEADLINE_NEVER, -1);
	*ret = TAKE_PTR(c);
	return 0;
}

int endpoint_dial(const struct endpoint *e, const struct dial_options *options, const uint8_t *route,
		  struct channel **ret, struct error *err)
{
	switch (e->kind) {
	case ENDPOINT_TLS:
		return dial_tls(e, options, route, ret, err);
	case ENDPOINT_SSH:
		return dial_ssh(e, options, route, ret, err);
	case ENDPOINT_INVALID:
	case ENDPOINT_KIND_MAX:
		break;
	}
	return error_set(err, EINVAL, "no target was given");
}

int accept_tls(int fd, struct tls_identity *identity, int64_t timeout_ms, int cancel_fd, struct channel **ret,
	       struct error *err)
{
	_cleanup_channel_ struct channel *c = NULL;
	struct sockaddr_storage peer;
	socklen_t length = sizeof(peer);
	char address[ADDRESS_TEXT_MAX] = "unknown address";
	int r;

	if (!getpeername(fd, (struct sockaddr *)&peer, &length))
		address_format((struct sockaddr *)&peer, length, address);
	tcp_tune(fd);
	r = channel_new_plain(fd, fd, address, &c, err);
	if (r < 0)
		return r;
	channel_bound(c, deadline_in_ms(timeout_ms), cancel_fd);
	r = channel_start_tls(c, identity, true, NULL, err);
	if (r == -ETIMEDOUT)
		return error_set(err, ETIMEDOUT, "the peer %s did not finish the handshake within %.1f s", address,
				 (double)timeout_ms / 1000);
	if (r < 0)
		return r;
	channel_bound(c, DEADLINE_NEVER, -1);
	*ret = TAKE_PTR(c);
	return 0;
}

int channel_accept_tls(int fd, struct tls_identity *identity, int64_t timeout_ms, struct channel **ret,
		       struct error *err)
{
	return accept_tls(fd, identity, timeout_ms, -1, ret, err);
}
