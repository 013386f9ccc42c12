/*
 * Unit tests of driver/: real process trees described, stopped, and compared with this host as a target. Needs root. What
 * stands in the way at the source: test-obstacles.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "driver/files.h"
#include "driver/scan.h"
#include "driver-children.h"

#define STATE_WAIT_MS 5000

static char directory[64];

static void test_ids(void **state)
{
	static const char *const bad[] = { "", "x", "12x", " 12", "+12", "-1", "0", "99999999999", "1" };
	struct workload w = { 0 };
	struct error err;
	char text[16];
	pid_t pid = fork();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(driver_pid.describe(bad[i], NULL, &w, &err), -EINVAL);
	assert_int_equal(driver_pid.describe("4194303", NULL, &w, &err), -ESRCH);
	assert_ptr_equal(driver_find("pid"), &driver_pid);
	assert_null(driver_find("vz"));
	assert_ptr_equal(driver_all()[0], &driver_pid);
	if (!pid)
		_exit(0);
	assert_int_equal(waitid(P_PID, (id_t)pid, &(siginfo_t){ 0 }, WEXITED | WNOWAIT), 0);
	snprintf(text, sizeof(text), "%d", pid);
	assert_int_equal(driver_pid.describe(text, NULL, &w, &err), -EINVAL);
	assert_non_null(strstr(err.text, "has ended"));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	if (!access("/proc/2", F_OK)) {
		assert_int_equal(driver_pid.describe("2", NULL, &w, &err), -EINVAL);
		assert_non_null(strstr(err.text, "kernel thread"));
	}
	assert_null(w.processes);
}

static pid_t *shared_tid;

static void *thread_main(void *context)
{
	(void)context;
	__atomic_store_n(shared_tid, gettid(), __ATOMIC_RELEASE);
	wait_forever();
}

static void with_thread_and_child(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, thread_main, NULL);
	while (!__atomic_load_n(shared_tid, __ATOMIC_ACQUIRE))
		sched_yield();
	if (!fork()) {
		close(100);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		wait_forever();
	}
}

static bool has_pid(const struct workload *w, pid_t pid)
{
	for (size_t i = 0; i < w->n_pids; i++)
		if (w->pids[i] == pid)
			return true;
	return false;
}

static const struct workload_file *find_file(const struct workload *w, const char *suffix)
{
	for (size_t i = 0; i < w->n_files; i++) {
		size_t n = strlen(w->files[i].path), m = strlen(suffix);

		if (n >= m && !strcmp(w->files[i].path + n - m, suffix))
			return &w->files[i];
	}
	return NULL;
}

static void test_describe(void **state)
{
	struct workload w = { 0 };
	const struct workload_file *f;
	struct checkpoint_way way;
	struct error err;
	pid_t *pids, *image_pids, pid;
	char text[16];
	size_t n;

	(void)state;
	shared_tid = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = spawn(with_thread_and_child);
	describe(pid, &w);
	assert_string_equal(w.type, "pid");
	assert_int_equal(w.root_pid, pid);
	assert_int_equal(w.n_processes, 2);
	assert_int_equal(w.processes[0].threads, 2);
	assert_int_equal(w.processes[0].image_pid, pid);
	assert_int_equal(w.processes[1].threads, 1);
	assert_true(w.session_leader && !w.has_terminal && !w.own_pid_namespace);
	assert_true(w.resident_bytes > 0 &&
		    w.resident_bytes == w.processes[0].resident_bytes + w.processes[1].resident_bytes);
	assert_int_equal(w.n_pids, 3);
	assert_true(has_pid(&w, pid) && has_pid(&w, *shared_tid) && has_pid(&w, w.processes[1].pid));
	f = find_file(&w, "test-driver");
	assert_non_null(f);
	assert_int_equal(f->use, FILE_USE_EXECUTABLE);
	assert_true(f->hash != 0);
	assert_non_null(find_file(&w, "libc.so.6"));
	assert_int_equal(driver_pid.way(&w, NULL, &way, &err), 0);
	assert_true(way.root_pid == pid && !way.shell_job && way.tcp_established && way.file_locks);
	assert_true(way.ghost_limit_bytes >= 64U << 20);
	checkpoint_way_free(&way);
	assert_int_equal(driver_pid.processes(&w, &pids, &image_pids, &n, &err), 0);
	assert_int_equal(n, 2);
	assert_true(pids[0] == pid && pids[1] == w.processes[1].pid && image_pids[1] == pids[1]);
	free(pids);
	free(image_pids);
	/* A thread's number is not a process. */
	snprintf(text, sizeof(text), "%d", *shared_tid);
	workload_free(&w);
	assert_int_equal(driver_pid.describe(text, NULL, &w, &err), -EINVAL);
	assert_non_null(strstr(err.text, "is a thread of process"));
	reap(pid);
	munmap(shared_tid, 4096);
}

