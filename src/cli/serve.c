/*
 * phaul serve: the destination service, in the foreground, until it is asked to end.
 *
 * One thread: workers are plain forks of it (migration/server.c). They inherit the signalfd, which reports each process its own
 * signals.
 */
#include <errno.h>
#include <fcntl.h>

#include "cli/cancel.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "migration/migration.h"
#include "transport/pki.h"

#define LISTEN_DEFAULT "[::]:7433"
#define WORKERS_DEFAULT 16
#define WORKERS_MAX 1024
#define TIMEOUT_MAX_S 86400
#define TIMEOUT_DEFAULT_S 30
#define FD_MAX 1048576
#define NO_FD UINT64_MAX

struct settings {
	struct log_options log;
	const char *listen, *pki, *allow, *state_directory, *run_directory;
	uint64_t timeout, workers, ready_fd;
};

#define AT(member) offsetof(struct settings, member)

static const struct option_entry entries[] = {
	{ "listen", 'l', OPTION_TEXT, "ADDR:PORT", AT(listen), 0, 0,
	  "where to listen (default " LISTEN_DEFAULT
	  ": everywhere; only\nholders of a certificate of our authority get in)" },
	{ "pki", 0, OPTION_TEXT, "DIR", AT(pki), 0, 0, "certificates (default " PKI_DIRECTORY_DEFAULT ")" },
	{ "allow", 0, OPTION_TEXT, "NAME", AT(allow), 0, 0,
	  "take migrations only from the host with this certificate" },
	{ "workers", 0, OPTION_NUMBER, "N", AT(workers), 1, WORKERS_MAX, "migrations at the same time (default 16)" },
	{ "peer-timeout", 0, OPTION_NUMBER, "SECONDS", AT(timeout), 1, TIMEOUT_MAX_S,
	  "give up when a source is silent for so long (default 30)" },
	{ "timeout", 0, OPTION_NUMBER, "SECONDS", AT(timeout), 1, TIMEOUT_MAX_S, NULL },
	{ "ready-fd", 0, OPTION_NUMBER, "FD", AT(ready_fd), 1, FD_MAX,
	  "write \"port N\" to this descriptor once it listens" },
	DIRECTORY_OPTIONS(struct settings),
	LOG_OPTIONS(struct settings),
	{ .kind = OPTION_END },
};

static const struct option_table table = {
	"serve", "",
	"The destination service: takes in the workloads that other hosts send here. Runs in\n"
	"the foreground until SIGTERM or SIGINT. Exit status: 0 ended as asked; 1 it could\n"
	"not serve; 2 wrong usage.\n",
	entries
};

int cli_serve(int argc, char **argv)
{
	struct settings s = { .listen = LISTEN_DEFAULT,
			      .pki = PKI_DIRECTORY_DEFAULT,
			      .state_directory = CLI_STATE_DIRECTORY,
			      .run_directory = CLI_RUN_DIRECTORY,
			      .timeout = TIMEOUT_DEFAULT_S,
			      .workers = WORKERS_DEFAULT,
			      .ready_fd = NO_FD };
	const char *positional[POSITIONAL_MAX];
	_cleanup_close_ int signals = -1;
	struct error err = { 0 };
	struct server_options options;
	int r = options_parse(&table, argc, argv, &s, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (!r && s.ready_fd != NO_FD && fcntl((int)s.ready_fd, F_SETFD, FD_CLOEXEC) < 0)
		r = error_set(&err, EBADF, "serve: --ready-fd: descriptor %d is not open", (int)s.ready_fd);
	if (r < 0)
		return cli_usage_error(&err);
	if (log_options_apply(&s.log, &err) < 0)
		return cli_failure(&err);
	signals = cancel_open_signals(&err);
	if (signals < 0)
		return cli_failure(&err);
	options = (struct server_options){
		.listen = s.listen,
		.pki_directory = s.pki,
		.target = { .state_directory = s.state_directory,
			    .run_directory = s.run_directory,
			    .accept_identity = s.allow,
			    .timeout_ms = (int64_t)s.timeout * 1000,
			    .cancel_fd = signals },
		.workers_max = (uint32_t)s.workers,
		.cancel_fd = signals,
		.ready_fd = s.ready_fd == NO_FD ? -1 : (int)s.ready_fd,
	};
	return server_run(&options, &err) < 0 ? cli_failure(&err) : CLI_OK;
}
