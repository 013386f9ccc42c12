/*
 * Unit tests of driver/: what would stop a dump, found on real processes. Needs root.
 *
 * What is expected to be refused here was refused by CRIU 4.2.1's dump too, and the rest was dumped, but for pipes: docs/driver-pid.md.
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

#include "base/fd.h"
#include "driver-children.h"

static char directory[64];

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

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0 || pipe(ends) < 0 ||
	    openpty(&master, &slave, NULL, NULL, NULL) < 0)
		_exit(1);
	snprintf(path, sizeof(path), "%s/ghost", directory);
	if (open(path, O_RDWR | O_CREAT, 0600) < 0 || unlink(path) < 0 || open("/dev/urandom", O_RDONLY) < 0)
		_exit(1);
	if (syscall(SYS_memfd_create, "x", 0) < 0 || open("/proc/self/status", O_RDONLY) < 0 ||
	    socket(AF_NETLINK, SOCK_RAW, 0) < 0 ||
	    mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		_exit(1);
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
		cmocka_unit_test(test_own_pid_namespace), cmocka_unit_test(test_no_obstacles),
		cmocka_unit_test(test_obstacles),	  cmocka_unit_test(test_other_end_outside),
		cmocka_unit_test(test_terminal),	  cmocka_unit_test(test_ourselves),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
