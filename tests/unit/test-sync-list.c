/*
 * Unit tests of listed passes: what fanotify tells becomes rsync's list, and the target is the same as the source afterwards, which a
 * walk over both compares: names, kinds, owners, times, contents, links. Needs root.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/fd.h"
#include "base/process.h"
#include "fs/sync-options.h"
#include "fs/sync-stream.h"
#include "fs/watch-place.h"
#include "fs/watch.h"
#include "sync-rig.h"

/* rsync itself finds no difference: a dry run by checksums, with everything compared, prints nothing. */
static void assert_same(const struct fixture *f)
{
	const char *const argv[] = {
		"rsync",	   "-aHAXSnic", "--numeric-ids", "--delete", "--modify-window=-1", in(f->source, ""),
		in(f->target, ""), NULL
	};
	_cleanup_buffer_ struct buffer output = { 0 };
	struct error err = { 0 };

	assert_int_equal(process_run(argv, &output, UINT64_MAX, &err), 0);
	if (output.length)
		print_error("differences:\n%.*s\n", (int)output.length, (char *)output.data);
	assert_int_equal(output.length, 0);
}

static struct watch *watch(const struct sync_tree *tree)
{
	struct watch *w = NULL;
	struct error err = { 0 };

	if (watch_new(tree, 0, &w, &err) < 0)
		print_error("%s\n", err.text);
	assert_non_null(w);
	return w;
}

/* A pass by the watch's list; what it has: names between NULs. */
static size_t listed_pass(const struct sync_tree *tree, struct watch *w, const char *to, struct buffer *ret_list)
{
	struct buffer list = { 0 };
	struct half source, target;
	struct error err = { 0 };
	size_t n;

	assert_int_equal(watch_take(w, &list, &n, &err), 1);
	if (ret_list)
		assert_int_equal(buffer_append(ret_list, list.data, list.length), 0);
	sync_rig_pass(tree, &list, to, &source, &target);
	if (source.result || target.result)
		print_error("source: %s\ntarget: %s\n", source.err.text, target.err.text);
	assert_int_equal(source.result, 0);
	assert_int_equal(target.result, 0);
	return n;
}

static bool list_has(const struct buffer *list, const char *name)
{
	for (size_t at = 0; at < list->length; at += strlen((char *)list->data + at) + 1)
		if (!strcmp((char *)list->data + at, name))
			return true;
	return false;
}

static void make(const struct fixture *f, const char *command)
{
	const char *const argv[] = { "sh", "-ec", command, f->source, NULL };
	struct error err = { 0 };
	char cd[256];

	snprintf(cd, sizeof(cd), "%s", f->source);
	assert_int_equal(chdir(cd), 0);
	if (process_run(argv, NULL, UINT64_MAX, &err))
		print_error("%s\n", err.text);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(err.number, 0);
}

#define TREE                                                                                                           \
	"mkdir -p a/b/c many gone old/deep turns; echo 1 >a/one; echo 2 >a/two; ln a/one a/b/linked; echo 3 >gone/x; " \
	"echo 4 >old/deep/y; echo 5 >turns/file; mkdir turns/dir; echo 6 >turns/dir/z; echo 7 >top; "                  \
	"ln -s nowhere a/link; for i in $(seq 300); do echo $i >many/$i; done; echo p >a/pair; ln a/pair a/pair2"

static void test_changes(void **state)
{
	static const char *const steps[] = {
		"echo more >>a/one",
		"echo x >many/7; rm many/8; mv many/9 many/nine",
		"rm -r gone",
		"mv old a/b/moved; echo within >a/b/moved/deep/new",
		"rm turns/file; mkdir turns/file; echo in >turns/file/in; rm -r turns/dir; echo now >turns/dir",
		"ln a/two a/b/c/two-as-well",
		"rm a/pair2; echo P >a/pair2; touch -d @7 a/pair2", /* of the same size: written in place it would spoil the other name */
		"chmod 700 a/b; chown 12:34 a/two; python3 -c 'import os; os.setxattr(\"a/two\", \"user.x\", b\"y\")'",
		"touch -d @7 many/10",
		"echo new >'#begins with a comment'; echo n >'; and'; echo s >' spaced '; ",
		"printf n >\"$(printf 'new\\nline')\"",
		"rm -r a/b/moved; mkdir -p a/b/moved/deep; echo other >a/b/moved/deep/other",
		"mv a x; mkdir a; mv x/two a/; mv x a/inside; echo t >>a/inside/one",
		"rm -r many; mkdir many; echo one >many/1",
		"ln -sf elsewhere a/link; mkfifo fifo; mknod null c 1 3; mknod whiteout c 0 0",
		"chmod 711 .; rm top",
		"mkdir w; echo 1 >w/f; mv w v; mv v w; echo 2 >w/f",
		"true",
	};
	struct fixture *f = *state;
	struct sync_tree tree = { f->source, NULL };
	struct half source;
	struct watch *w;

	make(f, TREE);
	w = watch(&tree);
	pass_succeeds(f->source, f->target, &source);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		make(f, steps[i]);
		print_message("# %s\n", steps[i]);
		listed_pass(&tree, w, f->target, NULL);
		assert_same(f);
	}
	watch_free(w);
}

