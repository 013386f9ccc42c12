/*
 * phaul resume and phaul resolve: take up what a crash left (migration/recover.h); the first finds out how it ends, the second is told.
 *
 * A migration that a living phaul still works on is not taken from it: resume says so, resolve hands it the operator's word. One thread,
 * beside the one that watches for signals.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cli/cancel.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "migration/recover.h"

#define TIMEOUT_MAX_S 86400
#define TIMEOUT_DEFAULT_S 30
#define RECONNECT_DEFAULT_S (RECONNECT_TIMEOUT_MS_DEFAULT / 1000)
#define WORD_MS 20000 /* for the phaul that works on it to obey */
#define LOOK_MS 100

struct settings {
	struct log_options log;
	const char *pki, *fence, *keep, *state_directory;
	uint64_t timeout, reconnect;
	bool yes;
};

#define AT(member) offsetof(struct settings, member)
#define COMMON                                                                                                         \
	{ "state-directory",   0, OPTION_TEXT, "DIR",                                                                  \
	  AT(state_directory), 0, 0,	       "where the journals are (default " CLI_STATE_DIRECTORY ")" },           \
		LOG_OPTIONS(struct settings),                                                                          \
	{                                                                                                              \
		.kind = OPTION_END                                                                                     \
	}

static const struct option_entry resume_entries[] = {
	{ "reconnect-timeout", 0, OPTION_NUMBER, "SECONDS", AT(reconnect), 0, TIMEOUT_MAX_S,
	  "look for the target for so long (default 60)" },
	{ "peer-timeout", 0, OPTION_NUMBER, "SECONDS", AT(timeout), 1, TIMEOUT_MAX_S,
	  "give a connection up when it is silent for so long (default 30)" },
	{ "timeout", 0, OPTION_NUMBER, "SECONDS", AT(timeout), 1, TIMEOUT_MAX_S, NULL },
	{ "fence", 0, OPTION_TEXT, "PROGRAM", AT(fence), 0, 0,
	  "PROGRAM ID TARGET is run when the target cannot be asked; exit\nstatus 0 says that its copy is certainly "
	  "dead" },
	{ "pki", 0, OPTION_TEXT, "DIR", AT(pki), 0, 0, "certificates (default: those the migration used)" },
	COMMON,
};

static const struct option_entry resolve_entries[] = {
	{ "keep", 0, OPTION_TEXT, "SIDE", AT(keep), 0, 0, "source or target: whose copy lives; must be given" },
	{ "yes", 'y', OPTION_SET, NULL, AT(yes), 0, 0, "do not ask" },
	COMMON,
};

static const struct option_table resume_table = {
	"resume", "ID",
	"Takes up a migration that a crash of phaul or of the host left behind, on the host\n"
	"where it is run: before the handover everything is undone, after it the target is\n"
	"asked. Exit status: 0 it is settled; 1 something could not be done; 2 wrong usage;\n"
	"4 it is still not known which copy lives: the processes stay stopped.\n",
	resume_entries
};

static const struct option_table resolve_table = {
	"resolve", "ID",
	"Decides, on this host, which copy of a workload lives, when the other host cannot be\n"
	"asked any more. Make sure first that the other copy is dead: phaul cannot. The\n"
	"decision is recorded. Exit status: 0 done; 1 not done; 2 wrong usage.\n",
	resolve_entries
};

static int directory_of(const struct settings *s, char *directory, size_t size, struct error *err)
{
	if ((size_t)snprintf(directory, size, "%s/migrations", s->state_directory) >= size)
		return error_set(err, EINVAL, "the name of the state directory is too long");
	return 0;
}

static int parse_id(const char *verb, const char *text, struct uuid *ret, struct error *err)
{
	if (uuid_parse(text, ret))
		return 0;
	return error_set(err, EINVAL, "%s: '%.64s' is not the ID of a migration (phaul status lists them)", verb, text);
}

static int recover(const struct recover_options *o, struct journal *j, enum migration_outcome *ret, struct error *err)
{
	return journal_side(j) == SIDE_SOURCE ? recover_source(j, o, ret, err) : recover_target(j, o->keep, ret, err);
}

static void tell(const struct journal *j, enum migration_outcome outcome)
{
	bool source = journal_side(j) == SIDE_SOURCE;

	printf("%s  %s: %s\n", journal_id(j), state_name(journal_state(j)),
	       outcome == OUTCOME_MIGRATED
		       ? (source ? "it runs at the target; nothing of it is left here" : "it runs here")
	       : source ? "it was not moved, or was taken back; nothing of the migration is left here"
			: "it did not come here; nothing of it is left here");
}

