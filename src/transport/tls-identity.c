/*
 * The certificates of this host: loading and checking them, and the TLS settings that follow from them.
 *
 * Everything that would make a handshake fail later for a reason of ours is said here: a missing file, a key that
 * others may read, a certificate that has expired, does not belong to the key or is not of the authority.
 * Which peers are accepted: those with a certificate of ca.crt, whatever their name. Hosts are dialled by addresses and
 * virtual names that no certificate lists; the name in the certificate is reported as the peer's identity instead,
 * and a caller that knows whom it wants compares it.
 * Threads: an identity is not changed after loading and may be used by all of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "transport/tls-internal.h"

#define PEM_BYTES_MAX (1U << 20)
#define READ_BYTES (64 * 1024) /* larger ones leave the cache between arrival and decryption */
#define MISSING_ADVICE "run `phaul pki init` and `phaul pki issue NAME`"

void tls_certificate_name(X509 *certificate, char name[CHANNEL_IDENTITY_MAX])
{
	X509_NAME *subject = X509_get_subject_name(certificate);
	int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	ASN1_STRING *text = index < 0 ? NULL : X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index));
	const uint8_t *bytes = text ? ASN1_STRING_get0_data(text) : NULL;
	size_t length = text ? (size_t)ASN1_STRING_length(text) : 0;

	/* It is printed, logged and compared: nothing but plain characters, and never cut to another name. */
	if (length >= CHANNEL_IDENTITY_MAX)
		length = 0;
	for (size_t i = 0; i < length; i++)
		name[i] = bytes[i] > ' ' && bytes[i] < 0x7f ? (char)bytes[i] : '?';
	name[length] = 0;
}

static int read_pem(const char *path, bool secret, struct buffer *b, struct error *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;
	int r;

	if (fd < 0 && errno == ENOENT)
		return error_set(err, ENOENT, "this host has no certificate yet: %s is missing; " MISSING_ADVICE, path);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, errno, "cannot read %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, EINVAL, "%s is not a file", path);
	if (secret && (st.st_mode & 077))
		return error_set(err, EACCES,
				 "the key %s can be read or changed by others (mode %03o): run `chmod 600 %s`, "
				 "and issue a new one if somebody may have taken it",
				 path, st.st_mode & 0777, path);
	if (secret && st.st_uid != 0 && st.st_uid != geteuid())
		return error_set(err, EACCES, "the key %s belongs to user %u and not to us", path, st.st_uid);
	if (st.st_size > PEM_BYTES_MAX)
		return error_set(err, EFBIG, "%s is too large for a certificate", path);
	r = buffer_reserve(b, (size_t)st.st_size + 1);
	if (!r)
		r = fd_read_full(fd, b->data, (size_t)st.st_size);
	if (r < 0)
		return error_errno(err, -r, "cannot read %s", path);
	b->length = (size_t)st.st_size;
	return 0;
}

static int load_certificate(SSL_CTX *ctx, const char *path, struct error *err)
{
	_cleanup_buffer_ struct buffer b = { 0 };
	int r = read_pem(path, false, &b, err);
	X509 *certificate = NULL;
	BIO *bio;

	if (r < 0)
		return r;
	bio = BIO_new_mem_buf(b.data, (int)b.length);
	if (bio)
		certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	if (!certificate || SSL_CTX_use_certificate(ctx, certificate) != 1)
		r = error_set(err, EINVAL, "%s holds no certificate that can be used", path);
	else if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
		r = error_set(err, EKEYEXPIRED,
			      "the certificate %s has expired: renew it with `phaul pki issue NAME "
			      "--force`",
			      path);
	else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
		r = error_set(err, EKEYREJECTED, "the certificate %s is not valid yet: check the clock of this host",
			      path);
	X509_free(certificate);
	BIO_free(bio);
	return r;
}

/* Keys with a passphrase are not asked for one: a daemon has no terminal. */
static int no_passphrase(char *text, int size, int writing, void *data)
{
	(void)text;
	(void)size;
	(void)writing;
	(void)data;
	return -1;
}

static int load_key(SSL_CTX *ctx, const char *path, const char *certificate_path, struct error *err)
{
	_cleanup_buffer_ struct buffer b = { 0 };
	int r = read_pem(path, true, &b, err);
	EVP_PKEY *key = NULL;
	BIO *bio;

	if (r < 0)
		return r;
	bio = BIO_new_mem_buf(b.data, (int)b.length);
	if (bio)
		key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	if (!key)
		r = error_set(err, EINVAL, "%s holds no key that can be used (a passphrase is not supported)", path);
	else if (X509_check_private_key(SSL_CTX_get0_certificate(ctx), key) != 1)
		r = error_set(err, EKEYREJECTED,
			      "the key %s does not belong to the certificate %s: issue both anew with "
			      "`phaul pki issue NAME --force`",
			      path, certificate_path);
	else if (SSL_CTX_use_PrivateKey(ctx, key) != 1)
		r = error_set(err, EINVAL, "%s holds a key that cannot be used for TLS", path);
	EVP_PKEY_free(key);
	BIO_free(bio);
	OPENSSL_cleanse(b.data, b.length);
	return r;
}

