/*
 * Making keys and certificates (RFC 5280): used by pki.c, and by tests that need odd ones.
 */
#pragma once

#include <stdint.h>

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/error.h"

struct x509_request {
	const char *name;      /* CN, and SAN where it is a host */
	EVP_PKEY *key;	       /* to be certified */
	X509 *issuer;	       /* NULL: an authority, signed by itself */
	EVP_PKEY *issuer_key;  /* NULL: key */
	int64_t begin_seconds; /* from now, may be negative */
	int64_t end_seconds;   /* from now; never later than the issuer's end */
};

int x509_new_key(EVP_PKEY **ret, struct error *err);
int x509_sign(const struct x509_request *q, X509 **ret, struct error *err);
