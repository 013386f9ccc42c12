/*
 * The authority's directory: which files, in which order, with which modes.
 *
 * Invariants: a file appears complete or not at all (written and fsynced under another name, then renamed); a key is
 * created with mode 0600 and O_EXCL, so it was never readable by others; nothing existing is replaced unless asked
 * for. The directory is locked (flock) while it is changed, so two of us cannot mix their files.
 * Threads: any.
 */
#include "transport/pki.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <openssl/crypto.h>
#include <openssl/pem.h>

#include "base/fd.h"
#include "transport/x509.h"

#define NAME_MAX_BYTES 63
#define DAYS_MAX 36500
#define PEM_BYTES_MAX (1U << 20)
#define DAY_SECONDS 86400
#define BACKDATE_SECONDS (-3600) /* hosts whose clocks differ a little accept a fresh certificate */

struct authority {
	X509 *certificate;
	EVP_PKEY *key;
};

static void authority_free(struct authority *a)
{
	X509_free(a->certificate);
	EVP_PKEY_free(a->key);
}

static void free_key(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
}

static void free_certificate(X509 **certificate)
{
	X509_free(*certificate);
}

static int check_days(int days, struct error *err)
{
	if (days < 1 || days > DAYS_MAX)
		return error_set(err, EINVAL, "a certificate cannot be valid for %d days: give 1 to %d", days,
				 DAYS_MAX);
	return 0;
}

static int check_name(const char *name, struct error *err)
{
	size_t length = strlen(name);

	if (length < 1 || length > NAME_MAX_BYTES ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != length ||
	    name[0] == '.' || name[0] == '-')
		return error_set(err, EINVAL,
				 "'%.80s' cannot be a host's name: give 1 to %d letters, digits, dots and "
				 "hyphens, a letter or digit first",
				 name, NAME_MAX_BYTES);
	if (!strcmp(name, "ca") || !strcmp(name, "host"))
		return error_set(err, EINVAL, "the name '%s' is taken by files of the authority itself", name);
	return 0;
}

/* The directory, open and locked. */
static int open_directory(const char *directory, bool create, struct error *err)
{
	_cleanup_close_ int fd = -1;
	int r = create ? dir_make(directory, 0700) : 0;

	if (r < 0)
		return error_errno(err, -r, "cannot make the directory %s", directory);
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return error_set(err, ENOENT, "there is no authority in %s: run `phaul pki init` first", directory);
	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return error_errno(err, errno, "cannot open the directory %s", directory);
	return TAKE_FD(fd);
}

static bool exists(int dir_fd, const char *name)
{
	struct stat st;

	return !fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW);
}

/* Writes what the BIO holds as a new file `name`, replacing a former one only by the last rename. */
static int write_pem(int dir_fd, const char *name, BIO *pem, mode_t mode, struct error *err)
{
	_cleanup_close_ int fd = -1;
	char temporary[NAME_MAX_BYTES + 40];
	uint64_t salt;
	char *data;
	long length = BIO_get_mem_data(pem, &data);
	int r = 0;

	if (getrandom(&salt, sizeof(salt), 0) != sizeof(salt))
		return error_errno(err, errno, "no random bytes");
	snprintf(temporary, sizeof(temporary), ".%s.%016" PRIx64, name, salt);
	fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0600);
	if (fd < 0)
		return error_errno(err, errno, "cannot create %s", name);
	if (fchmod(fd, mode) < 0)
		r = -errno;
	if (!r)
		r = fd_write_full(fd, data, (size_t)length);
	if (!r && fsync(fd) < 0)
		r = -errno;
	if (!r && renameat(dir_fd, temporary, dir_fd, name) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(dir_fd, temporary, 0);
		return error_errno(err, -r, "cannot write %s", name);
	}
	return fsync(dir_fd) < 0 ? error_errno(err, errno, "cannot make %s durable", name) : 0;
}

static int write_key(int dir_fd, const char *name, EVP_PKEY *key, struct error *err)
{
	BIO *pem = BIO_new(BIO_s_secmem());
	int r;

	if (pem && PEM_write_bio_PKCS8PrivateKey(pem, key, NULL, NULL, 0, NULL, NULL))
		r = write_pem(dir_fd, name, pem, 0600, err);
	else
		r = error_set(err, ENOMEM, "cannot encode the key %s", name);
	BIO_free(pem);
	return r;
}

static int write_certificate(int dir_fd, const char *name, X509 *certificate, struct error *err)
{
	BIO *pem = BIO_new(BIO_s_mem());
	int r;

	if (pem && PEM_write_bio_X509(pem, certificate))
		r = write_pem(dir_fd, name, pem, 0644, err);
	else
		r = error_set(err, ENOMEM, "cannot encode the certificate %s", name);
	BIO_free(pem);
	return r;
}

int pki_init(const char *directory, int days, struct error *err)
{
	_cleanup_close_ int dir_fd = -1;
	_cleanup_(free_key) EVP_PKEY *key = NULL;
	_cleanup_(free_certificate) X509 *certificate = NULL;
	struct x509_request q = { .begin_seconds = BACKDATE_SECONDS, .end_seconds = (int64_t)days * DAY_SECONDS };
	char name[48];
	uint32_t tag;
	int r = check_days(days, err);

	if (r < 0)
		return r;
	dir_fd = open_directory(directory, true, err);
	if (dir_fd < 0)
		return dir_fd;
	if (exists(dir_fd, "ca.crt") || exists(dir_fd, "ca.key"))
		return error_set(err, EEXIST,
				 "there is an authority in %s already: remove %s/ca.crt and ca.key if its "
				 "hosts shall no longer be trusted",
				 directory, directory);
	if (fchmod(dir_fd, 0700) < 0)
		return error_errno(err, errno, "cannot close %s to others", directory);
	/* Two authorities never bear the same name: a chain that fails then fails for the true reason. */
	if (getrandom(&tag, sizeof(tag), 0) != sizeof(tag))
		return error_errno(err, errno, "no random bytes");
	snprintf(name, sizeof(name), "phaul authority %08" PRIx32, tag);
	r = x509_new_key(&key, err);
	if (r < 0)
		return r;
	q.name = name;
	q.key = key;
	r = x509_sign(&q, &certificate, err);
	if (!r)
		r = write_key(dir_fd, "ca.key", key, err);
	if (!r)
		r = write_certificate(dir_fd, "ca.crt", certificate, err);
	return r < 0 ? error_wrap(err, "the authority in %s was not made", directory) : 0;
}

