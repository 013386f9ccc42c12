/*
 * Unit tests of base/: range sets against a bitmap model, uuids, errors, small files, child processes.
 * Each test builds its own state; nothing outside a temporary directory is touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/array.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/process.h"
#include "base/range.h"
#include "base/uuid.h"

#define MODEL_SIZE 200

static void ranges_match_model(const struct range_set *set, const bool *model)
{
	uint64_t total = 0;

	assert_true(range_array_valid(set->ranges, set->n_ranges, 1));
	for (uint64_t i = 0; i < MODEL_SIZE; i++) {
		assert_int_equal(range_set_contains(set, i), model[i]);
		total += model[i];
	}
	assert_int_equal(range_set_total(set), total);
}

/* Random additions and subtractions give what a bitmap gives. */
static void test_range_against_model(void **state)
{
	unsigned int seed = 1;

	(void)state;
	for (int round = 0; round < 300; round++) {
		_cleanup_range_set_ struct range_set set = { 0 };
		bool model[MODEL_SIZE] = { 0 };

		for (int step = 0; step < 30; step++) {
			uint64_t start = (uint64_t)rand_r(&seed) % MODEL_SIZE;
			uint64_t end = start + (uint64_t)rand_r(&seed) % (MODEL_SIZE - start + 1);
			bool add = rand_r(&seed) % 3 != 0;

			assert_int_equal(add ? range_set_add(&set, start, end) : range_set_subtract(&set, start, end),
					 0);
			for (uint64_t i = start; i < end; i++)
				model[i] = add;
			ranges_match_model(&set, model);
		}
	}
}

static void test_range_part(void **state)
{
	_cleanup_range_set_ struct range_set set = { 0 };
	bool inside;

	(void)state;
	assert_int_equal(range_set_add(&set, 10, 20), 0);
	assert_int_equal(range_set_part(&set, 0, 100, &inside), 10);
	assert_false(inside);
	assert_int_equal(range_set_part(&set, 12, 100, &inside), 20);
	assert_true(inside);
	assert_int_equal(range_set_part(&set, 12, 15, &inside), 15);
	assert_int_equal(range_set_part(&set, 20, 100, &inside), 100);
	assert_false(inside);
}

static void test_range_array_valid(void **state)
{
	struct range touching[] = { { 0, 4096 }, { 4096, 8192 } };
	struct range fine[] = { { 0, 4096 }, { 8192, 12288 } };
	struct range empty[] = { { 4096, 4096 } };
	struct range crooked[] = { { 1, 4096 } };

	(void)state;
	assert_true(range_array_valid(fine, 2, 4096));
	assert_false(range_array_valid(touching, 2, 4096));
	assert_false(range_array_valid(empty, 1, 4096));
	assert_false(range_array_valid(crooked, 1, 4096));
}

static void test_uuid(void **state)
{
	struct uuid a, b;
	char text[UUID_TEXT_SIZE], again[UUID_TEXT_SIZE];

	(void)state;
	assert_int_equal(uuid_new(&a), 0);
	uuid_format(&a, text);
	assert_int_equal(text[14], '7');
	assert_true(uuid_parse(text, &b));
	uuid_format(&b, again);
	assert_string_equal(text, again);
	assert_false(uuid_parse("../../../../../../../../etc/passwd!!", &b));
	assert_false(uuid_parse("", &b));
	text[0] = 'A';
	assert_false(uuid_parse(text, &b));
}

static void test_error_sentence(void **state)
{
	struct error err = { 0 };

	(void)state;
	assert_int_equal(error_errno(&err, ENOENT, "cannot open %s", "x\ny"), -ENOENT);
	assert_string_equal(err.text, "cannot open x y: No such file or directory");
	assert_int_equal(error_wrap(&err, "beta"), -ENOENT);
	assert_string_equal(err.text, "beta: cannot open x y: No such file or directory");
	/* ESC, and the C1 controls as UTF-8 has them; other letters stay. */
	error_set(&err, EIO,
		  "a\x1b[2Jb\xc2\x9b"
		  "c\xc3\xa4\xc2\xa7");
	assert_string_equal(err.text, "a [2Jb  c\xc3\xa4\xc2\xa7");
	assert_int_equal(error_set(NULL, EPERM, "nobody listens"), -EPERM);
}

static void test_directory(void **state)
{
	char top[] = "/tmp/phaul-test-base-XXXXXX", path[256];
	_cleanup_buffer_ struct buffer b = { 0 };
	_cleanup_close_ int dir = -1;

	(void)state;
	assert_non_null(mkdtemp(top));
	snprintf(path, sizeof(path), "%s/a/b/c", top);
	assert_int_equal(dir_make(path, 0700), 0);
	dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(fd_write_file(dir, "a/b/c/file", "hello", 5, 0600), 0);
	assert_int_equal(fd_read_file(dir, "a/b/c/file", 5, &b), 0);
	assert_int_equal(b.length, 5);
	assert_int_equal(fd_read_file(dir, "a/b/c/file", 4, &b), -EFBIG);
	assert_int_equal(symlinkat("/etc", dir, "link"), 0);
	assert_true(fd_open_beneath(dir, "link/passwd", O_RDONLY, 0) < 0);
	assert_true(fd_open_beneath(dir, "../passwd", O_RDONLY, 0) < 0);
	assert_int_equal(dir_remove(top), 0);
	assert_int_equal(access(top, F_OK), -1);
	assert_int_equal(access("/etc/passwd", F_OK), 0);
	assert_int_equal(dir_remove(top), 0);
}

