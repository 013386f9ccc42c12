/*
 * Unit tests of driver/: real processes, each made to have one property, described and checked. Needs root.
 *
 * What is expected to be refused here was refused by CRIU 4.2.1's dump too, and the rest was dumped. Children wait on
 * nothing but a signal, and are killed and reaped by the test that made them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/limits.h>
#include <mqueue.h>
#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "driver/driver.h"
#include "driver/files.h"
#include "driver/pid.h"

#define STATE_WAIT_MS 5000

static char directory[64];

/* What a child does to itself before it waits. */
typedef void child_fn(void);

static void __attribute__((noreturn)) wait_forever(void)
{
	for (;;)
		pause();
}

/* A session leader with stdio on /dev/null and nothing else open, which has run fn. It says that it is ready by closing a pipe. */
static pid_t spawn(child_fn *fn)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		if (chdir("/") < 0)
			_exit(1);
		for (int i = 0; i < 3; i++)
			dup2(null, i);
		dup2(ready[1], 3);
		close_range(4, ~0U, 0);
		dup3(3, 100, O_CLOEXEC); /* low numbers for what fn opens */
		close(3);
		if (fn)
			fn();
		close(100);
		wait_forever();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 0);
	close(ready[0]);
	return pid;
}

static void reap(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void describe(pid_t pid, struct workload *ret)
{
	struct error err = { 0 };
	char id[16];

	snprintf(id, sizeof(id), "%d", pid);
	if (driver_pid.describe(id, NULL, ret, &err) < 0)
		fail_msg("%s", err.text);
}

static void check_source(pid_t pid, const struct driver_options *options, struct obstacles *ret)
{
	struct workload w = { 0 };
	struct error err = { 0 };

	describe(pid, &w);
	if (driver_pid.check_source(&w, options, ret, &err) < 0)
		fail_msg("%s", err.text);
	workload_free(&w);
}

/* The only obstacle, when `words` is given, is of that kind and says so; none otherwise. */
static void source_says(child_fn *fn, enum obstacle_kind kind, const char *words)
{
	struct obstacles o = { 0 };
	pid_t pid = spawn(fn);

	check_source(pid, NULL, &o);
	reap(pid);
	if (o.n != (words ? 1 : 0) || (words && !strstr(o.list[0].what, words)))
		fail_msg("expected \"%s\", got %zu: %s", words ? words : "nothing", o.n, o.n ? o.list[0].what : "");
	if (words)
		assert_int_equal(o.list[0].kind, kind);
	obstacles_free(&o);
}

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
	assert_true(w.resident_bytes > 0 && w.resident_bytes == w.processes[0].resident_bytes + w.processes[1].resident_bytes);
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

static void outside_namespace(void)
{
	int ready[2];
	char byte;

	if (pipe2(ready, O_CLOEXEC) < 0 || unshare(CLONE_NEWPID) < 0)
		_exit(1);
	if (!fork()) {
		close(100);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		close_range(3, ~0U, 0);
		wait_forever();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 0)
		_exit(1);
	close(ready[0]);
}

static void test_own_pid_namespace(void **state)
{
	struct obstacles o = { 0 };
	struct workload w = { 0 }, inner = { 0 };
	pid_t pid = spawn(outside_namespace);

	(void)state;
	describe(pid, &w);
	assert_int_equal(w.n_processes, 2);
	assert_false(w.own_pid_namespace);
	describe(w.processes[1].pid, &inner);
	assert_true(inner.own_pid_namespace && inner.session_leader);
	assert_int_equal(inner.n_pids, 0);
	assert_int_equal(inner.processes[0].image_pid, 1);
	check_source(inner.root_pid, NULL, &o);
	assert_int_equal(o.n, 0);
	/* Seen from above, the same process is a nested namespace. */
	check_source(pid, NULL, &o);
	assert_true(obstacles_refuse(&o));
	assert_non_null(strstr(o.list[0].what, "pid namespace"));
	obstacles_free(&o);
	workload_free(&w);
	workload_free(&inner);
	reap(pid);
}

/* What CRIU dumps. */

static void open_many(void)
{
	char path[PATH_MAX];
	int ends[2], master, slave;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0 || pipe(ends) < 0 || openpty(&master, &slave, NULL, NULL, NULL) < 0)
		_exit(1);
	snprintf(path, sizeof(path), "%s/ghost", directory);
	if (open(path, O_RDWR | O_CREAT, 0600) < 0 || unlink(path) < 0 || open("/dev/urandom", O_RDONLY) < 0)
		_exit(1);
	if (syscall(SYS_memfd_create, "x", 0) < 0 || open("/proc/self/status", O_RDONLY) < 0 || socket(AF_NETLINK, SOCK_RAW, 0) < 0)
		_exit(1);
	mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void with_zombie(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	waitid(P_PID, (id_t)pid, &(siginfo_t){ 0 }, WEXITED | WNOWAIT);
}

static void test_no_obstacles(void **state)
{
	(void)state;
	source_says(NULL, OBSTACLE_INVALID, NULL);
	source_says(open_many, OBSTACLE_INVALID, NULL);
	source_says(with_zombie, OBSTACLE_INVALID, NULL);
}

/* What it does not. */

static void open_userfaultfd(void)
{
	if (syscall(SYS_userfaultfd, O_CLOEXEC) < 0)
		_exit(1);
}

static void open_sysv_memory(void)
{
	int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);

	shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
}

