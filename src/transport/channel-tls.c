/*
 * TLS 1.3 over a channel's descriptor: handshake and record layer.
 *
 * OpenSSL writes one record of at most 16 KiB at a time. Here its output goes into memory (a BIO of our own
 * that never refuses) and leaves in pieces of OUT_BYTES, at the latest at the end of each channel_writev(); its input
 * comes in reads of READ_BYTES (read-ahead). Small vectors (a frame's header) are put together with what follows
 * them, so that records are full.
 *
 * Invariants: the output buffer has room for a whole record before OpenSSL is asked to write, so a write never
 * has to be repeated; after any failure of TLS the channel only repeats that failure.
 *
 * A TLS 1.3 client ends its handshake before the server has looked at its certificate. So the server sends one byte
 * when it has, and the client waits for it: a refusal shows in the dial and not at some later read.
 *
 * Threads: as channel.c, one at a time.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>

#include "transport/tls-internal.h"

#define RECORD_BYTES 16384
#define RECORD_ROOM (RECORD_BYTES + 1024) /* with header, tag, padding and a key update before it */
#define OUT_BYTES (256 * 1024)
#define OUT_CAPACITY (OUT_BYTES + RECORD_ROOM)
#define BIO_KIND (BIO_TYPE_SOURCE_SINK | 127) /* not handed out by BIO_get_new_index(), which begins at 128 */
#define KEY_BYTES_MAX (64ULL << 30)
#define GO 1

static int bio_write(BIO *bio, const char *data, int length)
{
	struct channel *c = BIO_get_data(bio);
	struct tls *t = c->tls;

	if (length < 0 || (size_t)length > OUT_CAPACITY - t->out_length) {
		t->io_error = ENOBUFS; /* a handshake message of absurd size */
		return -1;
	}
	memcpy(t->out + t->out_length, data, (size_t)length);
	t->out_length += (size_t)length;
	return length;
}

static int bio_read(BIO *bio, char *data, int length)
{
	struct channel *c = BIO_get_data(bio);
	ssize_t n = channel_receive_raw(c, data, (size_t)length);

	BIO_clear_retry_flags(bio);
	if (n == -EAGAIN) {
		BIO_set_retry_read(bio);
		return -1;
	}
	if (n < 0)
		c->tls->io_error = (int)-n;
	c->tls->end_of_stream = n == 0;
	return n < 0 ? -1 : (int)n;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
	struct channel *c = BIO_get_data(bio);

	(void)number;
	(void)pointer;
	if (command == BIO_CTRL_EOF)
		return c->tls->end_of_stream;
	return command == BIO_CTRL_FLUSH;
}

static int flush_output(struct channel *c, struct error *err)
{
	struct tls *t = c->tls;

	while (t->out_start < t->out_length) {
		struct iovec iov = { .iov_base = t->out + t->out_start, .iov_len = t->out_length - t->out_start };
		ssize_t n = channel_send_raw(c, &iov, 1);
		int r;

		if (n == -EAGAIN) {
			r = channel_await(c, POLLOUT, err);
			if (r < 0)
				return r;
			continue;
		}
		if (n < 0)
			return channel_link_error(c, (int)-n, err);
		t->out_start += (size_t)n;
	}
	t->out_start = t->out_length = 0;
	return 0;
}

/* What OpenSSL wants to say before we give up (an alert), as far as it goes without waiting. */
static void flush_alert(struct channel *c)
{
	struct tls *t = c->tls;
	struct iovec iov = { .iov_base = t->out + t->out_start, .iov_len = t->out_length - t->out_start };

	if (iov.iov_len && channel_send_raw(c, &iov, 1) == (ssize_t)iov.iov_len)
		t->out_start = t->out_length = 0;
}

static int fail(struct channel *c, struct error *err)
{
	int r = tls_explain(c, err);

	flush_alert(c);
	return r;
}

static int repeat_failure(const struct tls *t, struct error *err)
{
	return error_set(err, t->failure.number, "%s", t->failure.text);
}

