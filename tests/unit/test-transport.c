/*
 * Unit tests of channels: plain and TLS, whole streams compared, every way of ending a blocked call, and
 * every kind of certificate that must not get in. The peers are threads; the traffic is on loopback.
 */
#include "transport-fixture.h"

#include <openssl/err.h>

#include "transport-throughput.h"

#define MESSAGE 65536

static const size_t odd_sizes[] = { 0,	    1,	     2,	      7,       4095,	4096,  16375,
				    16376,  16377,   16383,   16384,   16385,	65535, 262143,
				    262145, 1048576, 1048577, 3145735, 5000011, 1,     8388608 };

enum wiring { SOCKETS, PIPES, TLS, WIRINGS };

static void *accept_main(void *arg)
{
	struct peer *p = arg;

	p->result = channel_accept_tls(p->fd, p->identity, PATIENCE_MS, &p->channel, &p->err);
	return NULL;
}

/* Both halves of a handshake; the results and sentences of both. */
static int handshakes(struct tls_identity *client, struct peer *server, struct channel **ret, struct error *err)
{
	_cleanup_channel_ struct channel *c = NULL;
	int fds[2], r;

	tcp_pair(fds);
	server->fd = fds[1];
	assert_int_equal(channel_new_plain(fds[0], fds[0], "the-server", &c, err), 0);
	assert_int_equal(pthread_create(&server->thread, NULL, accept_main, server), 0);
	c->deadline_ns = deadline_in_ms(PATIENCE_MS);
	r = channel_start_tls(c, client, false, NULL, err);
	c->deadline_ns = DEADLINE_NEVER;
	if (!r)
		*ret = TAKE_PTR(c);
	channel_free(TAKE_PTR(c));
	peer_join(server);
	return r;
}

static void make_pair(struct world *w, enum wiring wiring, struct channel **a, struct channel **b)
{
	struct peer server = { .identity = w->beta };
	struct error err = { 0 };
	int x[2], y[2];

	switch (wiring) {
	case SOCKETS:
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, x), 0);
		assert_int_equal(channel_new_plain(x[0], x[0], "a", a, &err), 0);
		assert_int_equal(channel_new_plain(x[1], x[1], "b", b, &err), 0);
		break;
	case PIPES:
		assert_int_equal(pipe2(x, O_CLOEXEC), 0);
		assert_int_equal(pipe2(y, O_CLOEXEC), 0);
		assert_int_equal(channel_new_plain(x[0], y[1], "a", a, &err), 0);
		assert_int_equal(channel_new_plain(y[0], x[1], "b", b, &err), 0);
		break;
	case TLS:
		if (handshakes(w->alpha, &server, a, &err) < 0)
			fail_msg("%s", err.text);
		assert_int_equal(server.result, 0);
		*b = server.channel;
		break;
	case WIRINGS:
		break;
	}
	channel_set_timeout(*a, PATIENCE_MS);
	channel_set_timeout(*b, PATIENCE_MS);
}

static void test_transfer(void **state)
{
	for (enum wiring wiring = SOCKETS; wiring < WIRINGS; wiring++) {
		_cleanup_channel_ struct channel *c = NULL;
		struct peer p = { 0 };
		uint8_t byte;

		make_pair(*state, wiring, &c, &p.channel);
		peer_start(&p);
		exchange(c, odd_sizes, ARRAY_SIZE(odd_sizes));
		assert_int_equal(channel_finish(c, NULL), 0);
		assert_int_equal(channel_read_some(c, &byte, 1, NULL), 0);
		peer_join(&p);
		assert_int_equal(p.result, 0);
		assert_int_equal(channel_bytes_out(c), channel_bytes_in(p.channel));
		assert_int_equal(channel_bytes_in(c), channel_bytes_out(p.channel));
		assert_int_equal(channel_write(c, "x", 1, NULL), -EPIPE);
		channel_free(p.channel);
	}
}

