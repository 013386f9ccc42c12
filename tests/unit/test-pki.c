/*
 * Unit tests of the authority: files, modes, links, names, and what the certificates say. The openssl program is the
 * independent judge of the certificates.
 * Each test works in a directory of its own, removed at its end.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/process.h"
#include "transport/endpoint.h"
#include "transport/pki.h"

struct place {
	char directory[64];
	char path[128];
};

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	strcpy(p->directory, "/tmp/phaul-pki.XXXXXX");
	assert_non_null(mkdtemp(p->directory));
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	dir_remove(p->directory);
	free(p);
	return 0;
}

static const char *path_of(struct place *p, const char *name)
{
	snprintf(p->path, sizeof(p->path), "%s/%s", p->directory, name);
	return p->path;
}

static unsigned int mode_of(struct place *p, const char *name)
{
	struct stat st;

	assert_int_equal(stat(path_of(p, name), &st), 0);
	return st.st_mode & 07777;
}

static void init_and_issue(struct place *p)
{
	struct error err = { 0 };

	assert_int_equal(pki_init(p->directory, 3650, &err), 0);
	assert_int_equal(pki_issue(p->directory, "alpha", 365, false, &err), 0);
}

/* Standard output of openssl(1), or a failed test. */
static char *openssl(struct buffer *b, const char *const *argv)
{
	struct error err = { 0 };

	b->length = 0;
	if (process_run(argv, b, deadline_in_ms(20000), &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(buffer_append(b, "", 1), 0);
	return (char *)b->data;
}

static void test_files_and_modes(void **state)
{
	struct place *p = *state;
	mode_t before = umask(0);
	char target[64];
	ssize_t n;

	init_and_issue(p);
	umask(before);
	assert_int_equal(mode_of(p, ""), 0700);
	assert_int_equal(mode_of(p, "ca.key"), 0600);
	assert_int_equal(mode_of(p, "alpha.key"), 0600);
	assert_int_equal(mode_of(p, "ca.crt"), 0644);
	assert_int_equal(mode_of(p, "alpha.crt"), 0644);
	n = readlink(path_of(p, "host.key"), target, sizeof(target) - 1);
	assert_true(n > 0);
	target[n] = 0;
	assert_string_equal(target, "alpha.key");
}

/* A second host does not take the place of the first one's identity. */
static void test_second_issue_keeps_host(void **state)
{
	struct place *p = *state;
	struct error err = { 0 };
	struct tls_identity *identity = NULL;

	init_and_issue(p);
	assert_int_equal(pki_issue(p->directory, "beta.example.org", 10, false, &err), 0);
	assert_int_equal(tls_identity_load(p->directory, &identity, &err), 0);
	assert_string_equal(tls_identity_name(identity), "alpha");
	tls_identity_free(identity);
}

static void test_existing_is_kept(void **state)
{
	struct place *p = *state;
	struct error err = { 0 };
	_cleanup_buffer_ struct buffer before = { 0 }, after = { 0 };

	init_and_issue(p);
	assert_int_equal(fd_read_file(AT_FDCWD, path_of(p, "ca.key"), 10000, &before), 0);
	assert_int_equal(pki_init(p->directory, 10, &err), -EEXIST);
	assert_non_null(strstr(err.text, p->directory));
	assert_int_equal(pki_issue(p->directory, "alpha", 10, false, &err), -EEXIST);
	assert_non_null(strstr(err.text, "--force"));
	assert_int_equal(fd_read_file(AT_FDCWD, path_of(p, "ca.key"), 10000, &after), 0);
	assert_int_equal(before.length, after.length);
	assert_memory_equal(before.data, after.data, before.length);
}

static void test_force_replaces_both(void **state)
{
	struct place *p = *state;
	struct error err = { 0 };
	struct tls_identity *identity = NULL;
	_cleanup_buffer_ struct buffer before = { 0 }, after = { 0 };

	init_and_issue(p);
	assert_int_equal(fd_read_file(AT_FDCWD, path_of(p, "alpha.key"), 10000, &before), 0);
	assert_int_equal(pki_issue(p->directory, "alpha", 10, true, &err), 0);
	assert_int_equal(fd_read_file(AT_FDCWD, path_of(p, "alpha.key"), 10000, &after), 0);
	assert_true(before.length != after.length || memcmp(before.data, after.data, before.length) != 0);
	assert_int_equal(mode_of(p, "alpha.key"), 0600);
	assert_int_equal(tls_identity_load(p->directory, &identity, &err), 0);
	tls_identity_free(identity);
}

static void test_bad_names_and_days(void **state)
{
	static const char *const bad[] = {
		"",    "..",   ".",  "../x", "a/b", "-x",
		"a b", "a\nb", "ca", "host", "ä",   "a123456789b123456789c123456789d123456789e123456789f123456789g123"
	};
	struct place *p = *state;
	struct error err = { 0 };

	init_and_issue(p);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(pki_issue(p->directory, bad[i], 10, true, &err), -EINVAL);
	assert_int_equal(pki_issue(p->directory, "gamma", 0, false, &err), -EINVAL);
	assert_int_equal(pki_issue(p->directory, "gamma", 40000, false, &err), -EINVAL);
	assert_int_equal(pki_init(p->directory, -1, &err), -EINVAL);
	/* The longest good one. */
	assert_int_equal(pki_issue(p->directory, "a123456789b123456789c123456789d123456789e123456789f123456789g12", 10,
				   false, &err),
			 0);
}

static void test_no_authority(void **state)
{
	struct place *p = *state;
	struct error err = { 0 };
	struct tls_identity *identity = NULL;

	assert_int_equal(pki_issue(p->directory, "alpha", 10, false, &err), -ENOENT);
	assert_non_null(strstr(err.text, "phaul pki init"));
	assert_int_equal(pki_issue("/nonexistent/pki", "alpha", 10, false, &err), -ENOENT);
	assert_int_equal(tls_identity_load(p->directory, &identity, &err), -ENOENT);
	assert_non_null(strstr(err.text, "phaul pki issue NAME"));
	init_and_issue(p);
	assert_int_equal(unlink(path_of(p, "ca.key")), 0);
	assert_int_equal(pki_issue(p->directory, "beta", 10, false, &err), -ENOENT);
	assert_non_null(strstr(err.text, "ca.key"));
}

static void test_open_authority_key_is_refused(void **state)
{
	struct place *p = *state;
	struct error err = { 0 };

	init_and_issue(p);
	assert_int_equal(chmod(path_of(p, "ca.key"), 0640), 0);
	assert_int_equal(pki_issue(p->directory, "beta", 10, false, &err), -EACCES);
	assert_non_null(strstr(err.text, "chmod 600"));
}

/* OpenSSL's own strict reading of RFC 5280, for both purposes. */
static void test_strict_verification(void **state)
{
	struct place *p = *state;
	_cleanup_buffer_ struct buffer b = { 0 };
	char ca[128], certificate[128];

	init_and_issue(p);
	strcpy(ca, path_of(p, "ca.crt"));
	strcpy(certificate, path_of(p, "alpha.crt"));
	openssl(&b, (const char *[]){ "openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca,
				      certificate, NULL });
	openssl(&b, (const char *[]){ "openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", ca,
				      certificate, NULL });
	openssl(&b, (const char *[]){ "openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", ca, ca, NULL });
}

static void test_contents(void **state)
{
	struct place *p = *state;
	struct error err = { 0 };
	_cleanup_buffer_ struct buffer b = { 0 };
	char *text;

	init_and_issue(p);
	text = openssl(&b,
		       (const char *[]){ "openssl", "x509", "-noout", "-text", "-in", path_of(p, "alpha.crt"), NULL });
	assert_non_null(strstr(text, "Subject: CN = alpha"));
	assert_non_null(strstr(text, "DNS:alpha"));
	assert_non_null(strstr(text, "CA:FALSE"));
	assert_non_null(strstr(text, "TLS Web Server Authentication, TLS Web Client Authentication"));
	assert_non_null(strstr(text, "Authority Key Identifier"));
	assert_non_null(strstr(text, "prime256v1"));
	text = openssl(&b, (const char *[]){ "openssl", "x509", "-noout", "-text", "-in", path_of(p, "ca.crt"), NULL });
	assert_non_null(strstr(text, "CA:TRUE, pathlen:0"));
	assert_non_null(strstr(text, "Certificate Sign, CRL Sign"));
	assert_int_equal(pki_issue(p->directory, "10.77.0.2", 10, false, &err), 0);
	text = openssl(
		&b, (const char *[]){ "openssl", "x509", "-noout", "-text", "-in", path_of(p, "10.77.0.2.crt"), NULL });
	assert_non_null(strstr(text, "IP Address:10.77.0.2"));
}

/* A host's certificate never outlives the authority, and a date past 2049 is written as RFC 5280 wants it. */
static void test_ends(void **state)
{
	struct place *p = *state;
	struct error err = { 0 };
	_cleanup_buffer_ struct buffer a = { 0 }, b = { 0 };
	char *end;

	assert_int_equal(pki_init(p->directory, 20000, &err), 0);
	assert_int_equal(pki_issue(p->directory, "alpha", 36000, false, &err), 0);
	end = openssl(&a,
		      (const char *[]){ "openssl", "x509", "-noout", "-enddate", "-in", path_of(p, "ca.crt"), NULL });
	assert_non_null(strstr(end, " 20"));
	assert_string_equal(end, openssl(&b, (const char *[]){ "openssl", "x509", "-noout", "-enddate", "-in",
							       path_of(p, "alpha.crt"), NULL }));
}

/* Identities with something wrong are refused when they are loaded, each with its own sentence. */
static void test_identity_faults(void **state)
{
	struct place *p = *state;
	struct error err = { 0 };
	struct tls_identity *identity = NULL;
	char other[64] = "/tmp/phaul-pki.XXXXXX", command[128];

	init_and_issue(p);
	assert_int_equal(chmod(path_of(p, "alpha.key"), 0644), 0);
	assert_int_equal(tls_identity_load(p->directory, &identity, &err), -EACCES);
	assert_non_null(strstr(err.text, "chmod 600"));
	assert_int_equal(chmod(path_of(p, "alpha.key"), 0600), 0);
	/* The key of another certificate. */
	assert_int_equal(pki_issue(p->directory, "beta", 10, false, &err), 0);
	assert_int_equal(unlink(path_of(p, "host.key")), 0);
	assert_int_equal(symlink("beta.key", path_of(p, "host.key")), 0);
	assert_int_equal(tls_identity_load(p->directory, &identity, &err), -EKEYREJECTED);
	assert_non_null(strstr(err.text, "does not belong to the certificate"));
	assert_int_equal(unlink(path_of(p, "host.key")), 0);
	assert_int_equal(symlink("alpha.key", path_of(p, "host.key")), 0);
	assert_int_equal(tls_identity_load(p->directory, &identity, &err), 0);
	tls_identity_free(identity);
	/* Another authority's ca.crt. */
	assert_non_null(mkdtemp(other));
	assert_int_equal(pki_init(other, 10, &err), 0);
	snprintf(command, sizeof(command), "%s/ca.crt", other);
	assert_int_equal(rename(command, path_of(p, "ca.crt")), 0);
	assert_int_equal(tls_identity_load(p->directory, &identity, &err), -EKEYREJECTED);
	assert_non_null(strstr(err.text, "is not good under the authority"));
	dir_remove(other);
	/* No PEM at all. */
	assert_int_equal(fd_write_file(AT_FDCWD, path_of(p, "ca.crt"), "garbage\n", 8, 0644), 0);
	assert_int_equal(tls_identity_load(p->directory, &identity, &err), -EINVAL);
}

/* What a crash between key and certificate leaves does not stop the next one; no temporary file stays. */
static void test_after_a_crash(void **state)
{
	struct place *p = *state;
	struct error err = { 0 };
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;

	assert_int_equal(pki_init(p->directory, 3650, &err), 0);
	assert_int_equal(fd_write_file(AT_FDCWD, path_of(p, "alpha.key"), "half", 4, 0600), 0);
	assert_int_equal(pki_issue(p->directory, "alpha", 365, false, &err), 0);
	dir = opendir(p->directory);
	assert_non_null(dir);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] == '.' && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			fail_msg("%s was left behind", entry->d_name);
}

#define PKI_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PKI_TEST(test_files_and_modes),
		PKI_TEST(test_second_issue_keeps_host),
		PKI_TEST(test_existing_is_kept),
		PKI_TEST(test_force_replaces_both),
		PKI_TEST(test_bad_names_and_days),
		PKI_TEST(test_no_authority),
		PKI_TEST(test_strict_verification),
		PKI_TEST(test_open_authority_key_is_refused),
		PKI_TEST(test_contents),
		PKI_TEST(test_ends),
		PKI_TEST(test_identity_faults),
		PKI_TEST(test_after_a_crash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