static ssize_t tls_read(struct channel *c, void *data, size_t length, struct error *err)
{
	struct tls *t = c->tls;
	size_t n;

	if (t->failure.number)
		return repeat_failure(t, err);
	ERR_clear_error();
	if (SSL_read_ex(t->ssl, data, length, &n))
		return (ssize_t)n;
	switch (SSL_get_error(t->ssl, 0)) {
	case SSL_ERROR_WANT_READ:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		return fail(c, err);
	}
}

/* Asks for a new key when this one has protected enough; the message goes out ahead of the next record. */
static int renew_key(struct channel *c, size_t length, struct error *err)
{
	struct tls *t = c->tls;

	t->key_bytes += length;
	if (t->key_bytes < t->key_bytes_max)
		return 0;
	t->key_bytes = length;
	return SSL_key_update(t->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) ? 0 : fail(c, err);
}

static int write_record(struct channel *c, const void *data, size_t length, struct error *err)
{
	struct tls *t = c->tls;
	size_t n;
	int r;

	assert(length <= RECORD_BYTES);
	if (t->out_length >= OUT_BYTES) {
		r = flush_output(c, err);
		if (r < 0)
			return r;
	}
	ERR_clear_error();
	r = renew_key(c, length, err);
	if (r < 0)
		return r;
	if (!SSL_write_ex(t->ssl, data, length, &n) || n != length)
		return fail(c, err);
	return 0;
}

static int write_stage(struct channel *c, struct error *err)
{
	struct tls *t = c->tls;
	size_t length = t->stage_length;

	t->stage_length = 0;
	return length ? write_record(c, t->stage, length, err) : 0;
}

static int write_vector(struct channel *c, const uint8_t *data, size_t length, struct error *err)
{
	struct tls *t = c->tls;
	int r = 0;

	while (length && !r) {
		size_t n = MIN(length, (size_t)RECORD_BYTES - t->stage_length);

		if (n == RECORD_BYTES) {
			r = write_record(c, data, n, err);
		} else {
			memcpy(t->stage + t->stage_length, data, n);
			t->stage_length += n;
			if (t->stage_length == RECORD_BYTES)
				r = write_stage(c, err);
		}
		data += n;
		length -= n;
	}
	return r;
}

static int tls_write(struct channel *c, const struct iovec *iov, int n_iov, struct error *err)
{
	int r = 0;

	if (c->tls->failure.number)
		return repeat_failure(c->tls, err);
	for (int i = 0; i < n_iov && !r; i++)
		r = write_vector(c, iov[i].iov_base, iov[i].iov_len, err);
	if (!r)
		r = write_stage(c, err);
	if (!r)
		r = flush_output(c, err);
	return r;
}

/* OpenSSL may hold half a record, which is not yet anything to read: only a peek tells. */
static bool tls_pending(struct channel *c, bool readable)
{
	struct tls *t = c->tls;
	uint8_t byte;
	size_t n;

	if (t->failure.number || SSL_pending(t->ssl) > 0 || SSL_get_shutdown(t->ssl) & SSL_RECEIVED_SHUTDOWN)
		return true;
	if (!readable && !SSL_has_pending(t->ssl))
		return false;
	ERR_clear_error();
	if (SSL_peek_ex(t->ssl, &byte, 1, &n))
		return true;
	switch (SSL_get_error(t->ssl, 0)) {
	case SSL_ERROR_WANT_READ:
		return false;
	case SSL_ERROR_ZERO_RETURN:
		return true;
	default:
		fail(c, NULL); /* kept: the next read tells it */
		return true;
	}
}

static int tls_finish(struct channel *c, struct error *err)
{
	struct tls *t = c->tls;
	int r;

	if (t->failure.number)
		return repeat_failure(t, err);
	ERR_clear_error();
	if (SSL_shutdown(t->ssl) < 0)
		return fail(c, err);
	r = flush_output(c, err);
	return r < 0 ? r : channel_plain_finish(c, err);
}

static void tls_free(struct tls *t)
{
	if (!t)
		return;
	SSL_free(t->ssl);
	BIO_meth_free(t->method);
	free(t->out);
	free(t->stage);
	free(t);
}