/* The counters tell what encryption costs: between 0.1 and 1 % in full records. */
static void test_counters(void **state)
{
	static const size_t size[] = { 4 << 20 };
	struct channel *c;
	struct peer p = { 0 };
	uint64_t before, sent;

	make_pair(*state, TLS, &c, &p.channel);
	peer_start(&p);
	before = channel_bytes_out(c);
	exchange(c, size, 1);
	sent = channel_bytes_out(c) - before;
	assert_true(sent > size[0] + size[0] / 1000 && sent < size[0] + size[0] / 100);
	channel_free(c);
	peer_join(&p);
	/* No end was announced: that is not an end of the stream but a broken link. */
	assert_int_equal(p.result, -ECONNRESET);
	channel_free(p.channel);
}

static void test_identities(void **state)
{
	_cleanup_channel_ struct channel *a = NULL, *b = NULL;

	make_pair(*state, TLS, &a, &b);
	assert_string_equal(channel_peer_identity(a), "beta");
	assert_string_equal(channel_peer(a), "beta (the-server)");
	assert_string_equal(channel_peer_identity(b), "alpha");
	assert_non_null(strstr(channel_peer(b), "alpha (127.0.0.1:"));
}

static void test_silence(void **state)
{
	for (enum wiring wiring = SOCKETS; wiring < WIRINGS; wiring++) {
		_cleanup_channel_ struct channel *a = NULL, *b = NULL;
		_cleanup_free_ uint8_t *data = calloc(1, MESSAGE);
		struct error err = { 0 };
		uint64_t begin = clock_now_ns();
		int r = 0;

		make_pair(*state, wiring, &a, &b);
		channel_set_timeout(a, 60);
		assert_int_equal(channel_read(a, data, 10, &err), -ETIMEDOUT);
		assert_true(clock_now_ns() - begin >= 60 * NS_PER_MS);
		assert_non_null(strstr(err.text, "did not answer"));
		/* Nothing was lost, so the channel goes on. */
		assert_int_equal(channel_write(b, "0123456789", 10, &err), 0);
		assert_int_equal(channel_read(a, data, 6, &err), 0);
		assert_memory_equal(data, "012345", 6);
		/* Now 4 bytes come of 10: where the stream stands is unknown from here. */
		assert_int_equal(channel_read(a, data, 10, &err), -ETIMEDOUT);
		assert_int_equal(channel_read(a, data, 1, &err), -ECONNRESET);
		/* A peer that does not read. */
		for (int i = 0; i < 10000 && !r; i++)
			r = channel_write(a, data, MESSAGE, &err);
		assert_int_equal(r, -ETIMEDOUT);
		assert_non_null(strstr(err.text, "took no data"));
		assert_int_equal(channel_write(a, data, 1, &err), -ECONNRESET);
	}
}

struct blocked {
	pthread_t thread;
	struct channel *channel;
	bool writing;
	atomic_int tid;
	int result;
	struct error err;
};

static void *blocked_main(void *arg)
{
	struct blocked *b = arg;
	_cleanup_free_ uint8_t *data = calloc(1, MESSAGE);

	atomic_store(&b->tid, gettid());
	do {
		b->result = b->writing ? channel_write(b->channel, data, MESSAGE, &b->err)
				       : channel_read(b->channel, data, 1, &b->err);
	} while (!b->result);
	return NULL;
}

static void block(struct blocked *b)
{
	assert_int_equal(pthread_create(&b->thread, NULL, blocked_main, b), 0);
	while (!atomic_load(&b->tid))
		sched_yield();
	wait_until_blocked(&b->tid);
}

