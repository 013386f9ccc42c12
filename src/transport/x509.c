/*
 * Keys and certificates: EC P-256, ECDSA with SHA-256, RFC 5280 profiles for one authority and its hosts.
 *
 * Authority: CA:TRUE with path length 0, may sign certificates and CRLs, nothing else. Host: not a CA, digital
 * signature, client and server authentication (a host is either, from one migration to the next), its name as CN and
 * SAN. Both carry key identifiers. No state; any thread.
 */
#include "transport/x509.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/ec.h>
#include <openssl/x509v3.h>

#define SERIAL_BITS 159 /* at most 20 octets as a positive INTEGER (RFC 5280, 4.1.2.2) */

static int library_error(struct error *err, const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());
	int r = error_set(err, EIO, "OpenSSL cannot make a %s: %s", what, reason ? reason : "unknown error");

	ERR_clear_error();
	return r;
}

int x509_new_key(EVP_PKEY **ret, struct error *err)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");

	if (!key)
		return library_error(err, "key");
	*ret = key;
	return 0;
}

static bool set_serial(X509 *certificate)
{
	BIGNUM *number = BN_new();
	bool good = number && BN_rand(number, SERIAL_BITS, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) &&
		    BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));

	BN_free(number);
	return good;
}

static bool set_names(X509 *certificate, const struct x509_request *q)
{
	X509_NAME *subject = X509_get_subject_name(certificate);

	return X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)q->name, -1, -1, 0) &&
	       X509_set_issuer_name(certificate, q->issuer ? X509_get_subject_name(q->issuer) : subject);
}

static bool set_times(X509 *certificate, const struct x509_request *q)
{
	const int64_t day = 86400;
	time_t now = time(NULL);
	ASN1_TIME *end = X509_getm_notAfter(certificate);

	if (!X509_time_adj_ex(X509_getm_notBefore(certificate), (int)(q->begin_seconds / day),
			      (long)(q->begin_seconds % day), &now) ||
	    !X509_time_adj_ex(end, (int)(q->end_seconds / day), (long)(q->end_seconds % day), &now))
		return false;
	if (q->issuer && ASN1_TIME_compare(end, X509_get0_notAfter(q->issuer)) > 0)
		return X509_set1_notAfter(certificate, X509_get0_notAfter(q->issuer));
	return true;
}

static bool add_extension(X509 *certificate, X509V3_CTX *context, int nid, const char *value)
{
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, context, nid, value);
	bool good = extension && X509_add_ext(certificate, extension, -1);

	X509_EXTENSION_free(extension);
	return good;
}

static bool add_extensions(X509 *certificate, const struct x509_request *q)
{
	struct in_addr v4;
	X509V3_CTX context;
	char san[300];

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, q->issuer ? q->issuer : certificate, certificate, NULL, NULL, 0);
	if (!add_extension(certificate, &context, NID_subject_key_identifier, "hash") ||
	    !add_extension(certificate, &context, NID_authority_key_identifier, "keyid:always"))
		return false;
	if (!q->issuer)
		return add_extension(certificate, &context, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
		       add_extension(certificate, &context, NID_key_usage, "critical,keyCertSign,cRLSign");
	/* A name that is an address has to be one in the SAN too, or nobody's host name check takes it. */
	snprintf(san, sizeof(san), "%s:%s", inet_pton(AF_INET, q->name, &v4) == 1 ? "IP" : "DNS", q->name);
	return add_extension(certificate, &context, NID_basic_constraints, "critical,CA:FALSE") &&
	       add_extension(certificate, &context, NID_key_usage, "critical,digitalSignature") &&
	       add_extension(certificate, &context, NID_ext_key_usage, "serverAuth,clientAuth") &&
	       add_extension(certificate, &context, NID_subject_alt_name, san);
}

int x509_sign(const struct x509_request *q, X509 **ret, struct error *err)
{
	X509 *certificate = X509_new();

	if (!certificate || !X509_set_version(certificate, X509_VERSION_3) || !set_serial(certificate) ||
	    !set_names(certificate, q) || !set_times(certificate, q) || !X509_set_pubkey(certificate, q->key) ||
	    !add_extensions(certificate, q) ||
	    !X509_sign(certificate, q->issuer_key ? q->issuer_key : q->key, EVP_sha256())) {
		X509_free(certificate);
		return library_error(err, "certificate");
	}
	*ret = certificate;
	return 0;
}
