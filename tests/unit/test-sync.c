/*
 * Unit tests of fs/: real rsync over a socketpair, between two directories of a temporary tree. Needs root (ownership, device nodes,
 * a small tmpfs). The binary is its own remote shell, as phaul is.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "fs/sync-stream.h"
#include "fs/sync.h"
#include "sync-rig.h"

/* The value of a POSIX ACL "user::rw-, user:1000:r--, group::r--, mask::r--, other::---": linux/posix_acl_xattr.h. */
static const uint8_t acl[] = { 2, 0,	0,   0,	  1,   0,   6,	  0, 255, 255, 255, 255, 2,   0,    4,
			       0, 0xe8, 3,   0,	  0,   4,   0,	  4, 0,	  255, 255, 255, 255, 0x10, 0,
			       4, 0,	255, 255, 255, 255, 0x20, 0, 0,	  0,   255, 255, 255, 255 };

static void make_tree(const char *top, bool *ret_acl)
{
	int fd;

	write_file(in(top, "plain"), "one\n");
	assert_int_equal(chown(in(top, "plain"), 1234, 4321), 0);
	assert_int_equal(setxattr(in(top, "plain"), "user.phaul", "value", 5, 0), 0);
	*ret_acl = !setxattr(in(top, "plain"), "system.posix_acl_access", acl, sizeof(acl), 0);
	assert_int_equal(link(in(top, "plain"), in(top, "hard")), 0);
	assert_int_equal(symlink("/nowhere/at/all", in(top, "link")), 0);
	assert_int_equal(mknod(in(top, "null"), S_IFCHR | 0600, makedev(1, 3)), 0);
	assert_int_equal(mkfifo(in(top, "fifo"), 0600), 0);
	assert_int_equal(mkdir(in(top, "sub"), 0700), 0);
	write_file(in(top, "sub/gone later"), "two\n");
	fd = open(in(top, "sparse"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 64 << 20), 0);
	assert_int_equal(pwrite(fd, "end", 3, (64 << 20) - 3), 3);
	close(fd);
}

static void test_tree(void **state)
{
	struct fixture *f = *state;
	struct stat st, other;
	struct half source;
	uint8_t value[64];
	char link[64] = "";
	bool has_acl;

	make_tree(f->source, &has_acl);
	pass_succeeds(f->source, in(f->target, "made/parents"), &source);
	assert_true(source.stats.files >= 3);
	assert_true(source.stats.bytes_total >= 64U << 20);
	assert_true(source.stats.bytes_sent > 0);
	snprintf(f->target, sizeof(f->target), "%s/target/made/parents", f->top);
	assert_content(in(f->target, "plain"), "one\n");
	assert_int_equal(stat(in(f->target, "plain"), &st), 0);
	assert_int_equal(st.st_uid, 1234);
	assert_int_equal(st.st_gid, 4321);
	assert_int_equal(stat(in(f->target, "hard"), &other), 0);
	assert_int_equal(st.st_ino, other.st_ino);
	assert_int_equal(getxattr(in(f->target, "plain"), "user.phaul", value, sizeof(value)), 5);
	if (has_acl) {
		assert_int_equal(getxattr(in(f->target, "plain"), "system.posix_acl_access", value, sizeof(value)),
				 sizeof(acl));
		assert_memory_equal(value, acl, sizeof(acl));
	}
	assert_int_equal(readlink(in(f->target, "link"), link, sizeof(link)), strlen("/nowhere/at/all"));
	assert_int_equal(lstat(in(f->target, "null"), &st), 0);
	assert_true(S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3));
	assert_int_equal(lstat(in(f->target, "fifo"), &st), 0);
	assert_true(S_ISFIFO(st.st_mode));
	assert_int_equal(stat(in(f->target, "sparse"), &st), 0);
	assert_int_equal(st.st_size, 64 << 20);
	assert_true(st.st_blocks * 512 < 1 << 20);
}

static void test_second_pass_deletes(void **state)
{
	struct fixture *f = *state;
	struct half source;
	bool has_acl;

	make_tree(f->source, &has_acl);
	pass_succeeds(f->source, f->target, &source);
	assert_int_equal(access(in(f->target, "sub/gone later"), F_OK), 0);
	assert_int_equal(unlink(in(f->source, "sub/gone later")), 0);
	write_file(in(f->source, "sub/new"), "three\n");
	pass_succeeds(f->source, f->target, &source);
	assert_int_equal(access(in(f->target, "sub/gone later"), F_OK), -1);
	assert_content(in(f->target, "sub/new"), "three\n");
	assert_int_equal(source.stats.files, 1);
}

static void test_single_file(void **state)
{
	struct fixture *f = *state;
	struct half source;

	write_file(in(f->source, "one file"), "content\n");
	write_file(in(f->source, "neighbour"), "not mine\n");
	assert_int_equal(mkdir(f->target, 0755), 0);
	write_file(in(f->target, "kept"), "kept\n");
	pass_succeeds(in(f->source, "one file"), in(f->target, "one file"), &source);
	assert_content(in(f->target, "one file"), "content\n");
	assert_content(in(f->target, "kept"), "kept\n");
	assert_int_equal(access(in(f->target, "neighbour"), F_OK), -1);
	write_file(in(f->source, "one file"), "other content\n");
	pass_succeeds(in(f->source, "one file"), in(f->target, "one file"), &source);
	assert_content(in(f->target, "one file"), "other content\n");
}