static void test_shutdown_of_blocked(void **state)
{
	for (enum wiring wiring = SOCKETS; wiring < WIRINGS; wiring++)
		for (int writing = 0; writing < 2; writing++) {
			_cleanup_channel_ struct channel *a = NULL, *b = NULL;
			struct blocked t = { .writing = writing };
			uint8_t byte;

			make_pair(*state, wiring, &a, &b);
			t.channel = a;
			channel_set_timeout(a, -1);
			block(&t);
			channel_shutdown(a);
			pthread_join(t.thread, NULL);
			assert_int_equal(t.result, -ECONNRESET);
			assert_non_null(strstr(t.err.text, "ended on this side"));
			assert_int_equal(channel_read_some(a, &byte, 1, NULL), -ECONNRESET);
			assert_int_equal(channel_wait_readable(a, DEADLINE_NEVER), -ECONNRESET);
			assert_int_equal(channel_finish(a, NULL), -ECONNRESET);
		}
}

static void test_cancel(void **state)
{
	for (enum wiring wiring = SOCKETS; wiring < WIRINGS; wiring++)
		for (int writing = 0; writing < 2; writing++) {
			_cleanup_channel_ struct channel *a = NULL, *b = NULL;
			_cleanup_close_ int cancel = eventfd(0, EFD_CLOEXEC);
			struct blocked t = { .writing = writing };
			uint64_t one = 1;
			uint8_t byte = 0;

			make_pair(*state, wiring, &a, &b);
			t.channel = a;
			channel_set_timeout(a, -1);
			channel_set_cancel_fd(a, cancel);
			block(&t);
			assert_int_equal(write(cancel, &one, sizeof(one)), sizeof(one));
			pthread_join(t.thread, NULL);
			assert_int_equal(t.result, -ECANCELED);
			/* Even what is there is not read while the cancellation stands; afterwards it is. */
			assert_int_equal(channel_write(b, "y", 1, NULL), 0);
			assert_int_equal(channel_read(a, &byte, 1, NULL), -ECANCELED);
			assert_int_equal(channel_wait_readable(a, DEADLINE_NEVER), -ECANCELED);
			channel_set_cancel_fd(a, -1);
			assert_int_equal(channel_read(a, &byte, 1, NULL), 0);
			assert_int_equal(byte, 'y');
		}
}

/* A peer that goes away in the middle: an error and no signal, also for pipes. */
static void test_broken_link(void **state)
{
	for (enum wiring wiring = SOCKETS; wiring < WIRINGS; wiring++) {
		_cleanup_channel_ struct channel *a = NULL;
		struct channel *b = NULL;
		_cleanup_free_ uint8_t *data = calloc(1, MESSAGE);
		struct error err = { 0 };
		int r = 0;

		make_pair(*state, wiring, &a, &b);
		assert_int_equal(channel_write(b, "abc", 3, NULL), 0);
		channel_free(b);
		for (int i = 0; i < 100 && !r; i++)
			r = channel_write(a, data, MESSAGE, &err);
		assert_int_equal(r, -ECONNRESET);
		assert_int_equal(channel_read(a, data, 10, &err), -ECONNRESET);
	}
}

static void test_pending(void **state)
{
	_cleanup_channel_ struct channel *a = NULL, *b = NULL;
	int real, capture[2];
	uint8_t text[4096], byte;
	ssize_t n;

	make_pair(*state, TLS, &a, &b);
	assert_false(channel_has_pending(a));
	assert_int_equal(channel_wait_readable(a, deadline_in_ms(30)), 0);
	assert_int_equal(channel_write(b, "12345", 5, NULL), 0);
	assert_int_equal(channel_wait_readable(a, deadline_in_ms(PATIENCE_MS)), 1);
	assert_int_equal(channel_read(a, &byte, 1, NULL), 0);
	assert_true(channel_has_pending(a)); /* the socket is empty: only TLS knows */
	assert_int_equal(channel_read(a, text, 4, NULL), 0);
	assert_false(channel_has_pending(a));
	/* Half a record is nothing to read yet. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, capture), 0);
	real = b->write_fd;
	b->write_fd = capture[0];
	assert_int_equal(channel_write(b, "halves", 6, NULL), 0);
	b->write_fd = real;
	n = recv(capture[1], text, sizeof(text), 0);
	assert_true(n > 20);
	assert_int_equal(send(real, text, 20, 0), 20);
	assert_int_equal(channel_wait_readable(a, deadline_in_ms(100)), 0);
	assert_false(channel_has_pending(a));
	assert_int_equal(send(real, text + 20, (size_t)n - 20, 0), n - 20);
	assert_int_equal(channel_wait_readable(a, deadline_in_ms(PATIENCE_MS)), 1);
	assert_int_equal(channel_read(a, text, 6, NULL), 0);
	assert_memory_equal(text, "halves", 6);
	/* The end of the stream can be read without waiting, too. */
	assert_int_equal(channel_finish(b, NULL), 0);
	assert_int_equal(channel_wait_readable(a, deadline_in_ms(PATIENCE_MS)), 1);
	assert_int_equal(channel_read_some(a, text, 1, NULL), 0);
	assert_true(channel_has_pending(a));
	close(capture[0]);
	close(capture[1]);
}

