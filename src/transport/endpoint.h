/*
 * How a session's channels come to be: where the target is, dialling it, and listening for it.
 *
 * A session has one control channel and any number of data channels, all between the same two processes (the
 * source and the target's worker for this migration). Over TCP each connection begins with a preamble in
 * clear, 32 bytes: "PHAUL/1\n", route (16 bytes, all zero for a new session), 8 zero bytes; then TLS 1.3
 * with certificates on both sides. The route lets `phaul serve` hand a further connection to the worker that owns the
 * session (as a bare descriptor) before any secret is spoken; it grants nothing: the TLS handshake follows
 * in the worker. The listener sends no byte before the handshake. Over ssh each channel is one
 * `ssh ... phaul receive [--join ROUTE]`.
 */
#pragma once

#include <stdint.h>

#include "base/process.h"
#include "transport/channel.h"

#define ENDPOINT_PORT_DEFAULT 7433
#define ROUTE_BYTES 16

enum endpoint_kind {
	ENDPOINT_INVALID,
	ENDPOINT_TLS,
	ENDPOINT_SSH,
	ENDPOINT_KIND_MAX,
};

struct endpoint {
	enum endpoint_kind kind;
	char host[256]; /* name or address, without brackets */
	char user[64];	/* ssh only; "" for ssh's default */
	uint16_t port;	/* TLS: 7433 by default; ssh: 0 for ssh's default */
};

/* HOST, HOST:PORT, [V6]:PORT, ssh://[USER@]HOST[:PORT]. -EINVAL with a sentence. */
int endpoint_parse(const char *text, struct endpoint *ret, struct error *err);

/* Certificates of this host: loaded once, checked (expiry, key matches, mode of the key). */
struct tls_identity;

int tls_identity_load(const char *pki_directory, struct tls_identity **ret, struct error *err);
void tls_identity_free(struct tls_identity *identity);

/* The name in our own certificate: what peers see as this host's identity. */
const char *tls_identity_name(const struct tls_identity *identity);

struct dial_options {
	struct tls_identity *identity; /* for ENDPOINT_TLS; may be NULL for ssh */
	const char *remote_phaul;      /* program at the target over ssh; NULL: "phaul" */
	const char *remote_arguments;  /* reserved, NULL */
	int64_t timeout_ms;	       /* for connect and handshake */
	int cancel_fd;		       /* -1: none; only for the dial, the channel starts without one */
	const char *expected_name;     /* the peer's certificate must bear this name; NULL: any of our authority */
};

/* Opens one channel. route NULL: a new session. -ECONNREFUSED, -ETIMEDOUT, -EACCES (the peer's
 * certificate is not of our authority, or it does not accept ours), -EHOSTUNREACH ...: err is a whole sentence. */
int endpoint_dial(const struct endpoint *e, const struct dial_options *options, const uint8_t *route,
		  struct channel **ret, struct error *err);

/* The server's half of the handshake on an accepted connection (preamble already read). fd is taken over. */
int channel_accept_tls(int fd, struct tls_identity *identity, int64_t timeout_ms, struct channel **ret,
		       struct error *err);

/* `phaul receive` without --join: the channel over our standard input and output, which are taken over (what is
 * printed afterwards goes to stderr). Says the greeting that endpoint_dial() waits for over ssh. */
int channel_accept_stdio(struct channel **ret, struct error *err);

/*
 * The listener of `phaul serve`: owns the port and the workers' sockets, never blocks on a peer, reads
 * preambles, and says through listener_step() what to do next.
 */
struct listener;

enum listener_event_kind {
	LISTENER_NONE,	      /* the deadline passed */
	LISTENER_NEW_SESSION, /* fd: a new connection; fork a worker for it */
	LISTENER_WORKER_DONE, /* route: its worker's socket closed */
	LISTENER_CANCELED,
};

struct listener_event {
	enum listener_event_kind kind;
	int fd;			    /* NEW_SESSION: owned by the caller */
	char peer[128];		    /* address of the connection */
	uint8_t route[ROUTE_BYTES]; /* NEW_SESSION: the fresh random route that this session's worker gets */
};

/* address: "ADDR:PORT", "[V6]:PORT"; port 0 picks one. Connections that wait for their preamble are limited
 * (64, 5 s each). */
int listener_open(const char *address, struct listener **ret, struct error *err);
uint16_t listener_port(const struct listener *l);

/* Waits for the next event. cancel_fd as in channels. */
int listener_step(struct listener *l, int cancel_fd, uint64_t deadline_ns, struct listener_event *ret,
		  struct error *err);

/* Further connections with this route are passed to the worker over its socket (one end of a socketpair; the
 * worker calls route_receive() on the other). worker_fd is taken over. */
int listener_add_worker(struct listener *l, const uint8_t route[ROUTE_BYTES], int worker_fd, struct error *err);
void listener_free(struct listener *l);

/* In a worker forked by the server: closes all that the listener owned, without ending anybody's connection. */
void listener_forget(struct listener *l);

/*
 * The worker's end, the same for TLS (descriptors come from the listener) and ssh (descriptors come from
 * `phaul receive --join` over a unix socket in the run directory).
 */
struct route;

/* For a worker under `phaul serve`. */
int route_open_tls(int listener_fd, struct tls_identity *identity, struct route **ret, struct error *err);

/* For `phaul receive`: makes the socket run_directory/ROUTE.sock (0600). */
int route_open_ssh(const char *run_directory, const uint8_t id[ROUTE_BYTES], struct route **ret, struct error *err);

/* The next channel of this session. -ETIMEDOUT, -ECANCELED (cancel_fd). */
int route_receive(struct route *r, int cancel_fd, uint64_t deadline_ns, struct channel **ret, struct error *err);
/* Readable when route_receive() has something to look at. */
int route_poll_fd(const struct route *r);
void route_free(struct route *r);

/* `phaul receive --join ROUTE`: hands our stdin and stdout to the worker and waits until it has closed them. */
int route_join_stdio(const char *run_directory, const char *route_hex, struct error *err);