static void open_hard_link(void)
{
	char path[PATH_MAX], other[PATH_MAX];

	snprintf(path, sizeof(path), "%s/linked", directory);
	snprintf(other, sizeof(other), "%s/other", directory);
	if (open(path, O_RDWR | O_CREAT, 0600) < 0 || link(path, other) < 0 || unlink(path) < 0)
		_exit(1);
}

static void open_large_ghost(void)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/large", directory);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0 || unlink(path) < 0 || posix_fallocate(fd, 0, 65 << 20))
		_exit(1);
}

static void open_vsock(void)
{
	if (socket(AF_UNIX, SOCK_DGRAM, 0) < 0 || socket(AF_INET, SOCK_STREAM, 262) < 0)
		_exit(1);
}

static void open_queue(void)
{
	if (mq_open("/phaul-test-driver", O_RDWR | O_CREAT, 0600, NULL) < 0)
		_exit(1);
	mq_unlink("/phaul-test-driver");
}

static void own_mounts(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		_exit(1);
}

static void own_network(void)
{
	if (unshare(CLONE_NEWNET) < 0)
		_exit(1);
}

static void test_obstacles(void **state)
{
	(void)state;
	source_says(open_userfaultfd, OBSTACLE_REFUSES, "userfaultfd");
	source_says(open_sysv_memory, OBSTACLE_REFUSES, "System V");
	source_says(open_hard_link, OBSTACLE_REFUSES, "under another name");
	source_says(open_large_ghost, OBSTACLE_REFUSES, "deleted files travel up to 64 MiB");
	source_says(open_vsock, OBSTACLE_REFUSES, "protocol 262");
	source_says(open_queue, OBSTACLE_REFUSES, "message queue");
	source_says(own_mounts, OBSTACLE_REFUSES, "mount namespace");
	source_says(own_network, OBSTACLE_WARNS, "network namespace");
}

static int outside[2]; /* ends that the child keeps one of */

static void keep_first(void)
{
	/* Its number went with close_range(); take it anew from the parent. */
	int pidfd = (int)syscall(SYS_pidfd_open, getppid(), 0);

	if (syscall(SYS_pidfd_getfd, pidfd, outside[0], 0) < 0)
		_exit(1);
	close(pidfd);
}

static void test_other_end_outside(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "\0phaul-test-driver" };
	int listener, swapped;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe2(outside, O_CLOEXEC), 0);
	source_says(keep_first, OBSTACLE_REFUSES, "reads from a pipe");
	swapped = outside[0];
	outside[0] = outside[1];
	outside[1] = swapped;
	source_says(keep_first, OBSTACLE_REFUSES, "writes to a pipe");
	/* Nobody holds the other end any more: nothing is lost. */
	pid = spawn(keep_first);
	close(outside[0]);
	close(outside[1]);
	{
		struct obstacles o = { 0 };

		check_source(pid, NULL, &o);
		assert_int_equal(o.n, 0);
		obstacles_free(&o);
	}
	reap(pid);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, outside), 0);
	source_says(keep_first, OBSTACLE_REFUSES, "unix socket");
	close(outside[0]);
	close(outside[1]);
	/* A datagram socket connected to a name, as syslog(3) has one. */
	listener = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	outside[0] = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(connect(outside[0], (struct sockaddr *)&address, sizeof(address)), 0);
	source_says(keep_first, OBSTACLE_REFUSES, "at @phaul-test-driver");
	close(listener);
	close(outside[0]);
}

static void test_terminal(void **state)
{
	struct driver_options options = { .shell_job = true };
	struct obstacles o = { 0 };
	struct workload w = { 0 };
	int master;
	pid_t pid;

	(void)state;
	assert_int_equal(openpty(&master, &outside[0], NULL, NULL, NULL), 0);
	source_says(keep_first, OBSTACLE_REFUSES, "uses the terminal");
	pid = spawn(keep_first);
	describe(pid, &w);
	assert_true(w.has_terminal);
	check_source(pid, &options, &o);
	assert_int_equal(o.n, 1);
	assert_int_equal(o.list[0].kind, OBSTACLE_WARNS);
	obstacles_free(&o);
	workload_free(&w);
	reap(pid);
	close(master);
	close(outside[0]);
}

static void test_ourselves(void **state)
{
	struct workload w = { .root_pid = getpid() };
	struct obstacles o = { 0 };
	struct error err;

	(void)state;
	assert_int_equal(driver_pid.check_source(&w, NULL, &o, &err), 0);
	assert_true(obstacles_refuse(&o));
	assert_non_null(strstr(o.list[0].what, "phaul itself"));
	obstacles_free(&o);
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
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_describe),
		cmocka_unit_test(test_not_a_leader),
		cmocka_unit_test(test_own_pid_namespace),
		cmocka_unit_test(test_no_obstacles),
		cmocka_unit_test(test_obstacles),
		cmocka_unit_test(test_other_end_outside),
		cmocka_unit_test(test_terminal),
		cmocka_unit_test(test_ourselves),
		cmocka_unit_test(test_stop_and_unstop),
		cmocka_unit_test(test_target),
		cmocka_unit_test(test_obstacle_list),
		cmocka_unit_test(test_large_tree),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