static void tls_release(struct channel *c)
{
	tls_free(TAKE_PTR(c->tls));
}

static const struct channel_ops tls_ops = {
	.read = tls_read,
	.write = tls_write,
	.pending = tls_pending,
	.finish = tls_finish,
	.release = tls_release,
};

static int tls_new(struct channel *c, struct tls_identity *identity, bool server, struct error *err)
{
	struct tls *t = calloc(1, sizeof(*t));
	BIO *bio = NULL;

	if (t) {
		t->server = server;
		t->key_bytes_max = KEY_BYTES_MAX;
		memcpy(t->ca_path, identity->ca_path, sizeof(t->ca_path));
		t->out = malloc(OUT_CAPACITY);
		t->stage = malloc(RECORD_BYTES);
		t->ssl = SSL_new(identity->ctx);
		t->method = BIO_meth_new(BIO_KIND, "channel");
	}
	if (t && t->out && t->stage && t->ssl && t->method && BIO_meth_set_write(t->method, bio_write) &&
	    BIO_meth_set_read(t->method, bio_read) && BIO_meth_set_ctrl(t->method, bio_control))
		bio = BIO_new(t->method);
	if (!bio) {
		tls_free(t);
		return error_set(err, ENOMEM, "no memory for TLS with %s", c->peer);
	}
	BIO_set_data(bio, c);
	BIO_set_init(bio, 1);
	SSL_set_bio(t->ssl, bio, bio);
	if (server)
		SSL_set_accept_state(t->ssl);
	else
		SSL_set_connect_state(t->ssl);
	c->tls = t;
	c->ops = &tls_ops;
	return 0;
}

static int handshake(struct channel *c, struct error *err)
{
	struct tls *t = c->tls;

	for (;;) {
		int done, r;

		ERR_clear_error();
		done = SSL_do_handshake(t->ssl);
		if (done != 1 && SSL_get_error(t->ssl, done) != SSL_ERROR_WANT_READ)
			return fail(c, err);
		r = flush_output(c, err);
		if (r < 0 || done == 1)
			return r;
		r = channel_await(c, POLLIN, err);
		if (r < 0)
			return r;
	}
}

static int take_identity(struct channel *c, const char *expected, struct error *err)
{
	X509 *certificate = SSL_get0_peer_certificate(c->tls->ssl);
	char address[CHANNEL_PEER_MAX - CHANNEL_IDENTITY_MAX - 4]; /* leaves room for "NAME (...)" */

	assert(certificate); /* the verification is mandatory on both sides */
	tls_certificate_name(certificate, c->identity);
	snprintf(address, sizeof(address), "%.*s", (int)sizeof(address) - 1, c->peer);
	snprintf(c->peer, sizeof(c->peer), "%s (%s)", c->identity[0] ? c->identity : "unnamed", address);
	if (expected && strcmp(expected, c->identity) != 0)
		return error_set(err, EACCES, "%s is the host '%s', not '%s' as was asked for", address, c->identity,
				 expected);
	return 0;
}

/* The server's word that it has accepted our certificate. */
static int await_go(struct channel *c, struct error *err)
{
	uint8_t byte = 0;
	int r = channel_read(c, &byte, 1, err);

	if (!r && byte != GO)
		r = error_set(err, EPROTO, "%s speaks TLS, but not as phaul does", c->peer);
	return r;
}

int channel_start_tls(struct channel *c, struct tls_identity *identity, bool server, const char *expected,
		      struct error *err)
{
	static const uint8_t go = GO;
	int r = tls_new(c, identity, server, err);

	if (!r)
		r = handshake(c, err);
	if (!r && server)
		r = take_identity(c, expected, err);
	if (!r)
		r = server ? channel_write(c, &go, 1, err) : await_go(c, err);
	if (!r && !server)
		r = take_identity(c, expected, err);
	if (!r)
		c->tls->established = true;
	return r;
}

void channel_tls_limit_key(struct channel *c, uint64_t bytes)
{
	c->tls->key_bytes_max = bytes;
}