static void test_process(void **state)
{
	const char *const echo[] = { "sh", "-c", "echo out; echo first >&2; echo last >&2; exit 3", NULL };
	const char *const missing[] = { "/nonexistent/program", NULL };
	const char *const slow[] = { "sleep", "60", NULL };
	_cleanup_buffer_ struct buffer out = { 0 };
	struct error err = { 0 };

	(void)state;
	assert_int_equal(process_run(echo, &out, deadline_in_ms(10000), &err), 3);
	assert_memory_equal(out.data, "out\n", 4);
	assert_non_null(strstr(err.text, "status 3: last"));
	assert_int_equal(process_run(missing, NULL, deadline_in_ms(10000), &err), -ENOENT);
	assert_int_equal(process_run(slow, NULL, deadline_in_ms(50), &err), -ETIMEDOUT);
}

static void test_process_fds(void **state)
{
	const char *const argv[] = { "sh", "-c", "echo hello >&5", NULL };
	struct process_options o = { .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1 };
	_cleanup_process_ struct process p = PROCESS_NONE;
	struct error err = { 0 };
	char text[6];
	int pipe_fds[2];

	(void)state;
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	o.source_fds[0] = pipe_fds[1];
	o.child_fds[0] = 5;
	o.n_fds = 1;
	assert_int_equal(process_start(&o, &p, &err), 0);
	assert_int_equal(process_wait(&p, deadline_in_ms(10000)), 1);
	assert_int_equal(WEXITSTATUS(p.status), 0);
	assert_int_equal(fd_read_full(pipe_fds[0], text, 6), 0);
	assert_memory_equal(text, "hello\n", 6);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void test_pread(void **state)
{
	int fd = memfd_create("test-base", MFD_CLOEXEC);
	char text[6];

	(void)state;
	assert_int_equal(fd_write_full(fd, "0123456789", 10), 0);
	assert_int_equal(fd_pread_full(fd, text, 6, 4), 0);
	assert_memory_equal(text, "456789", 6);
	assert_int_equal(fd_pread_full(fd, text, 6, 5), -EIO);
	assert_int_equal(fd_pread_full(-1, text, 6, 0), -EBADF);
	close(fd);
}

/* "FDSize" of /proc/self/status */
static unsigned long table_size(void)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	const char *at;

	assert_int_equal(fd_read_file(AT_FDCWD, "/proc/self/status", 65536, &text), 0);
	at = strstr((char *)text.data, "FDSize:");
	assert_non_null(at);
	return strtoul(at + 7, NULL, 10);
}

/* In a child, whose limits are its own. */
static void test_descriptor_table(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	if (!pid) {
		struct rlimit files = { 1000, 3000 }, now;
		unsigned long first = table_size();

		if (setrlimit(RLIMIT_NOFILE, &files) < 0)
			_exit(1);
		fd_reserve_table();
		if (first >= 1000 || table_size() < 1000 || table_size() >= 3000 || open("/", O_PATH) >= 100)
			_exit(2);
		fd_raise_limit();
		fd_reserve_table();
		if (getrlimit(RLIMIT_NOFILE, &now) < 0 || now.rlim_cur != 3000 || table_size() < 3000)
			_exit(3);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_array(void **state)
{
	size_t n_allocated = 0;
	uint32_t *list = NULL;

	(void)state;
	for (uint32_t i = 0; i < 1000; i++) {
		assert_int_equal(array_grow(&list, i, &n_allocated, 3, sizeof(*list)), 0);
		assert_true(i < n_allocated);
		list[i] = i;
	}
	assert_int_equal(n_allocated, 3 << 9);
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(list[i], i);
	/* What cannot be had leaves everything as it was. */
	assert_int_equal(array_grow(&list, n_allocated, &n_allocated, 3, SIZE_MAX / 2), -ENOMEM);
	assert_int_equal(n_allocated, 3 << 9);
	assert_int_equal(list[999], 999);
	free(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_range_against_model),
		cmocka_unit_test(test_range_part),
		cmocka_unit_test(test_range_array_valid),
		cmocka_unit_test(test_uuid),
		cmocka_unit_test(test_error_sentence),
		cmocka_unit_test(test_directory),
		cmocka_unit_test(test_pread),
		cmocka_unit_test(test_array),
		cmocka_unit_test(test_descriptor_table),
		cmocka_unit_test(test_process),
		cmocka_unit_test(test_process_fds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
