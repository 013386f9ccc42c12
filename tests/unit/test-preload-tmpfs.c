/*
 * libphaul-criu.so's execvp() of tar (built as library_execvp here), in a child as CRIU calls it: what it packs is what tar unpacks, what it unpacks is what
 * was there, and whatever is not simple is left to tar. Needs root (devices) and tar.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "criu/preload/archive.h"
#include "criu/preload/gzip.h"
#include "criu/preload/library.h"

#define CREATE                                                                                                         \
	{                                                                                                              \
		"tar", "--create", "--gzip", "--no-unquote", "--no-wildcards", "--one-file-system", "--check-links",   \
			"--preserve-permissions", "--sparse", "--numeric-owner", "--directory", (char *)directory,     \
			".", NULL                                                                                      \
	}
#define EXTRACT                                                                                                        \
	{                                                                                                              \
		"tar", "--extract", "--gzip", "--no-unquote", "--no-wildcards", "--directory", (char *)directory, NULL \
	}

struct library library;

static char place[] = "/tmp/phaul-tmpfs.XXXXXX";

/* Told by an exit status: 0 is tar's. */
#define BY_LIBRARY_FD 9

void library_say(bool *once, const char *what)
{
	*once = true;
	assert_int_equal(write(BY_LIBRARY_FD, what, 1), 1);
}

int library_execvp(const char *file, char *const argv[]);

static const char *at(const char *name)
{
	static char paths[4][256];
	static int turn;

	turn = (turn + 1) % 4;
	snprintf(paths[turn], sizeof(paths[turn]), "%s/%s", place, name);
	return paths[turn];
}

