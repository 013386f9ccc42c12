/*
 * phaul status: what the journals of this host say, in words, and how to settle what is unfinished.
 *
 * Reads only; a journal that cannot be read is a warning. One thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/status.h"
#include "cli/text.h"

struct settings {
	struct log_options log;
	const char *state_directory;
	bool json;
};

#define AT(member) offsetof(struct settings, member)

static const struct option_entry entries[] = {
	{ "json", 0, OPTION_SET, NULL, AT(json), 0, 0, "one JSON object per line" },
	{ "state-directory", 0, OPTION_TEXT, "DIR", AT(state_directory), 0, 0,
	  "where the journals are (default " CLI_STATE_DIRECTORY ")" },
	LOG_OPTIONS(struct settings),
	{ .kind = OPTION_END },
};

static const struct option_table table = {
	"status", "[ID]",
	"Shows the migrations that this host took part in, unfinished ones first, or the one\n"
	"with this ID. Exit status: 0; 1 there is no such migration, or it cannot be read;\n"
	"2 wrong usage.\n",
	entries
};

static const char *explain_source(const struct journal_summary *s)
{
	switch (s->state) {
	case STATE_PLANNED:
	case STATE_COPYING:
	case STATE_FROZEN:
		return s->driven ? "Under way: the workload runs here."
				 : "Interrupted before the handover: it runs here. Undo what is left of it, here and "
				   "at the target: "
				   "phaul resume ID.";
	case STATE_COMMITTED:
		return s->driven ? "Under way: it was handed over, and the target's answer is awaited. The processes "
				   "here stay "
				   "stopped."
				 : "It was handed over, and the target's answer did not come: the processes here stay "
				   "stopped. Ask "
				   "again: phaul resume ID. If the target is gone for good: phaul resolve ID --keep "
				   "source.";
	case STATE_SETTLED:
		return "Done: it runs at the target.";
	case STATE_ABORTED:
		return "It was not moved; the source went on.";
	case STATE_INVALID:
	case STATE_RECEIVING:
	case STATE_PREPARED:
	case STATE_RESUMING:
	case STATE_RUNNING:
	case STATE_MAX:
		break;
	}
	return "The journal names no state.";
}

static const char *explain_target(const struct journal_summary *s)
{
	switch (s->state) {
	case STATE_PLANNED:
	case STATE_RECEIVING:
		return s->driven ? "Under way: the workload runs at the source."
				 : "Interrupted: the workload runs at the source. Remove what came here: phaul resume "
				   "ID.";
	case STATE_PREPARED:
		return s->driven ? "It is complete here and held; the source has not handed it over yet, or cannot be "
				   "reached: it "
				   "is waited for. If the source is gone for good: phaul resolve ID --keep target."
				 : "It was complete here, but not handed over, and what was restored is gone with "
				   "phaul. phaul "
				   "resume ID says so to the source when it asks.";
	case STATE_RESUMING:
		return s->driven ? "Under way: it was handed over and is let go."
				 : "It was handed over to this host, and the record of its start is missing: phaul "
				   "resume ID looks "
				   "whether it runs here.";
	case STATE_RUNNING:
		return "Done: it was handed over and runs here.";
	case STATE_ABORTED:
		return "It did not come here; the source went on.";
	case STATE_INVALID:
	case STATE_COPYING:
	case STATE_FROZEN:
	case STATE_COMMITTED:
	case STATE_SETTLED:
	case STATE_MAX:
		break;
	}
	return "The journal names no state.";
}

const char *status_explain(const struct journal_summary *s)
{
	return s->side == SIDE_SOURCE ? explain_source(s) : explain_target(s);
}

static void print_summary(const struct journal_summary *s)
{
	char id[UUID_TEXT_SIZE], workload[sizeof(s->workload) * 3], peer[sizeof(s->peer) * 3],
		reason[sizeof(s->reason) * 3];

	uuid_format(&s->id, id);
	printf("%s  %s  %s %s %s %s\n", id, state_name(s->state), s->type,
	       text_clean(s->workload, workload, sizeof(workload)), s->side == SIDE_SOURCE ? "to" : "from",
	       text_clean(s->peer, peer, sizeof(peer)));
	printf("    %s; since %s%s%s\n", s->side == SIDE_SOURCE ? "this host is the source" : "this host is the target",
	       s->time,
	       state_finished(s->state) ? ""
	       : s->driven		? "; a phaul works on it"
					: "; left behind",
	       s->torn ? "; its last record is incomplete" : "");
	if (s->reason[0])
		printf("    because: %s\n", text_clean(s->reason, reason, sizeof(reason)));
	printf("    %s\n", status_explain(s));
}

static int show(const struct journal_summary *s, bool json, struct error *err)
{
	_cleanup_buffer_ struct buffer line = { 0 };

	if (!json) {
		print_summary(s);
		return 0;
	}
	if (report_summary(s, &line) < 0)
		return error_set(err, ENOMEM, "no memory to show a migration");
	fwrite(line.data, 1, line.length, stdout);
	return 0;
}

/* Those that somebody may have to settle come first. */
static int show_all(const char *directory, bool json, struct error *err)
{
	_cleanup_free_ struct journal_summary *list = NULL;
	size_t n = 0;
	int r = journal_list(directory, &list, &n, err);

	for (int finished = 0; finished < 2; finished++)
		for (size_t i = 0; i < n && r >= 0; i++)
			if (state_finished(list[i].state) == (finished != 0))
				r = show(&list[i], json, err);
	if (!r && !n && !json)
		puts("no migrations");
	return r;
}

int cli_status(int argc, char **argv)
{
	struct settings s = { .state_directory = CLI_STATE_DIRECTORY };
	const char *positional[POSITIONAL_MAX];
	struct journal_summary one;
	struct error err = { 0 };
	char directory[4096];
	struct uuid id;
	int r = options_parse(&table, argc, argv, &s, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (!r && positional[0] && !uuid_parse(positional[0], &id))
		r = error_set(&err, EINVAL, "status: '%.64s' is not the ID of a migration (phaul status lists them)",
			      positional[0]);
	if (!r &&
	    (size_t)snprintf(directory, sizeof(directory), "%s/migrations", s.state_directory) >= sizeof(directory))
		r = error_set(&err, EINVAL, "status: the name of the state directory is too long");
	if (r < 0)
		return cli_usage_error(&err);
	r = log_options_apply(&s.log, &err);
	if (!r && !positional[0])
		r = show_all(directory, s.json, &err);
	else if (!r) {
		r = journal_read(directory, &id, &one, &err);
		if (!r)
			r = show(&one, s.json, &err);
	}
	return r < 0 ? cli_failure(&err) : CLI_OK;
}