int cli_resume(int argc, char **argv)
{
	struct settings s = { .state_directory = CLI_STATE_DIRECTORY,
			      .timeout = TIMEOUT_DEFAULT_S,
			      .reconnect = RECONNECT_DEFAULT_S };
	enum migration_outcome outcome = OUTCOME_NONE;
	const char *positional[POSITIONAL_MAX];
	struct recover_options o = { 0 };
	struct journal *j = NULL;
	struct error err = { 0 };
	char directory[4096];
	struct cancel cancel;
	struct uuid id;
	int r = options_parse(&resume_table, argc, argv, &s, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (!r)
		r = parse_id("resume", positional[0], &id, &err);
	if (!r)
		r = directory_of(&s, directory, sizeof(directory), &err);
	if (r < 0)
		return cli_usage_error(&err);
	if (log_options_apply(&s.log, &err) < 0 || cancel_start(&cancel, &err) < 0)
		return cli_failure(&err);
	o = (struct recover_options){
		directory,    s.pki,	(int64_t)s.timeout * 1000, (int64_t)s.reconnect * 1000, s.fence,
		SIDE_INVALID, cancel.fd
	};
	r = journal_open(directory, &id, &j, &err);
	if (!r)
		r = recover(&o, j, &outcome, &err);
	if (!r)
		tell(j, outcome);
	journal_free(j);
	cancel_stop(&cancel);
	if (r < 0)
		cli_failure(&err);
	return r >= 0 ? CLI_OK : outcome == OUTCOME_UNKNOWN ? CLI_UNKNOWN : CLI_FAILED;
}

/* Whether anything that could run was ever restored here. */
static bool nothing_here(const struct journal_summary *s)
{
	return s->side == SIDE_TARGET && (s->state == STATE_PLANNED || s->state == STATE_RECEIVING);
}

/* What the decision does here, in a sentence. */
static const char *consequence(const struct journal_summary *s, enum migration_side keep)
{
	if (s->side == SIDE_SOURCE && s->state != STATE_COMMITTED)
		return "Nothing was handed over: what is left of the migration here is undone, and the workload runs "
		       "on here.";
	if (s->side == SIDE_SOURCE)
		return keep == SIDE_SOURCE ? "The stopped processes here go on. If the target's copy runs too, both "
					     "will, with the same "
					     "addresses and files."
					   : "The stopped processes here are killed. If the target's copy does not "
					     "run, the workload is lost.";
	if (nothing_here(s))
		return "What came is forgotten. The workload runs on at the source.";
	return keep == SIDE_SOURCE
		       ? "What was restored here is killed. If the source's copy was ended already, the workload is "
			 "lost."
		       : "What was restored here runs. If the source's copy goes on too, both will run, with the same "
			 "addresses and files.";
}

static bool asked(void)
{
	char line[16] = "";

	fputs("Type yes to go on: ", stdout);
	fflush(stdout);
	return fgets(line, sizeof(line), stdin) && !strcmp(line, "yes\n");
}

/* Somebody works on it: the word is left where that phaul looks for it, and obeyed or not. */
static int say(const char *directory, const struct uuid *id, enum migration_side keep, struct error *err)
{
	uint64_t deadline = deadline_in_ms(WORD_MS);
	struct journal_summary s;
	int r = journal_say(directory, id, keep, err);

	while (!r) {
		r = journal_read(directory, id, &s, err);
		if (r < 0 || state_finished(s.state))
			break;
		if (clock_now_ns() >= deadline)
			return error_set(
				err, ETIMEDOUT,
				"a phaul works on this migration, and did not obey in time (phaul status shows it)");
		fd_wait(-1, 0, deadline_in_ms(LOOK_MS));
	}
	if (!r && (keep == SIDE_SOURCE) != (s.state == STATE_ABORTED))
		return error_set(err, ECANCELED, "it is %s now: %s", state_name(s.state), s.reason);
	if (!r)
		printf("%s now\n", state_name(s.state));
	return r;
}

static int resolve(const struct settings *s, const struct uuid *id, const char *directory, struct error *err)
{
	enum migration_side keep = !strcmp(s->keep, "source") ? SIDE_SOURCE : SIDE_TARGET;
	struct recover_options o = { .journals = directory, .keep = keep, .cancel_fd = -1, .timeout_ms = 5000 };
	enum migration_outcome outcome = OUTCOME_NONE;
	struct journal_summary before;
	struct journal *j = NULL;
	int r = journal_read(directory, id, &before, err);

	if (r < 0)
		return r;
	if (state_finished(before.state))
		return error_set(err, EALREADY, "there is nothing to resolve: the migration is %s here",
				 state_name(before.state));
	if (keep == SIDE_TARGET && nothing_here(&before))
		return error_set(err, ENOTRECOVERABLE,
				 "nothing was restored here yet (it is %s): only the source's copy can be kept",
				 state_name(before.state));
	puts(consequence(&before, keep));
	if (!s->yes && !asked())
		return error_set(err, ECANCELED, "nothing was done");
	r = journal_open(directory, id, &j, err);
	if (r == -EBUSY)
		return say(directory, id, keep, err);
	if (!r)
		r = recover(&o, j, &outcome, err);
	if (!r)
		tell(j, outcome);
	journal_free(j);
	return r;
}

int cli_resolve(int argc, char **argv)
{
	struct settings s = { .state_directory = CLI_STATE_DIRECTORY };
	const char *positional[POSITIONAL_MAX];
	struct error err = { 0 };
	char directory[4096];
	struct uuid id;
	int r = options_parse(&resolve_table, argc, argv, &s, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (!r)
		r = parse_id("resolve", positional[0], &id, &err);
	if (!r && (!s.keep || (strcmp(s.keep, "source") != 0 && strcmp(s.keep, "target") != 0)))
		r = error_set(&err, EINVAL, "resolve: --keep source or --keep target must be given");
	if (!r && !s.yes && !isatty(STDIN_FILENO))
		r = error_set(&err, EINVAL, "resolve: without a terminal to ask on, --yes must be given");
	if (!r)
		r = directory_of(&s, directory, sizeof(directory), &err);
	if (r < 0)
		return cli_usage_error(&err);
	if (log_options_apply(&s.log, &err) < 0)
		return cli_failure(&err);
	return resolve(&s, &id, directory, &err) < 0 ? cli_failure(&err) : CLI_OK;
}