/* Runs it as CRIU does; whether the library did the work is *ret_by_library. Returns the exit status. */
static int run(char *const argv[], const char *in, const char *out, bool *ret_by_library)
{
	int said[2], status;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(said), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		int input = open(in, O_RDONLY), output = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		if (input < 0 || output < 0 || dup2(said[1], BY_LIBRARY_FD) < 0 || dup2(input, 0) < 0 ||
		    dup2(output, 1) < 0)
			_exit(99);
		library_execvp("tar", argv);
		_exit(98);
	}
	close(said[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	*ret_by_library = read(said[0], &byte, 1) == 1;
	close(said[0]);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int shell(const char *command)
{
	char *const argv[] = { "sh", "-c", (char *)command, NULL };
	int status;
	pid_t pid;

	assert_int_equal(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static bool pack(const char *directory, const char *image)
{
	char *const argv[] = CREATE;
	bool by_library;

	assert_int_equal(run(argv, "/dev/null", image, &by_library), 0);
	return by_library;
}

static bool unpack(const char *image, const char *directory)
{
	char *const argv[] = EXTRACT;
	bool by_library;

	assert_int_equal(run(argv, image, "/dev/null", &by_library), 0);
	return by_library;
}

static void put(const char *path, size_t bytes, mode_t mode)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	for (size_t i = 0; i < bytes; i++)
		fputc((int)(i * 7 + i / 256), f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static void make_directory(const char *name, mode_t mode)
{
	assert_int_equal(mkdir(at(name), 0700), 0);
	assert_int_equal(chmod(at(name), mode), 0);
}

/* Like /dev and /dev/shm of a container, and stranger. */
static void make_tree(const char *name)
{
	static const char *const links[] = { "fd", "core", "broken" };
	const struct timespec old[2] = { { .tv_sec = 1234567 }, { .tv_sec = 7654321 } };
	char path[300];

	make_directory(name, 01777);
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", at(name), links[i]);
		assert_int_equal(symlink(i ? "nowhere/at/all" : "/proc/self/fd", path), 0);
		assert_int_equal(lchown(path, 7, 8), 0);
	}
	snprintf(path, sizeof(path), "%s/null", at(name));
	assert_int_equal(mknod(path, S_IFCHR | 0666, makedev(1, 3)), 0);
	assert_int_equal(chmod(path, 0666), 0);
	snprintf(path, sizeof(path), "%s/disk", at(name));
	assert_int_equal(mknod(path, S_IFBLK | 0640, makedev(253, 300)), 0);
	assert_int_equal(chown(path, 0, 6), 0);
	snprintf(path, sizeof(path), "%s/pipe", at(name));
	assert_int_equal(mkfifo(path, 0604), 0);
	snprintf(path, sizeof(path), "%s/pts", at(name));
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(chown(path, 2000000, 100000), 0);
	snprintf(path, sizeof(path), "%s/pts/inner", at(name));
	assert_int_equal(mkdir(path, 0), 0);
	snprintf(path, sizeof(path), "%s/pts/inner/empty", at(name));
	put(path, 0, 0400);
	snprintf(path, sizeof(path), "%s/pts/inner/big", at(name));
	put(path, 100000, 06755);
	assert_int_equal(chown(path, 33, 44), 0);
	assert_int_equal(chmod(path, 06755), 0);
	snprintf(path, sizeof(path), "%s/one", at(name));
	put(path, 512, 0644);
	assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
	snprintf(path, sizeof(path), "%s/pts", at(name));
	assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
	assert_int_equal(utimensat(AT_FDCWD, at(name), old, 0), 0);
}

/* Everything that an archive keeps, of the tree below, into a sorted text. */
static void describe(const char *name, const char *ret_path)
{
	char command[1024];

	/* Directories' sizes are the file system's. */
	snprintf(command, sizeof(command),
		 "cd %s && find . -printf '%%p %%y %%m %%U %%G %%l ' -a \\( -type d -printf '-' -o -printf '%%s' \\) "
		 "-exec stat -c ' %%Y %%t:%%T' {} \\; | sort > %s && find . -type f -exec sha256sum {} + | sort >> %s",
		 at(name), ret_path, ret_path);
	assert_int_equal(shell(command), 0);
}

static void assert_same(const char *one, const char *other)
{
	char command[700];

	describe(one, at("one.txt"));
	describe(other, at("other.txt"));
	snprintf(command, sizeof(command), "diff %s %s >&2", at("one.txt"), at("other.txt"));
	assert_int_equal(shell(command), 0);
}

static void test_as_tar(void **state)
{
	char command[700];

	(void)state;
	library.active = true;
	make_tree("tree");
	assert_true(pack(at("tree"), at("image")));
	make_directory("by-tar", 0700);
	snprintf(command, sizeof(command), "tar --extract --gzip --directory %s < %s", at("by-tar"), at("image"));
	assert_int_equal(shell(command), 0);
	assert_same("tree", "by-tar");
	make_directory("by-us", 0700);
	assert_true(unpack(at("image"), at("by-us")));
	assert_same("tree", "by-us");
	/* The other way round: what tar packed, tar unpacks. */
	snprintf(command, sizeof(command), "tar --create --gzip --numeric-owner --directory %s . > %s", at("tree"),
		 at("image"));
	assert_int_equal(shell(command), 0);
	make_directory("of-tar", 0700);
	assert_false(unpack(at("image"), at("of-tar")));
	assert_same("tree", "of-tar");
}

static void test_inactive(void **state)
{
	(void)state;
	library.active = false;
	make_directory("quiet", 0755);
	assert_false(pack(at("quiet"), at("image")));
	library.active = true;
	assert_true(pack(at("quiet"), at("image")));
	library.active = false;
	make_directory("quiet-out", 0700);
	assert_false(unpack(at("image"), at("quiet-out")));
	assert_same("quiet", "quiet-out");
	library.active = true;
}

static void make_hard_link(const char *directory)
{
	char from[300], to[300];

	snprintf(from, sizeof(from), "%s/a", directory);
	snprintf(to, sizeof(to), "%s/b", directory);
	put(from, 10, 0600);
	assert_int_equal(link(from, to), 0);
}

static void make_large(const char *directory)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/large", directory);
	put(path, ARCHIVE_MAX, 0600);
}

static void make_many(const char *directory)
{
	char path[300];

	for (unsigned int i = 0; i < 40; i++) {
		snprintf(path, sizeof(path), "%s/f%u", directory, i);
		put(path, ARCHIVE_MAX / 40, 0600);
	}
}

static void make_long(const char *directory)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/%0120d", directory, 7);
	put(path, 3, 0600);
}

static void make_old(const char *directory)
{
	const struct timespec before[2] = { { .tv_sec = -100 }, { .tv_sec = -100 } };
	char path[300];

	snprintf(path, sizeof(path), "%s/old", directory);
	put(path, 3, 0600);
	assert_int_equal(utimensat(AT_FDCWD, path, before, 0), 0);
}

static void make_deep(const char *directory)
{
	char path[400];

	snprintf(path, sizeof(path), "%s", directory);
	for (int i = 0; i < 20; i++) {
		strcat(path, "/d");
		assert_int_equal(mkdir(path, 0755), 0);
	}
}

/* What is not simple is tar's, and nothing is lost. */
static void test_left_to_tar(void **state)
{
	static void (*const makers[])(const char *) = { make_hard_link, make_large, make_many,
							make_long,	make_old,   make_deep };
	char in[32], out[32];

	(void)state;
	library.active = true;
	for (size_t i = 0; i < sizeof(makers) / sizeof(makers[0]); i++) {
		snprintf(in, sizeof(in), "left%zu", i);
		snprintf(out, sizeof(out), "left%zu-out", i);
		make_directory(in, 0755);
		makers[i](at(in));
		assert_false(pack(at(in), at("image")));
		make_directory(out, 0700);
		assert_false(unpack(at("image"), at(out)));
		assert_same(in, out);
	}
}

/* A peer's archive, with check sums that are right. */
static void write_archive(const struct tar_header *headers, size_t n)
{
	struct archive a = { .n = (n + 2) * TAR_BLOCK };
	int fd = open(at("image"), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	a.bytes = calloc(1, a.n);
	assert_non_null(a.bytes);
	assert_true(fd >= 0);
	memcpy(a.bytes, headers, n * TAR_BLOCK);
	for (size_t i = 0; i < n; i++) {
		struct tar_header *h = (struct tar_header *)(a.bytes + i * TAR_BLOCK);

		snprintf(h->checksum, sizeof(h->checksum), "%06o", archive_checksum(h));
	}
	assert_int_equal(archive_write(&a, fd), 0);
	close(fd);
	archive_free(&a);
}

static struct tar_header header(const char *name, char type, const char *link)
{
	struct tar_header h = { .mode = "0000755",
				.uid = "0000000",
				.gid = "0000000",
				.size = "00000000000",
				.type = type,
				.mtime = "00000000001",
				.major = "0000000",
				.minor = "0000000" };

	snprintf(h.name, sizeof(h.name), "%s", name);
	snprintf(h.link, sizeof(h.link), "%s", link);
	memcpy(h.magic, "ustar\00000", 8);
	return h;
}

static int try_extract(void)
{
	int fd = open(at("image"), O_RDONLY), directory, r;
	struct archive a = { 0 };

	assert_true(fd >= 0);
	(void)mkdir(at("victim"), 0700);
	directory = open(at("victim"), O_RDONLY | O_DIRECTORY);
	assert_true(directory >= 0);
	r = archive_read(fd, &a);
	if (!r)
		r = archive_extract(&a, directory);
	archive_free(&a);
	close(fd);
	close(directory);
	return r;
}

/* Nothing is ever made outside. */
static void test_lying_peer(void **state)
{
	static const char *const names[] = { "../out", "./../out", "./a/../../out", "/out", "out", "./.", "./a//b",
					     ".",      "" };
	struct tar_header two[2] = { header("./way", '2', ".."), header("./way/out", '0', "") };
	struct tar_header one;

	(void)state;
	write_archive(two, 2);
	assert_int_equal(try_extract(), -ELOOP);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		one = header(names[i], '0', "");
		write_archive(&one, 1);
		assert_int_equal(try_extract(), -EBADMSG);
	}
	one = header("./hard", '1', "way");
	write_archive(&one, 1);
	assert_int_equal(try_extract(), -EBADMSG);
	one = header("./short", '0', "");
	memcpy(one.size, "00000777777", 12);
	write_archive(&one, 1);
	assert_int_equal(try_extract(), -EBADMSG);
	one = header("./set", '0', "");
	memcpy(one.mode, "0100755", 8);
	write_archive(&one, 1);
	assert_int_equal(try_extract(), -EBADMSG);
	assert_int_equal(access(at("out"), F_OK), -1);
}

/* Each byte of a right one matters, and no cut is taken for the whole. */
static void test_broken(void **state)
{
	struct tar_header h = header("./fine", '0', "");
	uint8_t bytes[4096], all[4096] = { 0 };
	size_t n;
	int fd;

	(void)state;
	write_archive(&h, 1);
	fd = open(at("image"), O_RDWR);
	assert_true(fd >= 0);
	n = (size_t)pread(fd, all, sizeof(all), 0);
	assert_in_range(n, 1536, sizeof(all) - 1);
	for (size_t i = 0; i < n; i++) {
		memcpy(bytes, all, sizeof(all));
		bytes[i] ^= 0x41;
		assert_int_equal(pwrite(fd, bytes, n, 0), n);
		assert_true(try_extract() < 0);
	}
	assert_int_equal(pwrite(fd, all, n, 0), n);
	for (size_t i = n; i > 7; i -= 7) {
		assert_int_equal(ftruncate(fd, (off_t)i - 7), 0);
		assert_true(try_extract() < 0);
	}
	close(fd);
}

/* Over what is there already, tar goes on: it replaces. */
static void test_not_empty(void **state)
{
	char path[300];

	(void)state;
	library.active = true;
	make_tree("again");
	assert_true(pack(at("again"), at("image")));
	make_directory("there", 0700);
	snprintf(path, sizeof(path), "%s/one", at("there"));
	put(path, 9, 0600);
	assert_false(unpack(at("image"), at("there")));
	assert_same("again", "there");
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

static int setup(void **state)
{
	(void)state;
	return mkdtemp(place) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return nftw(place, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_tar),	   cmocka_unit_test(test_inactive), cmocka_unit_test(test_left_to_tar),
		cmocka_unit_test(test_lying_peer), cmocka_unit_test(test_broken),   cmocka_unit_test(test_not_empty),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
