/*
 * phaul cleanup: what crashes of phaul left on this host, listed, and removed with --yes.
 *
 * Only what bears a migration's id: journals that nobody works on (undone as phaul resume would), directories below the run directory, nftables
 * tables in any network namespace. What was handed over and is not settled is never touched: that is for phaul resume and phaul resolve. One thread.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "migration/recover.h"
#include "migration/work-directory.h"
#include "net/hold.h"
#include "net/leftovers.h"
#include "net/mute.h"

#define YOUNG_S 600 /* what has no journal may be that of a plan under way */
#define RECONNECT_MS 5000

struct settings {
	struct log_options log;
	const char *state_directory, *run_directory;
	char journals[4096];
	bool yes;
	size_t n, failed;
};

#define AT(member) offsetof(struct settings, member)

static const struct option_entry entries[] = {
	{ "yes", 'y', OPTION_SET, NULL, AT(yes), 0, 0, "remove what is listed" },
	{ "state-directory", 0, OPTION_TEXT, "DIR", AT(state_directory), 0, 0,
	  "where the journals are (default " CLI_STATE_DIRECTORY ")" },
	{ "run-directory", 0, OPTION_TEXT, "DIR", AT(run_directory), 0, 0,
	  "where the work files are (default " CLI_RUN_DIRECTORY ")" },
	LOG_OPTIONS(struct settings),
	{ .kind = OPTION_END },
};

static const struct option_table table = {
	"cleanup", "",
	"Lists what crashes of phaul left on this host: migrations that nobody works on, their\n"
	"work files and nftables tables; with --yes, removes it. What was handed over and is\n"
	"not settled is left to phaul resume. Exit status: 0; 1 something could not be\n"
	"removed; 2 wrong usage.\n",
	entries
};

static bool after_handover(const struct journal_summary *s)
{
	return s->state == STATE_COMMITTED || s->state == STATE_RESUMING;
}

/* Says what was found, and what became of it; r: of its removal. */
static void tell(struct settings *s, const char *what, const char *name, int r, const char *why)
{
	s->n++;
	s->failed += r < 0;
	printf("%s %s%s%s%s\n", what, name,
	       !s->yes ? ""
	       : r < 0 ? ": not removed"
		       : ": removed",
	       r < 0 ? ": " : "", r < 0 ? why : "");
}

static void clean_journal(struct settings *s, const struct journal_summary *one)
{
	struct recover_options o = {
		.journals = s->journals, .timeout_ms = RECONNECT_MS, .reconnect_ms = RECONNECT_MS, .cancel_fd = -1
	};
	enum migration_outcome outcome;
	struct journal *j = NULL;
	struct error err = { 0 };
	char id[UUID_TEXT_SIZE];
	int r = 0;

	uuid_format(&one->id, id);
	if (s->yes)
		r = journal_open(s->journals, &one->id, &j, &err);
	if (j)
		r = one->side == SIDE_SOURCE ? recover_source(j, &o, &outcome, &err)
					     : recover_target(j, SIDE_INVALID, &outcome, &err);
	journal_free(j);
	tell(s, "migration", id, r, err.text);
}

static int clean_journals(struct settings *s, struct error *err)
{
	_cleanup_free_ struct journal_summary *list = NULL;
	size_t n = 0;
	int r = journal_list(s->journals, &list, &n, err);

	for (size_t i = 0; i < n; i++)
		if (!state_finished(list[i].state) && !list[i].driven && !after_handover(&list[i]))
			clean_journal(s, &list[i]);
	return r;
}