static void test_link_at_target_refused(void **state)
{
	struct fixture *f = *state;
	struct half source, target;

	write_file(in(f->source, "file"), "x");
	assert_int_equal(mkdir(in(f->top, "elsewhere"), 0755), 0);
	assert_int_equal(symlink(in(f->top, "elsewhere"), f->target), 0);
	run_pass(f->source, f->target, &source, &target);
	assert_int_equal(target.result, -ELOOP);
	assert_non_null(strstr(target.err.text, "symbolic link"));
	assert_true(source.result < 0);
	run_pass(f->source, in(f->target, "deeper"), &source, &target);
	assert_int_equal(target.result, -ELOOP);
	assert_int_equal(access(in(f->top, "elsewhere/file"), F_OK), -1);
	assert_int_equal(access(in(f->top, "elsewhere/deeper"), F_OK), -1);
	/* A single file whose name is a link there. */
	assert_int_equal(symlink(in(f->top, "elsewhere"), in(f->top, "file")), 0);
	run_pass(in(f->source, "file"), in(f->top, "file"), &source, &target);
	assert_int_equal(target.result, -EEXIST);
	assert_int_equal(access(in(f->top, "elsewhere/file"), F_OK), -1);
}

static void test_paths_refused(void **state)
{
	static const char *const bad[] = { "", "/", "relative", "/a/../b", "/a/./b", "/a//b", "/a/", "/..", "//" };
	struct error err;
	struct sync *s = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(sync_receive_start(bad[i], false, -1, &s, &err), -EINVAL);
		assert_int_equal(sync_send_start(&(struct sync_tree){ bad[i], NULL }, false, -1, &s, &err), -EINVAL);
	}
	assert_null(s);
}

static int decode(const char *const *options, size_t n, struct sync_header *h)
{
	_cleanup_buffer_ struct buffer b = { 0 };
	struct error err;
	int r = sync_header_encode(true, options, n, &b);

	return r < 0 ? r : sync_header_decode(b.data + 4, b.length - 4, h, &err);
}

static void test_hostile_options(void **state)
{
	static const char *const hostile[] = { "--sender",
					       "--rsync-path=/tmp/x",
					       "-e",
					       "-logDtpre/tmp/x",
					       "--daemon",
					       "/etc",
					       "--files-from=/etc/passwd",
					       "--log-file=/x",
					       "--temp-dir=/x",
					       "--config=/x",
					       "-K",
					       "-logDtpKre.iLs",
					       "--keep-dirlinks",
					       "--partial-dir=/x",
					       "",
					       ".",
					       "-",
					       "--",
					       "--backup-dir=/x",
					       "--link-dest=/x",
					       "--write-devices",
					       "--remote-option=x",
					       "-M--x",
					       "--delete=1",
					       "--copy-devices",
					       "-e.a/b",
					       "-re.a b" };
	static const char *const honest[] = { "--server",  "-logDtpHAXSre.iLsfxCIvu",
					      "--delete",  "--numeric-ids",
					      "--inplace", "-@-1" };
	struct sync_header h;
	struct error err;

	(void)state;
	assert_int_equal(decode(honest, ARRAY_SIZE(honest), &h), 0);
	assert_int_equal(h.n_options, ARRAY_SIZE(honest));
	assert_string_equal(h.options[4], "--inplace");
	for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
		const char *const with[] = { "--server", hostile[i] };
		const char *const instead[] = { hostile[i] };

		assert_int_equal(decode(with, 2, &h), -EINVAL);
		assert_int_equal(decode(instead, 1, &h), -EINVAL);
	}
	assert_int_equal(sync_header_decode((const uint8_t *)"x--server", 10, &h, &err), -EINVAL);
	assert_int_equal(sync_header_decode((const uint8_t *)"d--server", 9, &h, &err), -EINVAL);
	assert_int_equal(sync_header_decode((const uint8_t *)"d", 1, &h, &err), -EINVAL);
}

/* What comes over the wire instead of a header. */
static void test_hostile_stream(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		int result;
	} cases[] = {
		{ "\xff\xff\xff\xff", 4, -EINVAL }, { "\0\0\0\0", 4, -EINVAL }, { "\x0a\0\0\0d--sender", 14, -EINVAL },
		{ "\x0a\0\0\0d--", 7, -EPIPE },	    { "", 0, -EPIPE },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct half target = { 0 };
		int ends[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
		assert_int_equal(sync_receive_start(f->target, false, ends[1], &target.sync, &target.err), 0);
		assert_int_equal(write(ends[0], cases[i].bytes, cases[i].n), cases[i].n);
		close(ends[0]);
		sync_rig_finish(&target);
		assert_int_equal(target.result, cases[i].result);
		sync_free(target.sync);
		close(ends[1]);
		assert_int_equal(access(f->target, F_OK), -1);
	}
}