static void own_group(void)
{
	/* Not a session leader any more: a child that goes on while its parent, the leader, waits. */
	if (!fork()) {
		close(100);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		wait_forever();
	}
}

static void test_not_a_leader(void **state)
{
	struct workload w = { 0 }, child = { 0 };
	struct checkpoint_way way;
	pid_t pid = spawn(own_group);
	struct error err;

	(void)state;
	describe(pid, &w);
	assert_int_equal(w.n_processes, 2);
	describe(w.processes[1].pid, &child);
	assert_false(child.session_leader);
	assert_int_equal(driver_pid.way(&child, NULL, &way, &err), 0);
	assert_true(way.shell_job);
	/* The session outside is replaced by CRIU: it need not be free at the target. */
	assert_int_equal(child.n_pids, 1);
	assert_int_equal(child.pids[0], child.root_pid);
	workload_free(&w);
	workload_free(&child);
	reap(pid);
}

static char state_of(pid_t pid)
{
	struct tree_process p;

	assert_int_equal(tree_read_process(pid, &p, NULL), 0);
	return p.state;
}

static bool reaches(pid_t pid, char wanted)
{
	uint64_t deadline = deadline_in_ms(STATE_WAIT_MS);

	while (state_of(pid) != wanted && clock_now_ns() < deadline)
		sched_yield();
	return state_of(pid) == wanted;
}

static void test_stop_and_unstop(void **state)
{
	struct workload w = { 0 };
	pid_t pid = spawn(own_group), child;
	struct error err;

	(void)state;
	describe(pid, &w);
	child = w.processes[1].pid;
	kill(child, SIGSTOP);
	assert_true(reaches(child, 'T'));
	workload_free(&w);
	describe(pid, &w);
	assert_true(!w.processes[0].stopped && w.processes[1].stopped);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(driver_pid.stop_firmly(&w, &err), 0);
		assert_true(reaches(pid, 'T'));
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(driver_pid.unstop(&w, &err), 0);
		assert_true(reaches(pid, 'S'));
	}
	assert_int_equal(state_of(child), 'T'); /* as its user left it */
	workload_free(&w);
	reap(pid);
}

static size_t count_refusals(const struct workload *w, const struct driver_options *options, const char *words)
{
	struct obstacles o = { 0 };
	struct error err = { 0 };
	size_t n = 0;

	if (driver_pid.check_target(w, options, &o, &err) < 0)
		fail_msg("%s", err.text);
	for (size_t i = 0; i < o.n; i++) {
		assert_true(o.list[i].at_target);
		n += o.list[i].kind == OBSTACLE_REFUSES && strstr(o.list[i].what, words);
	}
	obstacles_free(&o);
	return n;
}

static void test_target(void **state)
{
	char path[96];
	struct workload_file file = { .path = path, .use = FILE_USE_EXECUTABLE, .mode = S_IFREG | 0755, .size = 3 };
	pid_t pid = spawn(NULL), ended = spawn(NULL);
	struct workload w = { .files = &file, .n_files = 1, .pids = &pid, .n_pids = 1, .resident_bytes = 4096 };
	const char *synced = directory;
	struct driver_options options = { .synced_paths = &synced, .n_synced_paths = 1 };

	(void)state;
	snprintf(path, sizeof(path), "%s/program", directory);
	assert_int_equal(count_refusals(&w, NULL, "in use at the target"), 1);
	assert_int_equal(count_refusals(&w, NULL, "is missing at the target"), 1);
	assert_int_equal(count_refusals(&w, &options, "is missing at the target"), 0);
	reap(ended);
	w.pids = &ended;
	assert_int_equal(count_refusals(&w, NULL, "in use at the target"), 0);
	assert_int_equal(fd_write_file(AT_FDCWD, path, "abc", 3, 0755), 0);
	assert_int_equal(files_hash(path, &file.hash), 0);
	assert_int_equal(count_refusals(&w, NULL, ""), 0);
	assert_int_equal(fd_write_file(AT_FDCWD, path, "abd", 3, 0755), 0);
	assert_int_equal(count_refusals(&w, NULL, "differs at the target"), 1);
	file = (struct workload_file){ .path = path, .use = FILE_USE_OPEN, .mode = S_IFREG, .size = 4 };
	assert_int_equal(count_refusals(&w, NULL, "has 3 bytes at the target and 4 at the source"), 1);
	file.writable = true;
	assert_int_equal(count_refusals(&w, NULL, ""), 0);
	file.use = FILE_USE_DIRECTORY;
	file.mode = S_IFDIR;
	assert_int_equal(count_refusals(&w, NULL, "another kind of file"), 1);
	w.n_files = 0;
	w.resident_bytes = 1ULL << 60;
	assert_int_equal(count_refusals(&w, NULL, "MiB in memory"), 1);
	w.resident_bytes = 0;
	ended = 4194304 + 1;
	assert_int_equal(count_refusals(&w, NULL, "process number"), 1);
	w.own_pid_namespace = true;
	assert_int_equal(count_refusals(&w, NULL, ""), 0);
	reap(pid);
	unlink(path);
}