/* Whether anybody may still need what bears this id. */
static bool needed(const struct settings *s, const struct uuid *id, time_t changed)
{
	struct journal_summary one;
	struct journal *j = NULL;
	struct error err = { 0 };
	int r = journal_read(s->journals, id, &one, &err);

	if (r == -ENOENT)
		return time(NULL) - changed < YOUNG_S;
	if (r < 0 || one.driven || !state_finished(one.state) || journal_open(s->journals, id, &j, &err) < 0)
		return true;
	/* The user asked for these; the pager waits there for pages that are still at the source. */
	r = journal_fact_number(j, "keep_images") ||
	    (journal_fact_number(j, POSTCOPY_MARK) && !journal_fact_number(j, RESIDENT_MARK) && journal_same_boot(j));
	journal_free(j);
	return r;
}

static void clean_directory(struct settings *s, int run_fd, const char *name)
{
	_cleanup_close_ int lock = -1;
	struct stat st;
	struct uuid id;
	char path[4400];
	int r;

	if (!work_directory_id(name, &id) || fstatat(run_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    !S_ISDIR(st.st_mode))
		return;
	lock = work_directory_take_abandoned(run_fd, name, s->journals);
	if (lock < 0 && needed(s, &id, st.st_mtime))
		return;
	snprintf(path, sizeof(path), "%.4000s/%s", s->run_directory, name);
	r = s->yes ? dir_remove(path) : 0;
	tell(s, "directory", path, r, strerror(-r));
}

static void clean_directories(struct settings *s)
{
	_cleanup_closedir_ DIR *dir = opendir(s->run_directory);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		clean_directory(s, dirfd(dir), entry->d_name);
}

/* The source's copy is gone, but its network namespace may be there still, with addresses that are the target's now. */
static bool stays_mute(const struct settings *s, const struct uuid *id)
{
	struct journal_summary one;
	struct error err;

	return journal_read(s->journals, id, &one, &err) == 0 && one.state == STATE_SETTLED;
}

static int clean_place(void *context, const struct net_place *place, const char *where, struct error *err)
{
	_cleanup_buffer_ struct buffer lines = { 0 };
	struct settings *s = context;
	char *save = NULL;
	int r = net_leftovers_list(place, &lines, err);

	if (!r && buffer_append(&lines, "", 1) < 0)
		r = error_set(err, ENOMEM, "no memory to list nftables tables");
	for (char *line = r ? NULL : strtok_r((char *)lines.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		bool mute = line[0] == 'm';
		const char *id_text = strchr(line, ' ') + 1;
		struct error why = { 0 };
		struct uuid id;
		char what[160];
		int removed = 0;

		if (!uuid_parse(id_text, &id) || needed(s, &id, time(NULL) - YOUNG_S) || (mute && stays_mute(s, &id)))
			continue;
		if (s->yes)
			removed = mute ? net_unmute(id_text, place, &why) : net_hold_remove(id_text, place, &why);
		snprintf(what, sizeof(what), "%s of %.100s",
			 mute ? "silence (nftables tables phaul-mute-*)" : "held packets (nftables table inet phaul-*)",
			 where);
		tell(s, what, id_text, removed, why.text);
	}
	return r;
}

int cli_cleanup(int argc, char **argv)
{
	struct settings s = { .state_directory = CLI_STATE_DIRECTORY, .run_directory = CLI_RUN_DIRECTORY };
	const char *positional[POSITIONAL_MAX];
	struct error err = { 0 };
	int r = options_parse(&table, argc, argv, &s, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (!r &&
	    (size_t)snprintf(s.journals, sizeof(s.journals), "%s/migrations", s.state_directory) >= sizeof(s.journals))
		r = error_set(&err, EINVAL, "cleanup: the name of the state directory is too long");
	if (r < 0)
		return cli_usage_error(&err);
	if (log_options_apply(&s.log, &err) < 0)
		return cli_failure(&err);
	r = clean_journals(&s, &err);
	clean_directories(&s);
	if (!r)
		r = net_place_each(clean_place, &s, &err);
	if (!s.n && !r)
		puts("nothing was left behind");
	else if (s.n && !s.yes)
		puts("phaul cleanup --yes removes it");
	return r < 0 ? cli_failure(&err) : s.failed ? CLI_FAILED : CLI_OK;
}
