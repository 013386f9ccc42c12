/*
 * TLS inside transport/: what identity, handshake and record layer share.
 */
#pragma once

#include <openssl/ssl.h>

#include "transport/channel-internal.h"
#include "transport/endpoint.h"

#define TLS_PATH_MAX 512

struct tls_identity {
	SSL_CTX *ctx;
	char ca_path[TLS_PATH_MAX];
	char name[CHANNEL_IDENTITY_MAX]; /* in our own certificate */
};

struct tls {
	SSL *ssl;
	BIO_METHOD *method;
	uint8_t *out; /* ciphertext on its way: [out_start, out_length) has not been sent yet */
	size_t out_start;
	size_t out_length;
	uint8_t *stage; /* plain text that waits for more, so that records are full */
	size_t stage_length;
	uint64_t key_bytes;	/* sent under the current key */
	uint64_t key_bytes_max; /* then a new key is made */
	bool server;
	bool established;
	bool end_of_stream;   /* the socket gave 0 */
	int io_error;	      /* the socket's last real error, positive */
	struct error failure; /* sticky: TLS cannot go on after any failure */
	char ca_path[TLS_PATH_MAX];
};

/* The name (CN) in a certificate, as far as it is printable and harmless; "" when there is none. */
void tls_certificate_name(X509 *certificate, char name[CHANNEL_IDENTITY_MAX]);

/* The first reason in OpenSSL's queue, which is emptied; never NULL. */
const char *tls_library_reason(char *text, size_t size);

/* Puts TLS on a plain channel and makes the whole handshake, bounded by c->deadline_ns. The client returns only
 * after the server has accepted its certificate. expected: the name that the peer must have, or NULL. */
int channel_start_tls(struct channel *c, struct tls_identity *identity, bool server, const char *expected,
		      struct error *err);

/* Bytes under one key, for tests; the default keeps far below the limit of AES-GCM (RFC 8446, 5.5). */
void channel_tls_limit_key(struct channel *c, uint64_t bytes);

/* tls-error.c: what went wrong with this SSL object, as a sentence; sticky in tls->failure. Returns -errno. */
int tls_explain(struct channel *c, struct error *err);