static void test_obstacle_list(void **state)
{
	struct obstacles o = { 0 };

	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(obstacles_add(&o, OBSTACLE_WARNS, false, NULL, "warning %d", i), 0);
	assert_true(o.n < 1000 && !obstacles_refuse(&o));
	assert_int_equal(obstacles_add(&o, OBSTACLE_REFUSES, true, "cure", "refusal"), 0);
	assert_true(obstacles_refuse(&o));
	obstacles_free(&o);
	for (int i = 0; i < 3; i++)
		assert_int_equal(obstacles_add(&o, OBSTACLE_REFUSES, true, "cure", "the same"), 0);
	assert_int_equal(o.n, 1);
	obstacles_free(&o);
	obstacles_free(&o);
}

static void *idle_thread(void *context)
{
	(void)context;
	wait_forever();
}

static void large_tree(void)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	for (int i = 0; i < 63; i++) {
		if (fork())
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int j = 0; j < 15; j++) {
			pthread_t thread;

			if (pthread_create(&thread, &attr, idle_thread, NULL))
				_exit(1);
		}
		close(100);
		wait_forever();
	}
}

/* 64 processes, 1009 threads. The bound is loose, for a busy machine under sanitizers; the figure is in docs/driver-pid.md. */
static void test_large_tree(void **state)
{
	pid_t pid = spawn(large_tree), *pids, *image_pids;
	struct workload w = { 0 };
	uint64_t best = UINT64_MAX;
	struct error err;
	size_t n;

	(void)state;
	describe(pid, &w);
	assert_int_equal(w.n_processes, 64);
	assert_int_equal(w.n_pids, 64 + 63 * 15);
	for (int i = 0; i < 5; i++) {
		uint64_t start = clock_now_ns();

		assert_int_equal(driver_pid.processes(&w, &pids, &image_pids, &n, &err), 0);
		best = MIN(best, clock_now_ns() - start);
		assert_int_equal(n, 64);
		free(pids);
		free(image_pids);
	}
	print_message("# processes(): %.2f ms\n", (double)best / NS_PER_MS);
	assert_true(best < 200 * NS_PER_MS);
	workload_free(&w);
	reap(pid);
}

#define REUSED_FD 50

static void reuse_descriptor(void)
{
	char paths[2][96];
	int files[2];

	prctl(PR_SET_PDEATHSIG, SIGKILL);

	for (int i = 0; i < 2; i++) {
		snprintf(paths[i], sizeof(paths[i]), "%s/reused-%d", directory, i);
		files[i] = open(paths[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	}
	for (unsigned int i = 0;; i++)
		dup2(files[i % 2], REUSED_FD);
}

static int compare_name_and_file(void *context, const struct scan_fd *s)
{
	unsigned int *seen = context;
	struct stat named;

	if (s->fd != REUSED_FD)
		return 0;
	assert_int_equal(stat(s->target, &named), 0);
	assert_int_equal(named.st_ino, s->st.st_ino);
	(*seen)++;
	return 0;
}

/* A server's cache of open files uses the same numbers again and again, while we look. */
static void test_reused_descriptor(void **state)
{
	pid_t pid = fork();
	unsigned int seen = 0;

	(void)state;
	if (!pid)
		reuse_descriptor();
	for (int i = 0; i < 5000 || (!seen && i < 500000); i++)
		assert_int_equal(scan_fds(pid, compare_name_and_file, &seen), 0);
	assert_true(seen > 0);
	reap(pid);
}

static int setup(void **state)
{
	(void)state;
	snprintf(directory, sizeof(directory), "/tmp/phaul-driver-XXXXXX");
	return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return dir_remove(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids),	     cmocka_unit_test(test_describe),
		cmocka_unit_test(test_not_a_leader), cmocka_unit_test(test_stop_and_unstop),
		cmocka_unit_test(test_target),	     cmocka_unit_test(test_obstacle_list),
		cmocka_unit_test(test_large_tree),   cmocka_unit_test(test_reused_descriptor),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
