/*
 * What the tests of transport/ share: directories of certificates, pairs of channels, an echoing peer in a thread.
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "base/fd.h"
#include "transport/endpoint-internal.h"
#include "transport/pki.h"
#include "transport/tls-internal.h"
#include "transport/x509.h"

#define PATIENCE_MS 20000

struct world {
	char directory[64];
	struct tls_identity *alpha;    /* of our authority */
	struct tls_identity *beta;     /* of our authority, another name */
	struct tls_identity *stranger; /* of another authority */
	struct tls_identity *expired;  /* of our authority, but too late */
	struct tls_identity *naked;    /* no certificate at all */
};

static inline struct tls_identity *load_identity(struct world *w, const char *part)
{
	struct tls_identity *identity = NULL;
	struct error err = { 0 };
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", w->directory, part);
	if (tls_identity_load(path, &identity, &err) < 0)
		fail_msg("%s", err.text);
	return identity;
}

/* An identity that tls_identity_load() would refuse: put together by hand over a good one. */
static inline struct tls_identity *expired_identity(struct world *w)
{
	struct tls_identity *identity = load_identity(w, "ours");
	struct x509_request q = { .name = "late", .begin_seconds = -7200, .end_seconds = -3600 };
	char path[128];
	EVP_PKEY *key = NULL;
	X509 *certificate = NULL;
	BIO *pem;

	assert_int_equal(x509_new_key(&key, NULL), 0);
	snprintf(path, sizeof(path), "%s/ours/ca.crt", w->directory);
	pem = BIO_new_file(path, "r");
	q.issuer = PEM_read_bio_X509(pem, NULL, NULL, NULL);
	BIO_free(pem);
	snprintf(path, sizeof(path), "%s/ours/ca.key", w->directory);
	pem = BIO_new_file(path, "r");
	q.issuer_key = PEM_read_bio_PrivateKey(pem, NULL, NULL, NULL);
	BIO_free(pem);
	q.key = key;
	assert_int_equal(x509_sign(&q, &certificate, NULL), 0);
	assert_int_equal(SSL_CTX_use_certificate(identity->ctx, certificate), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(identity->ctx, key), 1);
	X509_free(certificate);
	X509_free(q.issuer);
	EVP_PKEY_free(q.issuer_key);
	EVP_PKEY_free(key);
	return identity;
}

static inline int world_setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	char ours[96], theirs[96], beta[96], from[128], to[128];

	strcpy(w->directory, "/tmp/phaul-transport.XXXXXX");
	assert_non_null(mkdtemp(w->directory));
	snprintf(ours, sizeof(ours), "%s/ours", w->directory);
	snprintf(theirs, sizeof(theirs), "%s/theirs", w->directory);
	snprintf(beta, sizeof(beta), "%s/beta", w->directory);
	assert_int_equal(pki_init(ours, 30, NULL), 0);
	assert_int_equal(pki_init(theirs, 30, NULL), 0);
	assert_int_equal(pki_issue(ours, "alpha", 30, false, NULL), 0);
	assert_int_equal(pki_issue(ours, "beta", 30, false, NULL), 0);
	assert_int_equal(pki_issue(theirs, "mallory", 30, false, NULL), 0);
	/* beta's directory as an operator makes it: the authority's certificate and its own two files. */
	assert_int_equal(mkdir(beta, 0700), 0);
	for (int i = 0; i < 3; i++) {
		static const char *const names[][2] = { { "ca.crt", "ca.crt" },
							{ "beta.crt", "host.crt" },
							{ "beta.key", "host.key" } };

		snprintf(from, sizeof(from), "%s/%s", ours, names[i][0]);
		snprintf(to, sizeof(to), "%s/%s", beta, names[i][1]);
		assert_int_equal(link(from, to), 0);
	}
	w->alpha = load_identity(w, "ours");
	w->beta = load_identity(w, "beta");
	w->stranger = load_identity(w, "theirs");
	w->expired = expired_identity(w);
	w->naked = load_identity(w, "ours");
	SSL_CTX_free(w->naked->ctx);
	w->naked->ctx = SSL_CTX_new(TLS_method());
	*state = w;
	return 0;
}

static inline int world_teardown(void **state)
{
	struct world *w = *state;

	tls_identity_free(w->alpha);
	tls_identity_free(w->beta);
	tls_identity_free(w->stranger);
	tls_identity_free(w->expired);
	tls_identity_free(w->naked);
	dir_remove(w->directory);
	free(w);
	return 0;
}

/* The same bytes for the same seed. */
static inline void fill(uint8_t *data, size_t length, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ULL + 1;

	for (size_t i = 0; i < length; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		data[i] = (uint8_t)(x >> 32);
	}
}

