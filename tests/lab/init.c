/*
 * The lab's own helper program: everything that a lab host needs below the shell.
 *
 *   start net|host PROG ARG...     new namespaces, PROG in them as a daemon; prints its pid
 *   init                           pid 1 of a host: reaps, for ever
 *   hold                           keeps the namespaces it was started in, for ever
 *   join PID exec DIR CMD ARG...   run CMD in the namespaces of PID, in DIR (or / where the host has no DIR)
 *   join PID spawn [-l LOG] [-u USER] [-p] CMD ARG...
 *                                  CMD as a daemon with its descriptors opened in the host; prints its pid there
 *   kill PID...                    SIGKILL all of them and wait until they are gone
 *
 * Invariants: "init" never starts anything, so every child it has is an orphan to be reaped; what "spawn"
 * starts holds no descriptor that leads outside the host, because CRIU could not dump it otherwise.
 * Threads: none.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NOT_EXECUTABLE = 126, /* as a shell has it */
	EXIT_NOT_FOUND = 127,
	KILL_DEADLINE_MS = 10000,
	KILL_MAX = 1024,
};

struct spawn {
	const char *log;
	const char *user;
	bool new_pidns;
	char **argv;
};

__attribute__((format(printf, 2, 3), noreturn)) static void fail(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("lab: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(status);
}

static int exec_status(int error)
{
	return error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

/* Does not return: the program runs, or we leave with the status that a shell would give. */
__attribute__((noreturn)) static void exec_or_fail(char **argv)
{
	execvp(argv[0], argv);
	fail(exec_status(errno), "cannot run %s: %s", argv[0], strerror(errno));
}

static pid_t parse_pid(const char *text)
{
	char *end;
	long pid = strtol(text, &end, 10);

	if (*end != '\0' || pid < 1 || pid > INT32_MAX)
		fail(EXIT_USAGE, "%s is no pid", text);
	return (pid_t)pid;
}

static void open_onto(const char *path, int flags, int fd)
{
	int opened = open(path, flags | O_NOCTTY | O_CLOEXEC, 0644);

	if (opened < 0)
		fail(EXIT_FAILED, "cannot open %s: %s", path, strerror(errno));
	if (opened == fd) {
		if (fcntl(fd, F_SETFD, 0) < 0)
			fail(EXIT_FAILED, "cannot keep %s open: %s", path, strerror(errno));
		return;
	}
	if (dup2(opened, fd) < 0)
		fail(EXIT_FAILED, "cannot put %s on descriptor %d: %s", path, fd, strerror(errno));
	close(opened);
}

static void print_pid(pid_t pid)
{
	printf("%d\n", (int)pid);
	if (fflush(stdout) != 0)
		fail(EXIT_FAILED, "cannot print a pid: %s", strerror(errno));
}

/* The child's stdout and stderr stay the caller's: that is how PROG reports that it is ready. */
static int run_start(int argc, char **argv)
{
	int flags = CLONE_NEWNET;
	pid_t child;

	if (argc < 2)
		fail(EXIT_USAGE, "start needs net or host, and a program");
	if (strcmp(argv[0], "host") == 0)
		flags |= CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP;
	else if (strcmp(argv[0], "net") != 0)
		fail(EXIT_USAGE, "start knows net and host, not %s", argv[0]);
	if (unshare(flags) < 0)
		fail(EXIT_FAILED, "cannot make namespaces: %s", strerror(errno));
	child = fork();
	if (child < 0)
		fail(EXIT_FAILED, "cannot fork: %s", strerror(errno));
	if (child > 0) {
		print_pid(child);
		return 0;
	}
	setsid();
	if (chdir("/") < 0)
		fail(EXIT_FAILED, "cannot go to /: %s", strerror(errno));
	open_onto("/dev/null", O_RDONLY, STDIN_FILENO);
	close_range(STDERR_FILENO + 1, ~0U, 0);
	exec_or_fail(argv + 1);
}

static void detach_stdio(void)
{
	open_onto("/dev/null", O_RDWR, STDIN_FILENO);
	open_onto("/dev/null", O_RDWR, STDOUT_FILENO);
	open_onto("/dev/null", O_RDWR, STDERR_FILENO);
	close_range(STDERR_FILENO + 1, ~0U, 0);
}

__attribute__((noreturn)) static void run_hold(void)
{
	detach_stdio();
	for (;;)
		pause();
}

__attribute__((noreturn)) static void run_init(void)
{
	sigset_t child;

	prctl(PR_SET_NAME, "lab-init");
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	detach_stdio();
	for (;;) {
		/* One SIGCHLD may stand for many children, and for those that ended before it was blocked. */
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		sigwaitinfo(&child, NULL);
	}
}

__attribute__((noreturn)) static void run_exec(int argc, char **argv)
{
	if (argc < 2)
		fail(EXIT_USAGE, "exec needs a directory and a command");
	if (chdir(argv[0]) < 0 && chdir("/") < 0)
		fail(EXIT_FAILED, "cannot go to /: %s", strerror(errno));
	exec_or_fail(argv + 1);
}

static void become_user(const char *name)
{
	struct passwd *user;

	errno = 0;
	user = getpwnam(name);
	if (user == NULL)
		fail(EXIT_FAILED, "no user named %s", name);
	if (initgroups(user->pw_name, user->pw_gid) < 0 || setgid(user->pw_gid) < 0 || setuid(user->pw_uid) < 0)
		fail(EXIT_FAILED, "cannot become %s: %s", name, strerror(errno));
	if (setenv("HOME", user->pw_dir, 1) < 0 || setenv("USER", name, 1) < 0)
		fail(EXIT_FAILED, "cannot set the environment: %s", strerror(errno));
}

/* Above the standard descriptors, so that setting those up cannot overwrite it. */
static int open_high(const char *path, int flags)
{
	int low = open(path, flags | O_NOCTTY | O_CLOEXEC, 0644);
	int high = low < 0 ? -1 : fcntl(low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);

	if (high < 0)
		fail(EXIT_FAILED, "cannot open %s: %s", path, strerror(errno));
	close(low);
	return high;
}

/* Runs in the daemon, where only the exec may fail in practice: that comes back through report_fd as an errno. */
__attribute__((noreturn)) static void become_daemon(char **argv, int input_fd, int output_fd, int report_fd)
{
	sigset_t none;
	int error = 0;

	setsid();
	umask(022);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(input_fd, STDIN_FILENO) < 0 || dup2(output_fd, STDOUT_FILENO) < 0 ||
	    dup2(output_fd, STDERR_FILENO) < 0 || close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		error = errno;
	if (error == 0) {
		execvp(argv[0], argv);
		error = errno;
	}
	(void)!write(report_fd, &error, sizeof(error));
	_exit(exec_status(error));
}

static void parse_spawn(int argc, char **argv, struct spawn *ret_spawn)
{
	struct spawn spawn = { 0 };
	int i = 0;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--") == 0) {
			i++;
			break;
		}
		if (strcmp(argv[i], "-p") == 0)
			spawn.new_pidns = true;
		else if (strcmp(argv[i], "-l") == 0 && i + 1 < argc)
			spawn.log = argv[++i];
		else if (strcmp(argv[i], "-u") == 0 && i + 1 < argc)
			spawn.user = argv[++i];
		else
			fail(EXIT_USAGE, "spawn does not know %s", argv[i]);
	}
	if (i >= argc)
		fail(EXIT_USAGE, "spawn needs a command");
	spawn.argv = argv + i;
	*ret_spawn = spawn;
}

