/*
 * phaul: finds the verb and hands over.
 *
 * Some verbs are not for people: phaul starts itself again as the pager's supervisor (memory/pager.h), as what holds a workload back
 * (migration/throttle.h), as rsync's remote shell (fs/sync.h) and as a driver's helper (driver/helper.h). They come first, before
 * anything else is set up: the pager's memory is locked.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/parse.h"
#include "cli/cli.h"
#include "driver/helper.h"
#include "fs/sync.h"
#include "memory/pager.h"
#include "migration/throttle.h"

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *usage, *summary;
} verbs[] = {
	{ "migrate", cli_migrate, "migrate TYPE ID --to TARGET", "move a running workload to another host" },
	{ "check", cli_check, "check TYPE ID --to TARGET", "say what would stand in the way; change nothing" },
	{ "serve", cli_serve, "serve", "take in workloads from other hosts (TLS)" },
	{ "receive", cli_receive, "receive", "take in one workload; started through ssh" },
	{ "pki", cli_pki, "pki init | issue NAME", "certificates for the hosts" },
	{ "checkpoint", cli_checkpoint, "checkpoint TYPE ID DIR", "save a running workload into a directory" },
	{ "restore", cli_restore, "restore TYPE DIR", "bring back what a checkpoint saved" },
	{ "status", cli_status, "status [ID]", "migrations of this host, and how to settle them" },
	{ "resume", cli_resume, "resume ID", "take up a migration that a crash left behind" },
	{ "resolve", cli_resolve, "resolve ID --keep SIDE", "decide which copy lives when the hosts cannot find out" },
	{ "cleanup", cli_cleanup, "cleanup", "list what crashes left here, and remove it" },
	{ "version", cli_version, "version", "versions of phaul and CRIU" },
};

static void print_help(void)
{
	puts("Usage: phaul VERB [ARGUMENT...] [OPTION...]\n\n"
	     "Moves running process trees to another host while they keep running.\n\n"
	     "Verbs:");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		printf("  %-30s%s\n", verbs[i].usage, verbs[i].summary);
	puts("\nTYPE is pid, runc, docker, podman or lxc. TARGET is HOST[:PORT], where phaul serve runs, or "
	     "ssh://[USER@]HOST[:PORT],\n"
	     "where phaul is installed. `phaul VERB --help` tells the options of a verb.\n\n"
	     "Options:\n"
	     "  -h, --help                      this text\n"
	     "      --version                   as phaul version\n\n"
	     "Exit status: 0 moved, or done; 1 not moved, the source still runs (the message says why);\n"
	     "2 wrong usage; 3 refused by the plan, nothing was touched; 4 outcome unknown, phaul status\n"
	     "says how to settle it.");
}

/* Processes that phaul starts for itself: pager, throttle. */
static int helper(int argc, char **argv, int (*run)(int control_fd))
{
	struct error err = { 0 };
	uint64_t fd;

	if (argc != 3 || parse_u64(argv[2], 3, INT_MAX, &fd, &err) < 0) {
		error_set(&err, EINVAL, "%s: it is started by phaul, not by hand", argv[1]);
		return cli_usage_error(&err);
	}
	return run((int)fd);
}

/* A descriptor below 3 that is not open would be given to the next file that is opened, and then printed into. */
static int open_standard_descriptors(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return -errno;
	return 0;
}

static int dispatch(int argc, char **argv)
{
	struct error err = { 0 };

	if (argc < 2) {
		error_set(&err, EINVAL, "it needs a verb, such as migrate or check (phaul --help)");
		return cli_usage_error(&err);
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		print_help();
		return CLI_OK;
	}
	if (!strcmp(argv[1], "--version"))
		argv[1] = "version";
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(argv[1], verbs[i].name))
			return verbs[i].run(argc - 1, argv + 1);
	error_set(&err, EINVAL, "there is no %s '%.64s' (phaul --help)", argv[1][0] == '-' ? "option" : "verb",
		  argv[1]);
	return cli_usage_error(&err);
}

int main(int argc, char **argv)
{
	int status;

	if (open_standard_descriptors() < 0)
		return CLI_FAILED;
	if (argc > 1 && !strcmp(argv[1], "pager"))
		return helper(argc, argv, pager_main);
	if (argc > 1 && !strcmp(argv[1], "throttle"))
		return helper(argc, argv, throttle_main);
	if (argc > 1 && !strcmp(argv[1], "rsync-stream"))
		return sync_stream_main(argc, argv);
	if (argc > 2 && !strcmp(argv[1], DRIVER_HELPER))
		return driver_helper_main(argc - 2, argv + 2);
	/* A peer or a reader that went away is an errno where it was written to. */
	signal(SIGPIPE, SIG_IGN);
	status = dispatch(argc, argv);
	if (fflush(stdout) == EOF && status == CLI_OK) {
		log_error("cannot write to standard output: %s", strerror(errno));
		status = CLI_FAILED;
	}
	return status;
}