/* Sends back whatever comes, message by message (8 bytes of length before each), until the stream ends. */
static inline int echo(struct channel *c, struct error *err)
{
	_cleanup_free_ uint8_t *data = malloc(8 << 20);

	for (;;) {
		uint64_t length;
		ssize_t n = channel_read_some(c, &length, 1, err);
		struct iovec iov[2] = { { &length, sizeof(length) }, { data, 0 } };
		int r = n <= 0 ? (int)n : channel_read(c, (uint8_t *)&length + 1, sizeof(length) - 1, err);

		if (n == 0)
			return channel_finish(c, err);
		if (!r)
			r = channel_read(c, data, length, err);
		iov[1].iov_len = length;
		if (!r)
			r = channel_writev(c, iov, 2, err);
		if (r < 0)
			return r;
	}
}

/* The other half of echo(): messages of these sizes, in several vectors, compared when they come back. */
static inline void exchange(struct channel *c, const size_t *sizes, size_t n)
{
	_cleanup_free_ uint8_t *out = malloc(8 << 20), *in = malloc(8 << 20);
	struct error err = { 0 };

	for (size_t i = 0; i < n; i++) {
		uint64_t length = sizes[i], answer = 0;
		size_t third = length / 3;
		struct iovec iov[5] = { { &length, 3 },
					{ (uint8_t *)&length + 3, 5 },
					{ out, third },
					{ out, 0 },
					{ out + third, length - third } };

		fill(out, length, i + 1);
		if (channel_writev(c, iov, 5, &err) < 0 || channel_read(c, &answer, 8, &err) < 0)
			fail_msg("size %zu: %s", sizes[i], err.text);
		assert_int_equal(answer, length);
		if (length && channel_read(c, in, length, &err) < 0)
			fail_msg("size %zu: %s", sizes[i], err.text);
		assert_memory_equal(in, out, length);
	}
}

/* A peer in a thread: takes a channel (or makes one by TLS from fd) and echoes. */
struct peer {
	pthread_t thread;
	struct channel *channel;
	int fd;
	struct tls_identity *identity;
	int result;
	struct error err;
};

static inline void *peer_main(void *arg)
{
	struct peer *p = arg;

	p->result = p->channel ? 0 : channel_accept_tls(p->fd, p->identity, PATIENCE_MS, &p->channel, &p->err);
	if (!p->result) {
		channel_set_timeout(p->channel, PATIENCE_MS);
		p->result = echo(p->channel, &p->err);
	}
	return NULL;
}

static inline void peer_start(struct peer *p)
{
	assert_int_equal(pthread_create(&p->thread, NULL, peer_main, p), 0);
}

static inline void peer_join(struct peer *p)
{
	pthread_join(p->thread, NULL);
}

/* Two connected TCP sockets on loopback. */
static inline void tcp_pair(int fds[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(l, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&a, &length), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fds[0], (struct sockaddr *)&a, sizeof(a)), 0);
	fds[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fds[1] >= 0);
	close(l);
}

/* A listener of our own, not yet accepting anything; its port. */
static inline int raw_listener(uint16_t *ret_port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(l, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(l, 4), 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&a, &length), 0);
	*ret_port = ntohs(a.sin_port);
	return l;
}

static inline int raw_connect(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

/* Waits until that thread sleeps in poll(2): then it is where a blocked call is. */
static inline void wait_until_blocked(const atomic_int *tid)
{
	uint64_t deadline = deadline_in_ms(PATIENCE_MS);
	char path[64], text[64];

	for (;;) {
		_cleanup_close_ int fd = -1;
		ssize_t n;

		assert_true(clock_now_ns() < deadline);
		snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", atomic_load(tid));
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
		text[MAX(n, 0)] = 0;
		if (n > 0 && (atoi(text) == SYS_poll || atoi(text) == SYS_ppoll))
			return;
		sched_yield();
	}
}

/* A server in a thread: each new session echoes in a thread of its own; ends when canceled. */
struct server {
	pthread_t thread;
	struct listener *listener;
	struct tls_identity *identity;
	int cancel_fd;
	struct peer peers[16];
	size_t n_peers;
};

static inline void *server_main(void *arg)
{
	struct server *s = arg;
	struct listener_event event;

	while (!listener_step(s->listener, s->cancel_fd, DEADLINE_NEVER, &event, NULL) &&
	       event.kind != LISTENER_CANCELED) {
		if (event.kind != LISTENER_NEW_SESSION || s->n_peers == ARRAY_SIZE(s->peers))
			continue;
		s->peers[s->n_peers] = (struct peer){ .fd = event.fd, .identity = s->identity };
		pthread_create(&s->peers[s->n_peers].thread, NULL, peer_main, &s->peers[s->n_peers]);
		s->n_peers++;
	}
	return NULL;
}

static inline void server_start(struct server *s, const char *address, struct tls_identity *identity)
{
	struct error err = { 0 };

	*s = (struct server){ .identity = identity, .cancel_fd = eventfd(0, EFD_CLOEXEC) };
	if (listener_open(address, &s->listener, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
}

static inline void server_stop(struct server *s)
{
	uint64_t one = 1;

	assert_int_equal(write(s->cancel_fd, &one, sizeof(one)), sizeof(one));
	pthread_join(s->thread, NULL);
	for (size_t i = 0; i < s->n_peers; i++) {
		peer_join(&s->peers[i]);
		channel_free(s->peers[i].channel);
	}
	listener_free(s->listener);
	close(s->cancel_fd);
}
