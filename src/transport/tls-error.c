/*
 * What OpenSSL reports, as sentences about our world: whose certificate was refused, by whom, and what to do.
 *
 * Names of reasons: openssl/sslerr.h; numbers of alerts: RFC 8446, 6.2. No state of its own.
 *
 * Threads: any; OpenSSL keeps its queue of errors per thread.
 */
#include <errno.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/x509_vfy.h>

#include "transport/tls-internal.h"

struct alert_text {
	int reason;
	const char *text;
};

/* Alerts with which a peer refuses our certificate. */
static const struct alert_text refusals[] = {
	{ SSL_R_TLSV1_ALERT_UNKNOWN_CA, "it is not signed by its authority" },
	{ SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED, "we sent none" },
	{ SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, "it has expired, or the clocks differ" },
	{ SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED, "it was revoked" },
	{ SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, "it is malformed or not valid yet (compare the clocks)" },
	{ SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, "it cannot verify it" },
	{ SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE, "it may not be used for this" },
	{ SSL_R_TLSV1_ALERT_DECRYPT_ERROR, "its signature is wrong" },
	{ SSL_R_TLSV1_ALERT_ACCESS_DENIED, "access denied" },
};

const char *tls_library_reason(char *text, size_t size)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(code);

	snprintf(text, size, "%s", reason ? reason : "unknown error");
	ERR_clear_error();
	return text;
}

static int explain_verification(struct channel *c, const char *role, struct error *err)
{
	long result = SSL_get_verify_result(c->tls->ssl);

	switch (result) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return error_set(err, EACCES,
				 "the certificate of %s %s has expired (or the clocks differ): renew it with "
				 "`phaul pki issue NAME --force`",
				 role, c->peer);
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return error_set(err, EACCES,
				 "the certificate of %s %s is not valid yet: compare the clocks of both hosts", role,
				 c->peer);
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
		return error_set(err, EACCES, "the certificate of %s %s is not signed by our authority (%s)", role,
				 c->peer, c->tls->ca_path);
	default:
		return error_set(err, EACCES, "the certificate of %s %s cannot be accepted: %s", role, c->peer,
				 X509_verify_cert_error_string(result));
	}
}

/* The link itself failed or ended below TLS. */
static int explain_link(struct channel *c, const char *role, struct error *err)
{
	struct tls *t = c->tls;

	if (t->io_error && t->io_error != ECONNRESET && t->io_error != EPIPE)
		return channel_link_error(c, t->io_error, err);
	if (!t->established && !t->server)
		return error_set(err, ECONNRESET,
				 "%s %s closed the connection during the handshake: is it `phaul serve` "
				 "that listens there?",
				 role, c->peer);
	if (!t->established)
		return error_set(err, ECONNRESET, "%s %s closed the connection during the handshake", role, c->peer);
	return channel_link_error(c, t->io_error ? t->io_error : 0, err);
}

static int explain_ssl(struct channel *c, const char *role, struct error *err)
{
	unsigned long code = ERR_peek_error();
	int reason = ERR_GET_REASON(code);
	char text[128];

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++)
		if (reason == refusals[i].reason)
			return error_set(err, EACCES, "%s %s does not accept our certificate: %s", role, c->peer,
					 refusals[i].text);
	switch (reason) {
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return explain_verification(c, role, err);
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return error_set(err, EACCES, "%s %s presented no certificate", role, c->peer);
	case SSL_R_UNEXPECTED_EOF_WHILE_READING:
		return explain_link(c, role, err);
	default:
		break;
	}
	if (c->tls->established)
		return error_set(err, ECONNRESET, "the encrypted connection to %s broke: %s", c->peer,
				 tls_library_reason(text, sizeof(text)));
	return error_set(err, EPROTO, "%s %s does not answer as phaul does (%s)%s", role, c->peer,
			 tls_library_reason(text, sizeof(text)),
			 c->tls->server ? "" : ": is it `phaul serve` that listens there?");
}

int tls_explain(struct channel *c, struct error *err)
{
	struct tls *t = c->tls;
	const char *role = t->server ? "the peer" : "the target";
	int r;

	/* Every failing call of OpenSSL that has a reason leaves it in the queue; none means: the BIO said no. */
	r = ERR_peek_error() ? explain_ssl(c, role, &t->failure) : explain_link(c, role, &t->failure);
	ERR_clear_error();
	return error_set(err, -r, "%s", t->failure.text);
}