static BIO *read_pem(int dir_fd, const char *name, struct buffer *b, int *ret_error)
{
	*ret_error = fd_read_file(dir_fd, name, PEM_BYTES_MAX, b);
	return *ret_error < 0 ? NULL : BIO_new_mem_buf(b->data, (int)b->length);
}

static int load_authority(int dir_fd, const char *directory, struct authority *a, struct error *err)
{
	_cleanup_buffer_ struct buffer certificate = { 0 }, key = { 0 };
	struct stat st;
	int r, s = 0;
	BIO *pem = read_pem(dir_fd, "ca.crt", &certificate, &r);

	a->certificate = pem ? PEM_read_bio_X509(pem, NULL, NULL, NULL) : NULL;
	BIO_free(pem);
	pem = read_pem(dir_fd, "ca.key", &key, &s);
	a->key = pem ? PEM_read_bio_PrivateKey(pem, NULL, NULL, (void *)"") : NULL;
	BIO_free(pem);
	if (key.length)
		OPENSSL_cleanse(key.data, key.length);
	if (r == -ENOENT)
		return error_set(err, ENOENT, "there is no authority in %s: run `phaul pki init` first", directory);
	if (s == -ENOENT)
		return error_set(err, ENOENT,
				 "%s has no ca.key: certificates are issued on the host where `phaul pki init` "
				 "was run",
				 directory);
	if (r < 0 || s < 0)
		return error_errno(err, r < 0 ? -r : -s, "cannot read the authority in %s", directory);
	if (!a->certificate || !a->key || X509_check_private_key(a->certificate, a->key) != 1)
		return error_set(err, EINVAL, "ca.crt and ca.key in %s do not make an authority", directory);
	if (!fstatat(dir_fd, "ca.key", &st, 0) && (st.st_mode & 077))
		return error_set(err, EACCES,
				 "%s/ca.key can be read or changed by others (mode %03o): run `chmod 600 "
				 "%s/ca.key`, and make a new authority if somebody may have taken it",
				 directory, st.st_mode & 0777, directory);
	if (X509_cmp_current_time(X509_get0_notAfter(a->certificate)) < 0)
		return error_set(err, EKEYEXPIRED,
				 "the authority in %s has expired: move ca.crt and ca.key away and run "
				 "`phaul pki init`",
				 directory);
	return 0;
}

/* What this host itself uses, unless it has something already. */
static int link_host(int dir_fd, const char *key_name, const char *certificate_name, struct error *err)
{
	if (exists(dir_fd, "host.crt") || exists(dir_fd, "host.key"))
		return 0;
	if (symlinkat(key_name, dir_fd, "host.key") < 0 || symlinkat(certificate_name, dir_fd, "host.crt") < 0 ||
	    fsync(dir_fd) < 0)
		return error_errno(err, errno, "cannot make host.crt and host.key");
	return 0;
}

static int issue(int dir_fd, const struct authority *a, const char *name, int days, bool force, struct error *err)
{
	_cleanup_(free_key) EVP_PKEY *key = NULL;
	_cleanup_(free_certificate) X509 *certificate = NULL;
	struct x509_request q = {
		.name = name,
		.issuer = a->certificate,
		.issuer_key = a->key,
		.begin_seconds = BACKDATE_SECONDS,
		.end_seconds = (int64_t)days * DAY_SECONDS,
	};
	char key_name[NAME_MAX_BYTES + 8], certificate_name[NAME_MAX_BYTES + 8];
	int r;

	snprintf(key_name, sizeof(key_name), "%s.key", name);
	snprintf(certificate_name, sizeof(certificate_name), "%s.crt", name);
	/* A key without its certificate is what a crash in between leaves: it was never of use. */
	if (!force && exists(dir_fd, certificate_name))
		return error_set(err, EEXIST, "%s exists already: use --force to replace it and its key",
				 certificate_name);
	r = x509_new_key(&key, err);
	if (r < 0)
		return r;
	q.key = key;
	r = x509_sign(&q, &certificate, err);
	if (!r)
		r = write_key(dir_fd, key_name, key, err);
	if (!r)
		r = write_certificate(dir_fd, certificate_name, certificate, err);
	return r < 0 ? r : link_host(dir_fd, key_name, certificate_name, err);
}

int pki_issue(const char *directory, const char *name, int days, bool force, struct error *err)
{
	_cleanup_(authority_free) struct authority a = { 0 };
	_cleanup_close_ int dir_fd = -1;
	int r = check_name(name, err);

	if (!r)
		r = check_days(days, err);
	if (r < 0)
		return r;
	dir_fd = open_directory(directory, false, err);
	if (dir_fd < 0)
		return dir_fd;
	r = load_authority(dir_fd, directory, &a, err);
	if (r < 0)
		return r;
	r = issue(dir_fd, &a, name, days, force, err);
	return r < 0 ? error_wrap(err, "no certificate was issued in %s", directory) : 0;
}
