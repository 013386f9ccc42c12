/*
 * phaul receive: the target's side of one migration over ssh, speaking on standard input and output.
 *
 * The source starts it (transport/dial-ssh.c): once for the session, and with --join for each further channel. Its log goes to
 * stderr, which ssh brings to the source. One thread.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/fd.h"
#include "cli/cancel.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "migration/migration.h"

#define TIMEOUT_MAX_S 86400
#define TIMEOUT_DEFAULT_S 30

struct settings {
	struct log_options log;
	const char *join, *state_directory, *run_directory;
	uint64_t timeout;
};

#define AT(member) offsetof(struct settings, member)

static const struct option_entry entries[] = {
	{ "join", 0, OPTION_TEXT, "ROUTE", AT(join), 0, 0, "be a further channel of the session with this name" },
	{ "peer-timeout", 0, OPTION_NUMBER, "SECONDS", AT(timeout), 1, TIMEOUT_MAX_S,
	  "give up when the source is silent for so long (default 30)" },
	{ "timeout", 0, OPTION_NUMBER, "SECONDS", AT(timeout), 1, TIMEOUT_MAX_S, NULL },
	DIRECTORY_OPTIONS(struct settings),
	LOG_OPTIONS(struct settings),
	{ .kind = OPTION_END },
};

static const struct option_table table = {
	"receive", "",
	"Takes in one workload over standard input and output. It is started through ssh by\n"
	"phaul migrate --to ssh://..., not by hand. Exit status: 0 the session ended as it\n"
	"should; 1 it broke; 2 wrong usage.\n",
	entries
};

static int receive(const struct settings *s, int cancel_fd, struct error *err)
{
	struct target_options options = { .state_directory = s->state_directory,
					  .run_directory = s->run_directory,
					  .timeout_ms = (int64_t)s->timeout * 1000,
					  .cancel_fd = cancel_fd };
	uint8_t id[ROUTE_BYTES];
	struct channel *control = NULL;
	struct route *route = NULL;
	int r = dir_make(s->run_directory, 0700);

	if (r < 0)
		return error_errno(err, -r, "cannot make the run directory %s", s->run_directory);
	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return error_errno(err, errno, "cannot make a name for the session");
	r = route_open_ssh(s->run_directory, id, &route, err);
	if (!r)
		r = channel_accept_stdio(&control, err);
	if (!r)
		r = target_run(control, route, id, &options, err);
	route_free(route);
	return r;
}

int cli_receive(int argc, char **argv)
{
	struct settings s = { .state_directory = CLI_STATE_DIRECTORY,
			      .run_directory = CLI_RUN_DIRECTORY,
			      .timeout = TIMEOUT_DEFAULT_S };
	const char *positional[POSITIONAL_MAX];
	_cleanup_close_ int signals = -1;
	struct error err = { 0 };
	int r = options_parse(&table, argc, argv, &s, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (r < 0)
		return cli_usage_error(&err);
	/* Somebody who tries it out would wait for ever. */
	if (isatty(STDIN_FILENO)) {
		error_set(&err, EINVAL,
			  "receive: it is started through ssh by phaul migrate --to ssh://HOST, not on a terminal");
		return cli_usage_error(&err);
	}
	if (log_options_apply(&s.log, &err) < 0)
		return cli_failure(&err);
	if (s.join) {
		r = route_join_stdio(s.run_directory, s.join, &err);
		return r == -EINVAL ? cli_usage_error(&err) : r < 0 ? cli_failure(&err) : CLI_OK;
	}
	signals = cancel_open_signals(&err);
	if (signals < 0)
		return cli_failure(&err);
	return receive(&s, signals, &err) < 0 ? cli_failure(&err) : CLI_OK;
}