/* One changed bit on the way is noticed, and nothing of that record is given out. */
static void test_tampering(void **state)
{
	_cleanup_channel_ struct channel *a = NULL, *b = NULL;
	struct error err = { 0 };
	int real, capture[2];
	uint8_t text[4096];
	ssize_t n;

	make_pair(*state, TLS, &a, &b);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, capture), 0);
	real = b->write_fd;
	b->write_fd = capture[0];
	assert_int_equal(channel_write(b, "payload", 7, NULL), 0);
	b->write_fd = real;
	n = recv(capture[1], text, sizeof(text), 0);
	text[n / 2] ^= 1;
	assert_int_equal(send(real, text, (size_t)n, 0), n);
	assert_int_equal(channel_read_some(a, text, 7, &err), -ECONNRESET);
	assert_int_equal(channel_read_some(a, text, 7, &err), -ECONNRESET);
	assert_int_equal(channel_write(a, text, 7, &err), -ECONNRESET);
	close(capture[0]);
	close(capture[1]);
}

static void count_key_updates(int sent, int version, int type, const void *data, size_t length, SSL *ssl, void *arg)
{
	(void)version;
	(void)ssl;
	if (sent && type == SSL3_RT_HANDSHAKE && length && *(const uint8_t *)data == SSL3_MT_KEY_UPDATE)
		++*(int *)arg;
}

static void test_key_updates(void **state)
{
	struct channel *c;
	struct peer p = { 0 };
	int updates = 0;

	make_pair(*state, TLS, &c, &p.channel);
	channel_tls_limit_key(c, 1000000);
	channel_tls_limit_key(p.channel, 300000);
	SSL_set_msg_callback(c->tls->ssl, count_key_updates);
	SSL_set_msg_callback_arg(c->tls->ssl, &updates);
	peer_start(&p);
	exchange(c, odd_sizes, ARRAY_SIZE(odd_sizes));
	assert_true(updates >= 15);
	assert_int_equal(channel_finish(c, NULL), 0);
	peer_join(&p);
	assert_int_equal(p.result, 0);
	channel_free(p.channel);
	channel_free(c);
}