static int run_spawn(int argc, char **argv)
{
	struct spawn spawn;
	int input_fd, output_fd, error;
	int report[2];
	pid_t child;

	parse_spawn(argc, argv, &spawn);
	if (spawn.new_pidns && unshare(CLONE_NEWPID) < 0)
		fail(EXIT_FAILED, "cannot make a pid namespace: %s", strerror(errno));
	/* Not /, which is read-only: of a task in another pid namespace CRIU makes a mount point where the task is. */
	if (chdir("/tmp") < 0)
		fail(EXIT_FAILED, "cannot go to /tmp: %s", strerror(errno));
	if (spawn.user != NULL)
		become_user(spawn.user);
	input_fd = open_high("/dev/null", O_RDONLY);
	output_fd = open_high(spawn.log ? spawn.log : "/dev/null", O_WRONLY | O_CREAT | O_APPEND);
	if (pipe2(report, O_CLOEXEC) < 0)
		fail(EXIT_FAILED, "cannot make a pipe: %s", strerror(errno));
	child = fork();
	if (child < 0)
		fail(EXIT_FAILED, "cannot fork: %s", strerror(errno));
	if (child == 0)
		become_daemon(spawn.argv, input_fd, output_fd, report[1]);
	close(report[1]);
	if (read(report[0], &error, sizeof(error)) == (ssize_t)sizeof(error))
		fail(exec_status(error), "cannot run %s: %s", spawn.argv[0], strerror(error));
	print_pid(child);
	return 0;
}