/* Only what changed is looked at. */
static void test_short_list(void **state)
{
	_cleanup_buffer_ struct buffer list = { 0 };
	struct fixture *f = *state;
	struct sync_tree tree = { f->source, NULL };
	struct half source;
	struct watch *w;

	make(f, TREE);
	pass_succeeds(f->source, f->target, &source);
	w = watch(&tree);
	assert_int_equal(listed_pass(&tree, w, f->target, NULL), 0);
	make(f, "echo x >>many/5; echo y >>many/5; rm many/6");
	assert_int_equal(listed_pass(&tree, w, f->target, &list), 3);
	assert_true(list_has(&list, "./many/5") && list_has(&list, "./many/6") && list_has(&list, "./many"));
	assert_same(f);
	write_file(in(f->top, "beside"), "not in the tree");
	assert_int_equal(watch_pending(w), 0);
	list.length = 0;
	make(f, "echo again >>a/one");
	listed_pass(&tree, w, f->target, &list);
	assert_true(list_has(&list, "./a/one") && list_has(&list, "./a/b/linked"));
	assert_same(f);
	watch_free(w);
}

/* Directories that go out of the tree and come in. */
static void test_moved_across(void **state)
{
	struct fixture *f = *state;
	struct sync_tree tree = { f->source, NULL };
	struct half source;
	struct watch *w;

	make(f, TREE);
	make(f, "mkdir -p ../outside/in/deep; echo o >../outside/in/deep/o");
	w = watch(&tree);
	pass_succeeds(f->source, f->target, &source);
	make(f, "echo 1 >../outside/in/deep/early; mv ../outside/in a/; echo 2 >a/in/deep/late");
	listed_pass(&tree, w, f->target, NULL);
	assert_same(f);
	make(f, "echo 3 >a/in/deep/o; mv a ../outside/; echo 4 >../outside/a/one; mkdir a");
	listed_pass(&tree, w, f->target, NULL);
	assert_same(f);
	watch_free(w);
}

/* Written through a mapping behind the last pass: the time stamp does not move, the closing tells. */
static void test_mapping_closed(void **state)
{
	struct fixture *f = *state;
	struct sync_tree tree = { f->source, NULL };
	struct half source;
	struct stat st;
	struct watch *w;
	char *map;
	int fd;

	make(f, "head -c 8192 /dev/zero >mapped");
	w = watch(&tree);
	fd = open(in(f->source, "mapped"), O_RDWR | O_CLOEXEC);
	map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	assert_true(map != MAP_FAILED);
	map[0] = 'a';
	pass_succeeds(f->source, f->target, &source);
	listed_pass(&tree, w, f->target, NULL);
	assert_int_equal(stat(in(f->source, "mapped"), &st), 0);
	map[1] = 'b';
	munmap(map, 8192);
	listed_pass(&tree, w, f->target, NULL);
	assert_same(f);
	watch_free(w);
}

static void test_excludes(void **state)
{
	static const char *const excludes[] = { "proc", "a/odd[*]name", NULL };
	struct fixture *f = *state;
	struct sync_tree tree = { f->source, excludes };
	struct half source, target;
	struct watch *w;

	make(f, TREE "; mkdir -p proc/1 'a/odd[*]name' a/oddXname; echo p >proc/1/p; echo s >'a/odd[*]name/s'; echo t "
		     ">a/oddXname/t");
	w = watch(&tree);
	assert_int_equal(dir_make(in(f->target, "proc/kept"), 0755), 0);
	sync_rig_pass(&tree, NULL, f->target, &source, &target);
	assert_int_equal(source.result, 0);
	make(f, "echo q >proc/1/q; rm -r 'a/odd[*]name'; echo u >a/oddXname/u; mkdir proc2; echo v >proc2/v");
	listed_pass(&tree, w, f->target, NULL);
	assert_int_equal(access(in(f->target, "proc/kept"), F_OK), 0);
	assert_int_equal(access(in(f->target, "proc/1"), F_OK), -1);
	assert_content(in(f->target, "a/oddXname/u"), "u\n");
	assert_content(in(f->target, "proc2/v"), "v\n");
	assert_int_equal(access(in(f->target, "a/odd[*]name"), F_OK), -1);
	watch_free(w);
	for (size_t i = 0; excludes[i]; i++) {
		char *text = sync_options_exclude(excludes[i]);

		assert_string_equal(text, i ? "--exclude=/a/odd\\[\\*]name" : "--exclude=/proc");
		free(text);
	}
}

