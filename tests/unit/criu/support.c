/*
 * The world of the live tests, and what they ask of it.
 *
 * The world is a pid namespace with an init that reaps (restored trees become its children), a mount namespace with /run and
 * /tmp on tmpfs (CRIU caches what it knows of the kernel in /run only there), a network namespace with loopback.
 */
#include "criu/support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/process.h"

/* A /tmp of our own, in which the build directory is still where it was, should it be there. */
static int cover_tmp(void)
{
	char build[4096];
	ssize_t n = readlink("/proc/self/exe", build, sizeof(build) - 1);
	_cleanup_close_ int tree = -1;
	int r;

	build[n > 0 ? n : 0] = 0;
	for (int i = 0; i < 3 && strrchr(build, '/'); i++) /* BUILD/tests/unit/PROGRAM */
		*strrchr(build, '/') = 0;
	if (strncmp(build, "/tmp/", strlen("/tmp/")) == 0) {
		tree = open_tree(AT_FDCWD, build, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
		if (tree < 0)
			return -errno;
	}
	if (mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777") < 0)
		return -errno;
	if (tree < 0)
		return 0;
	r = dir_make(build, 0755);
	if (!r && move_mount(tree, "", AT_FDCWD, build, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		r = -errno;
	return r;
}

static int world_prepare(void)
{
	struct ifreq up = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("proc", "/proc", "proc", 0, NULL) < 0 ||
	    mount("tmpfs", "/run", "tmpfs", 0, "mode=755") < 0)
		return -errno;
	r = cover_tmp();
	if (r < 0)
		return r;
	/* The directory from which we were started may be hidden now, and is dumped with the tasks. */
	if (chdir("/") < 0)
		return -errno;
	r = ioctl(s, SIOCSIFFLAGS, &up);
	close(s);
	return r < 0 ? -errno : 0;
}

/* Starts the program anew: the running image was opened in the old mount namespace, which CRIU cannot describe. */
static void world_exec(void)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		self[n] = 0;
		execl(self, self, "--world", NULL);
	}
	_exit(1);
}

int world_run(int argc, char **argv, int (*main_in_world)(void))
{
	int status = 1;
	pid_t init, worker;

	if (argc == 2 && strcmp(argv[1], "--world") == 0)
		return main_in_world();

	if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET) < 0)
		return 77; /* skipped: no rights */
	init = fork();
	if (init > 0) {
		waitpid(init, &status, 0);
		return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	}
	if (world_prepare() < 0)
		_exit(77);
	worker = fork();
	if (worker == 0)
		world_exec();
	for (;;) {
		pid_t pid = waitpid(-1, &status, 0);

		if (pid == worker) /* the end of this init ends everything in its namespace */
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
	}
}

static void nap(void)
{
	struct timespec ts = { .tv_nsec = 500000 };

	nanosleep(&ts, NULL);
}

void assert_runs(const struct workload *w)
{
	uint64_t deadline = deadline_in_ms(5000), before = w->shared->ticks;

	while (w->shared->ticks < before + 5) {
		if (clock_now_ns() > deadline)
			fail_msg("the workload does not run (state %c)", process_state(w->pid));
		nap();
	}
	if (w->shared->errors)
		fail_msg("the workload found %llu errors (the last errno: %llu)", (unsigned long long)w->shared->errors,
			 (unsigned long long)w->shared->thread_ticks[0]);
}

void assert_still(const struct workload *w)
{
	uint64_t deadline = deadline_in_ms(30), before = w->shared->ticks;

	while (clock_now_ns() < deadline)
		nap();
	assert_int_equal(w->shared->ticks, before);
}

void assert_gone(pid_t pid)
{
	uint64_t deadline = deadline_in_ms(5000);

	while (process_state(pid) && process_state(pid) != 'Z') {
		if (clock_now_ns() > deadline)
			fail_msg("process %d is still there, state %c", pid, process_state(pid));
		nap();
	}
	while (waitpid(pid, NULL, WNOHANG) > 0)
		;
}

void assert_ok(int r, const struct error *err)
{
	if (r < 0)
		fail_msg("%s (%d)", err->text, r);
}

static long status_field(pid_t pid, const char *name)
{
	char path[64], line[256];
	long value = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0)
			value = name[0] == 'S' ? line[strlen(name) + 1] : atol(line + strlen(name));
	if (f)
		fclose(f);
	return value;
}

char process_state(pid_t pid)
{
	long state = status_field(pid, "State:");

	return state < 0 ? 0 : (char)state;
}

pid_t process_tracer(pid_t pid)
{
	return (pid_t)status_field(pid, "TracerPid:");
}

pid_t process_parent(pid_t pid)
{
	return (pid_t)status_field(pid, "PPid:");
}

int count_workloads(void)
{
	DIR *d = opendir("/proc");
	int n = 0;

	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		pid_t pid = atoi(e->d_name);
		char s = pid > 1 && pid != getpid() ? process_state(pid) : 0;

		n += s && s != 'Z';
	}
	if (d)
		closedir(d);
	return n;
}

struct criu_options fresh_options(void)
{
	static char images[64], work[64];
	static unsigned int counter;

	snprintf(images, sizeof(images), "/tmp/images-%u", counter);
	snprintf(work, sizeof(work), "/tmp/work-%u", counter++);
	assert_int_equal(dir_make(images, 0700), 0);
	assert_int_equal(dir_make(work, 0700), 0);
	return (struct criu_options){ .images_directory = images,
				      .work_directory = work,
				      .tcp_established = true,
				      .file_locks = true,
				      .timeout_s = 30 };
}

static int count_lines(const char *path, const char *column_state)
{
	char line[512], state[8];
	FILE *f = fopen(path, "re");
	int n = 0;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %*s %*s %7s", state) == 1 && strcmp(state, column_state) == 0)
			n++;
	if (f)
		fclose(f);
	return n;
}

int count_listeners(void)
{
	return count_lines("/proc/self/net/tcp", "0A") + count_lines("/proc/self/net/tcp6", "0A");
}

int count_criu_tables(void)
{
	static const char *const argv[] = { "nft", "list", "tables", NULL };
	_cleanup_buffer_ struct buffer b = { 0 };
	struct error err;
	const char *p;
	int n = 0;

	assert_int_equal(process_run(argv, &b, deadline_in_ms(10000), &err), 0);
	assert_int_equal(buffer_append(&b, "", 1), 0);
	for (p = (char *)b.data; (p = strstr(p, "CRIU-")); p++)
		n++;
	return n;
}

void job_start(const struct criu_options *o, struct criu_job **ret)
{
	struct error err = { 0 };

	assert_ok(criu_start(o, ret, &err), &err);
	assert_true(criu_program_pid(*ret) > 0);
}

struct criu_job *dump_held(const struct criu_options *o, const struct workload *w)
{
	struct error err = { 0 };
	struct criu_job *job;
	uint64_t start;

	job_start(o, &job);
	start = clock_now_ns();
	assert_ok(criu_dump(job, w->pid, -1, &err), &err);
	print_message("# dump held after %.1f ms\n", (double)(clock_now_ns() - start) / 1e6);
	return job;
}

/* Dumps with all memory and kills; what is restored comes from the images alone. */
void dump_away(const struct criu_options *o, const struct workload *w)
{
	struct error err = { 0 };
	struct criu_job *job = dump_held(o, w);

	assert_ok(criu_dump_commit(job, &err), &err);
	assert_gone(w->pid);
	criu_free(job);
}