static void enter_namespaces(pid_t pid)
{
	const int all = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP;
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0 || setns(fd, all) < 0)
		fail(EXIT_FAILED, "cannot enter the host of process %d: %s", (int)pid, strerror(errno));
	close(fd);
}

/* Ends as the child did, so that the caller sees the very status that it would have seen without us. */
__attribute__((noreturn)) static void end_like(int status)
{
	const struct rlimit no_core = { 0 };

	if (WIFEXITED(status))
		exit(WEXITSTATUS(status));
	setrlimit(RLIMIT_CORE, &no_core);
	signal(WTERMSIG(status), SIG_DFL);
	raise(WTERMSIG(status));
	exit(128 + WTERMSIG(status));
}

/*
 * What is sent to us is meant for the child. Sharing a terminal, both get what the terminal sends, and only what
 * kill(2) sent is passed on; otherwise the child has a process group of its own, and everything is.
 */
__attribute__((noreturn)) static void wait_for(pid_t child, const sigset_t *relayed, bool shares_terminal)
{
	int status;

	for (;;) {
		siginfo_t info;
		int number = sigwaitinfo(relayed, &info);

		if (number == SIGCHLD) {
			if (waitpid(child, &status, WNOHANG) == child)
				break;
		} else if (number > 0 && (!shares_terminal || info.si_code <= 0)) {
			kill(child, number);
		}
	}
	sigprocmask(SIG_UNBLOCK, relayed, NULL);
	end_like(status);
}

static int run_join(int argc, char **argv)
{
	static const int numbers[] = { SIGCHLD, SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2 };
	bool shares_terminal = isatty(STDIN_FILENO);
	sigset_t relayed, before;
	pid_t child;

	if (argc < 2)
		fail(EXIT_USAGE, "join needs a pid, and exec or spawn");
	enter_namespaces(parse_pid(argv[0]));
	sigemptyset(&relayed);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		sigaddset(&relayed, numbers[i]);
	sigprocmask(SIG_BLOCK, &relayed, &before);
	child = fork();
	if (child < 0)
		fail(EXIT_FAILED, "cannot fork: %s", strerror(errno));
	if (child > 0)
		wait_for(child, &relayed, shares_terminal);
	/* Whoever kills us outright means the command too; it would go on unseen in the host otherwise. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!shares_terminal)
		setpgid(0, 0);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (strcmp(argv[1], "exec") == 0)
		run_exec(argc - 2, argv + 2);
	if (strcmp(argv[1], "spawn") == 0)
		return run_spawn(argc - 2, argv + 2);
	fail(EXIT_USAGE, "join knows exec and spawn, not %s", argv[1]);
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int run_kill(int argc, char **argv)
{
	struct pollfd waiting[KILL_MAX];
	int64_t deadline_ms = now_ms() + KILL_DEADLINE_MS;
	int count = 0;

	for (int i = 0; i < argc && count < KILL_MAX; i++) {
		pid_t pid = parse_pid(argv[i]);
		int fd = (int)syscall(SYS_pidfd_open, pid, 0);

		if (fd < 0 && errno != ESRCH)
			fail(EXIT_FAILED, "cannot watch process %d: %s", (int)pid, strerror(errno));
		if (fd < 0)
			continue;
		if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
			fail(EXIT_FAILED, "cannot end process %d: %s", (int)pid, strerror(errno));
		waiting[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	for (int i = 0; i < count; i++) {
		int64_t left_ms = deadline_ms - now_ms();
		int ready = poll(&waiting[i], 1, left_ms > 0 ? (int)left_ms : 0);

		if (ready <= 0)
			fail(EXIT_FAILED, "a process does not end, %d s after SIGKILL", KILL_DEADLINE_MS / 1000);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (strcmp(verb, "start") == 0)
		return run_start(argc - 2, argv + 2);
	if (strcmp(verb, "init") == 0)
		run_init();
	if (strcmp(verb, "hold") == 0)
		run_hold();
	if (strcmp(verb, "join") == 0)
		return run_join(argc - 2, argv + 2);
	if (strcmp(verb, "kill") == 0)
		return run_kill(argc - 2, argv + 2);
	fail(EXIT_USAGE, "lab-init start|init|hold|join|kill, used by tests/lab/lab");
}