static void test_peer_gone(void **state)
{
	struct fixture *f = *state;
	struct half source = { 0 };
	int ends[2];

	write_file(in(f->source, "file"), "x");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(
		sync_send_start(&(struct sync_tree){ f->source, NULL }, false, ends[0], &source.sync, &source.err), 0);
	close(ends[1]);
	sync_rig_finish(&source);
	assert_int_equal(source.result, -EIO);
	assert_non_null(strstr(source.err.text, "rsync"));
	sync_free(source.sync);
	close(ends[0]);
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	struct error err;
	struct sync *s;
	int ends[2], cancel[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(pipe2(cancel, O_CLOEXEC), 0);
	assert_int_equal(sync_send_start(&(struct sync_tree){ f->source, NULL }, false, ends[0], &s, &err), 0);
	assert_int_equal(sync_finish(s, cancel[0], deadline_in_ms(50), NULL, &err), -ETIMEDOUT);
	sync_free(s);
	assert_int_equal(sync_receive_start(f->target, false, ends[1], &s, &err), 0);
	assert_int_equal(write(cancel[1], "x", 1), 1);
	assert_int_equal(sync_finish(s, cancel[0], deadline_in_ms(PASS_MS), NULL, &err), -ECANCELED);
	sync_free(s);
	for (int i = 0; i < 2; i++) {
		close(ends[i]);
		close(cancel[i]);
	}
}

/* Whether a process with this word in its command line is a child of ours. */
static bool child_runs(const char *word)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc");
	struct dirent *d;

	while ((d = readdir(dir))) {
		_cleanup_buffer_ struct buffer stat = { 0 }, words = { 0 };
		char path[300];
		int parent = 0;

		snprintf(path, sizeof(path), "/proc/%s/stat", d->d_name);
		if (atoi(d->d_name) <= 0 || fd_read_file(AT_FDCWD, path, 4096, &stat) < 0)
			continue;
		if (sscanf(strrchr((const char *)stat.data, ')') + 1, " %*c %d", &parent) != 1 || parent != getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/%s/cmdline", d->d_name);
		if (!fd_read_file(AT_FDCWD, path, 4096, &words) && memmem(words.data, words.length, word, strlen(word)))
			return true;
	}
	return false;
}

/* An engine takes its mount away, below which the target's rsync has been started, but not gone yet (it does when the list comes). */
static void test_mount_goes(void **state)
{
	struct half source = { 0 }, target = { 0 };
	struct fixture *f = *state;
	struct sync_tree tree = { f->source, NULL };
	struct buffer list = { 0 };
	uint64_t deadline = deadline_in_ms(PASS_MS);
	pthread_t thread;
	int ends[2];

	write_file(in(f->source, "a"), "of the source\n");
	assert_int_equal(mkdir(f->target, 0755), 0);
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount(f->target, f->target, NULL, MS_BIND, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(sync_receive_start(f->target, true, ends[1], &target.sync, &target.err), 0);
	assert_int_equal(sync_send_start(&tree, true, ends[0], &source.sync, &source.err), 0);
	assert_int_equal(pthread_create(&thread, NULL, sync_rig_finish, &target), 0);
	while (!child_runs("/proc/self/fd/10/"))
		assert_true(clock_now_ns() < deadline);
	assert_int_equal(umount2(f->target, MNT_DETACH), 0);
	assert_int_equal(buffer_append(&list, "a", 2), 0);
	sync_feed(source.sync, &list);
	sync_rig_finish(&source);
	pthread_join(thread, NULL);
	if (source.result || target.result)
		print_error("source: %s\ntarget: %s\n", source.err.text, target.err.text);
	assert_int_equal(source.result, 0);
	assert_int_equal(target.result, 0);
	assert_content(in(f->target, "a"), "of the source\n");
	sync_free(source.sync);
	sync_free(target.sync);
	close(ends[0]);
	close(ends[1]);
}

static void test_disk_full(void **state)
{
	struct fixture *f = *state;
	struct half source, target;
	int fd = open(in(f->source, "large"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	char block[65536];

	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 64; i++)
		assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
	close(fd);
	assert_int_equal(mkdir(f->target, 0755), 0);
	assert_int_equal(mount("none", f->target, "tmpfs", 0, "size=1m"), 0);
	run_pass(f->source, f->target, &source, &target);
	assert_int_equal(umount2(f->target, MNT_DETACH), 0);
	assert_int_equal(source.result, -EIO);
	assert_int_equal(target.result, -EIO);
	assert_non_null(strstr(target.err.text, "No space left on device"));
	assert_non_null(strstr(target.err.text, f->target));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_tree, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_second_pass_deletes, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_single_file, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_link_at_target_refused, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test(test_paths_refused),
		cmocka_unit_test(test_hostile_options),
		cmocka_unit_test_setup_teardown(test_hostile_stream, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_peer_gone, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_cancel, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_mount_goes, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_disk_full, sync_rig_setup, sync_rig_teardown),
	};

	if (argc > 1 && !strcmp(argv[1], SYNC_VERB))
		return sync_stream_main(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