/* All certificates of ca.crt are trusted, so that an authority can be replaced while both are in use. */
static int load_authority(SSL_CTX *ctx, const char *path, struct error *err)
{
	_cleanup_buffer_ struct buffer b = { 0 };
	int r = read_pem(path, false, &b, err), found = 0;
	X509 *certificate;
	BIO *bio;

	if (r < 0)
		return r;
	bio = BIO_new_mem_buf(b.data, (int)b.length);
	while (bio && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		found += X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), certificate);
		X509_free(certificate);
	}
	BIO_free(bio);
	if (!found)
		return error_set(err, EINVAL, "%s holds no certificate that can be used", path);
	return 0;
}

/* Our own certificate as a peer will see it. */
static int check_chain(SSL_CTX *ctx, const char *path, const char *ca_path, struct error *err)
{
	X509_STORE_CTX *chain = X509_STORE_CTX_new();
	int r = 0, why;

	if (!chain || !X509_STORE_CTX_init(chain, SSL_CTX_get_cert_store(ctx), SSL_CTX_get0_certificate(ctx), NULL))
		r = error_set(err, ENOMEM, "no memory to check %s", path);
	else if (X509_verify_cert(chain) != 1) {
		why = X509_STORE_CTX_get_error(chain);
		r = error_set(err, EKEYREJECTED, "the certificate %s is not good under the authority %s (%s)", path,
			      ca_path, X509_verify_cert_error_string(why));
	}
	X509_STORE_CTX_free(chain);
	return r;
}

static bool has_aes_instructions(void)
{
#if defined(__x86_64__)
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
	return getauxval(AT_HWCAP) & (1UL << 3); /* HWCAP_AES, asm/hwcap.h */
#else
	return false;
#endif
}

static int set_options(SSL_CTX *ctx, struct error *err)
{
	const char *suites = has_aes_instructions()
				     ? "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
				     : "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";

	if (!SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) || !SSL_CTX_set_ciphersuites(ctx, suites) ||
	    !SSL_CTX_set_num_tickets(ctx, 0))
		return error_set(err, EINVAL, "this OpenSSL cannot do TLS 1.3");
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	/* A client without AES instructions puts ChaCha20 first; a server that has them follows it. */
	SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, READ_BYTES);
	return 0;
}

static int load_all(struct tls_identity *identity, const char *directory, struct error *err)
{
	char certificate[TLS_PATH_MAX], key[TLS_PATH_MAX];
	int r;

	if (strlen(directory) > TLS_PATH_MAX - sizeof("/host.crt"))
		return error_set(err, ENAMETOOLONG, "the directory name %s is too long", directory);
	snprintf(identity->ca_path, sizeof(identity->ca_path), "%s/ca.crt", directory);
	snprintf(certificate, sizeof(certificate), "%s/host.crt", directory);
	snprintf(key, sizeof(key), "%s/host.key", directory);
	r = set_options(identity->ctx, err);
	if (!r)
		r = load_authority(identity->ctx, identity->ca_path, err);
	if (!r)
		r = load_certificate(identity->ctx, certificate, err);
	if (!r)
		r = load_key(identity->ctx, key, certificate, err);
	if (!r)
		r = check_chain(identity->ctx, certificate, identity->ca_path, err);
	if (!r)
		tls_certificate_name(SSL_CTX_get0_certificate(identity->ctx), identity->name);
	return r;
}

int tls_identity_load(const char *pki_directory, struct tls_identity **ret, struct error *err)
{
	struct tls_identity *identity = calloc(1, sizeof(*identity));
	int r;

	if (identity)
		identity->ctx = SSL_CTX_new(TLS_method());
	if (!identity || !identity->ctx) {
		free(identity);
		return error_set(err, ENOMEM, "no memory for the certificates of this host");
	}
	r = load_all(identity, pki_directory, err);
	ERR_clear_error();
	if (r < 0) {
		tls_identity_free(identity);
		return r;
	}
	*ret = identity;
	return 0;
}

const char *tls_identity_name(const struct tls_identity *identity)
{
	return identity->name;
}

void tls_identity_free(struct tls_identity *identity)
{
	if (!identity)
		return;
	SSL_CTX_free(identity->ctx);
	free(identity);
}
