/* heartbeat: sends the beat, and nothing else; used beside a real service to see from outside when it stands still.
 *
 * With a command it starts that as its child, so that both are one process tree with the heartbeat as its root,
 * and ends when the child ends, with the child's status. SIGTERM and SIGINT are handed on to the child.
 * Invariants: the child has the signal mask and dispositions that heartbeat was started with.
 * Threads: one.
 */
#include "common.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t stop_signal;

static void on_stop(int number)
{
	stop_signal = number;
}

static void usage(FILE *out)
{
	fputs("usage: heartbeat --observer ADDR:PORT [options] [-- COMMAND ARGUMENT...]\n"
	      "Sends a UDP beat every millisecond; with COMMAND runs it as its child and ends with it.\n\n" BEAT_HELP
	      "  --user NAME             run COMMAND as this user (heartbeat itself stays what it is)\n"
	      "  --help                  print this\n",
	      out);
}

static int become_user(const char *name)
{
	errno = 0;
	const struct passwd *user = getpwnam(name);
	if (!user) {
		complain("--user: no user '%s'", name);
		return -ENOENT;
	}
	if (initgroups(name, user->pw_gid) < 0 || setgid(user->pw_gid) < 0 || setuid(user->pw_uid) < 0) {
		int r = -errno;
		complain("cannot become user '%s': %s", name, strerror(-r));
		return r;
	}
	return 0;
}

static int spawn(char *const *command, const char *user, pid_t *ret_pid)
{
	pid_t parent = getpid();
	pid_t pid = fork();
	if (pid < 0) {
		complain("cannot fork: %s", strerror(errno));
		return -errno;
	}
	if (pid == 0) {
		if (user && become_user(user) < 0)
			_exit(126);
		/* After the change of user, which clears it. A service must not outlive its root. */
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
			_exit(126);
		execvp(command[0], command);
		complain("cannot run '%s': %s", command[0], strerror(errno));
		_exit(127);
	}
	*ret_pid = pid;
	return 0;
}

/* Beats until the child ends or, without one, until a signal. Returns the exit status. */
static int beat_until_end(struct beater *beater, uint64_t period_us, pid_t child)
{
	struct ticker ticker;
	struct beat beat = { 0 };
	ticker_start(&ticker, period_us * 1000);
	for (;;) {
		int status;
		if (stop_signal && child <= 0)
			return EXIT_SUCCESS;
		if (stop_signal) {
			kill(child, stop_signal);
			stop_signal = 0;
		}
		if (child > 0 && waitpid(child, &status, WNOHANG) == child)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		if (ticker_wait(&ticker) == 0) {
			beat.work++;
			beater_send(beater, &beat);
		}
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = { BEAT_LONG_OPTIONS,
						 { "user", required_argument, NULL, 'u' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	struct beat_options beats = { .period_us = 1000 };
	const char *user = NULL;
	int key;
	program_name("heartbeat");
	while ((key = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
		if (key == 'h') {
			usage(stdout);
			return EXIT_SUCCESS;
		}
		if (key == 'u')
			user = optarg;
		else if (key == '?' || beat_options_take(&beats, key, optarg) < 0)
			return EXIT_USAGE;
	}
	if (!beats.observer || (user && optind == argc)) {
		complain("%s",
			 beats.observer ? "--user needs a COMMAND" : "--observer ADDR:PORT is missing; see --help");
		return EXIT_USAGE;
	}
	struct beater beater;
	if (beater_open(&beats, &beater) < 0)
		return EXIT_FAILURE;
	pid_t child = 0;
	if (optind < argc && spawn(argv + optind, user, &child) < 0)
		return EXIT_FAILURE;
	/* Only now, so that the child does not inherit them. No SA_RESTART: a signal ends the sleep. */
	struct sigaction action = { .sa_handler = on_stop };
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	return beat_until_end(&beater, beats.period_us, child);
}