/* A queue of one event, and a rename makes two at once. */
static void test_overflow(void **state)
{
	static const char limit[] = "/proc/sys/fs/fanotify/max_queued_events";
	_cleanup_buffer_ struct buffer was = { 0 };
	_cleanup_buffer_ struct buffer list = { 0 };
	struct fixture *f = *state;
	struct sync_tree tree = { f->source, NULL };
	struct half source, target;
	struct changes *c;
	struct error err = { 0 };
	struct watch *w;
	size_t n;
	int fd;

	make(f, TREE);
	pass_succeeds(f->source, f->target, &source);
	assert_int_equal(fd_read_file(AT_FDCWD, limit, 64, &was), 0);
	fd = open(limit, O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(fd, "1", 1), 1);
	w = watch(&tree);
	assert_int_equal(pwrite(fd, was.data, was.length, 0), was.length);
	close(fd);
	for (int i = 0; i < 200; i++)
		assert_int_equal(rename(in(f->source, i % 2 ? "many/new" : "many/2"),
					in(f->source, i % 2 ? "many/2" : "many/new")),
				 0);
	make(f, "rm -r gone; echo z >>a/one");
	assert_true(watch_pending(w) > 0);
	assert_int_equal(watch_take(w, &list, &n, &err), 0);
	assert_non_null(strstr(err.text, "overflow"));
	assert_int_equal(list.length, 0);
	assert_int_equal(changes_new(&tree, &c, &err), 0);
	assert_int_equal(changes_add_all(c, &err), 0);
	assert_int_equal(changes_finish(c, &list, &n, &err), 0);
	changes_free(c);
	sync_rig_pass(&tree, &list, f->target, &source, &target);
	assert_int_equal(source.result, 0);
	assert_same(f);
	watch_free(w);
}

/* A whole pass does not spoil a file that shares its inode at the target only. */
static void test_links_only_there(void **state)
{
	struct fixture *f = *state;
	struct half source;

	make(f, "echo AAAA >a; echo BBBB >b; touch -d @1 a; touch -d @2 b");
	assert_int_equal(mkdir(f->target, 0755), 0);
	pass_succeeds(f->source, f->target, &source);
	assert_int_equal(unlink(in(f->target, "b")), 0);
	assert_int_equal(link(in(f->target, "a"), in(f->target, "b")), 0);
	pass_succeeds(f->source, f->target, &source);
	assert_content(in(f->target, "a"), "AAAA\n");
	assert_content(in(f->target, "b"), "BBBB\n");
}

static void test_places(void **state)
{
	struct fixture *f = *state;
	struct sync_tree tree = { f->source, NULL };
	static const char *const excludes[] = { "inner", NULL };
	struct sync_tree without = { f->source, excludes };
	struct error err = { 0 };
	struct watch *w = NULL;
	char options[512];

	make(f, "mkdir inner up work low merged");
	assert_int_equal(mount("none", in(f->source, "inner"), "tmpfs", 0, "size=1m"), 0);
	assert_int_equal(watch_new(&tree, 0, &w, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "is mounted in it"));
	assert_int_equal(watch_new(&without, 0, &w, &err), 0);
	watch_free(TAKE_PTR(w));
	assert_int_equal(umount(in(f->source, "inner")), 0);
	assert_int_equal(watch_new(&(struct sync_tree){ "/proc/self/fdinfo", NULL }, 0, &w, &err), -EOPNOTSUPP);
	/* Through an overlay, when the kernel tells of it. */
	if (!watch_overlay_is_told())
		skip();
	snprintf(options, sizeof(options), "lowerdir=%s/low,upperdir=%s/up,workdir=%s/work", f->source, f->source,
		 f->source);
	make(f, "echo 1 >low/lower; echo 2 >low/gone; mkdir low/dir; echo 3 >low/dir/x");
	assert_int_equal(mount("none", in(f->top, "source/merged"), "overlay", 0, options), 0);
	tree.path = strdup(in(f->source, "up"));
	w = watch(&tree);
	make(f,
	     "echo more >>merged/lower; rm merged/gone; rm -r merged/dir; mkdir merged/dir; echo new >merged/dir/new");
	snprintf(f->source + strlen(f->source), 8, "/up");
	assert_true(listed_pass(&tree, w, f->target, NULL) > 0);
	assert_same(f);
	f->source[strlen(f->source) - 3] = 0;
	make(f, "echo again >>merged/lower");
	assert_true(listed_pass(&tree, w, f->target, NULL) > 0);
	watch_free(w);
	assert_int_equal(umount(in(f->source, "merged")), 0);
	assert_content(in(f->target, "lower"), "1\nmore\nagain\n");
	free((char *)tree.path);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_changes, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_short_list, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_moved_across, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_mapping_closed, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_excludes, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_overflow, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_links_only_there, sync_rig_setup, sync_rig_teardown),
		cmocka_unit_test_setup_teardown(test_places, sync_rig_setup, sync_rig_teardown),
	};

	if (argc > 1 && !strcmp(argv[1], SYNC_VERB))
		return sync_stream_main(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