/* Who must not get in, seen from both sides. */
static void test_certificates(void **state)
{
	struct world *w = *state;
	const struct {
		const char *what;
		struct tls_identity *client, *server;
		const char *client_text, *server_text;
	} cases[] = {
		{ "client of another authority", w->stranger, w->beta, "is not signed by our authority",
		  NULL /* the client leaves first */ },
		{ "server of another authority", w->alpha, w->stranger, "is not signed by our authority",
		  "does not accept our certificate" },
		{ "expired server", w->alpha, w->expired, "has expired", "does not accept our certificate" },
		{ "expired client", w->expired, w->beta, "does not accept our certificate: it has expired",
		  "has expired" },
		{ "client without certificate", w->naked, w->beta, "does not accept our certificate: we sent none",
		  "presented no certificate" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct peer server = { .identity = cases[i].server };
		struct channel *c = NULL;
		struct error err = { 0 };

		assert_int_equal(handshakes(cases[i].client, &server, &c, &err), -EACCES);
		if (!strstr(err.text, cases[i].client_text))
			fail_msg("%s: the client says: %s", cases[i].what, err.text);
		assert_true(server.result < 0);
		assert_null(server.channel);
		if (cases[i].server_text && !strstr(server.err.text, cases[i].server_text))
			fail_msg("%s: the server says: %s", cases[i].what, server.err.text);
	}
}

/* A client that trusts anybody but is of another authority: the server is the one that refuses. */
static void test_stranger_is_refused(void **state)
{
	struct world *w = *state;
	struct peer server = { .identity = w->beta };
	struct channel *c = NULL;
	struct error err = { 0 };

	SSL_CTX_set_verify(w->stranger->ctx, SSL_VERIFY_NONE, NULL);
	assert_int_equal(handshakes(w->stranger, &server, &c, &err), -EACCES);
	SSL_CTX_set_verify(w->stranger->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	assert_non_null(strstr(err.text, "does not accept our certificate: it is not signed by its authority"));
	assert_int_equal(server.result, -EACCES);
	assert_non_null(strstr(server.err.text, "is not signed by our authority ("));
	assert_non_null(strstr(server.err.text, "/beta/ca.crt"));
}

/* A bare OpenSSL client without a certificate reads not one byte of ours, and no older TLS is spoken. */
static void test_bare_client_gets_nothing(void **state)
{
	struct world *w = *state;
	const int versions[] = { TLS1_3_VERSION, TLS1_2_VERSION };

	for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
		struct peer server = { .identity = w->beta };
		SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
		SSL *ssl = SSL_new(ctx);
		uint8_t byte;
		int fds[2], r;

		tcp_pair(fds);
		server.fd = fds[1];
		SSL_set_max_proto_version(ssl, versions[i]);
		SSL_set_fd(ssl, fds[0]);
		assert_int_equal(pthread_create(&server.thread, NULL, accept_main, &server), 0);
		r = SSL_connect(ssl);
		assert_int_equal(r == 1, versions[i] == TLS1_3_VERSION);
		if (r == 1)
			assert_true(SSL_read(ssl, &byte, 1) <= 0);
		assert_int_equal(ERR_GET_REASON(ERR_get_error()),
				 r == 1 ? SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED : SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
		peer_join(&server);
		assert_true(server.result < 0);
		ERR_clear_error();
		SSL_free(ssl);
		SSL_CTX_free(ctx);
		close(fds[0]);
	}
}

/* TLS may end only with its own end: a cut is not taken for the end of the stream. */
static void test_truncation(void **state)
{
	_cleanup_channel_ struct channel *a = NULL, *b = NULL;
	uint8_t text[8];

	make_pair(*state, TLS, &a, &b);
	assert_int_equal(channel_write(b, "abc", 3, NULL), 0);
	assert_int_equal(shutdown(b->write_fd, SHUT_WR), 0);
	assert_int_equal(channel_read(a, text, 3, NULL), 0);
	assert_int_equal(channel_read_some(a, text, 3, NULL), -ECONNRESET);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transfer),
		cmocka_unit_test(test_counters),
		cmocka_unit_test(test_identities),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_shutdown_of_blocked),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_broken_link),
		cmocka_unit_test(test_pending),
		cmocka_unit_test(test_tampering),
		cmocka_unit_test(test_key_updates),
		cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_stranger_is_refused),
		cmocka_unit_test(test_bare_client_gets_nothing),
		cmocka_unit_test(test_truncation),
	};

	if (argc > 1 && !strcmp(argv[1], "throughput"))
		return throughput(argc > 2 ? strtoul(argv[2], NULL, 10) : 2048);
	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
