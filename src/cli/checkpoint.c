/*
 * phaul checkpoint and phaul restore: the command line becomes checkpoint options, and what came of it is told.
 *
 * One thread, beside the one that watches for signals.
 */
#include "migration/checkpoint.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cli/cancel.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/text.h"

struct settings {
	struct log_options log;
	const char *run_directory, *runtime, *engine, *id, *bundle;
	bool json, force, leave_running, compress, shell_job, remove, skip_cpu_check;
};

#define AT(member) offsetof(struct settings, member)

#define ENGINE_OPTIONS                                                                                                 \
	{ "runtime", 0, OPTION_TEXT, "PROGRAM", AT(runtime), 0, 0, "the OCI runtime (default runc)" },                 \
		{ "engine",                                                                                            \
		  0,                                                                                                   \
		  OPTION_TEXT,                                                                                         \
		  "WHERE",                                                                                             \
		  AT(engine),                                                                                          \
		  0,                                                                                                   \
		  0,                                                                                                   \
		  "the engine: its socket (docker), its state directory (runc),\nits storage (podman), its container " \
		  "directory (lxc)" },                                                                                 \
		{ "force", 0, OPTION_SET, NULL, AT(force), 0, 0, "go on although obstacles refuse" },                  \
		{ "json", 0, OPTION_SET, NULL, AT(json), 0, 0, "the result as a JSON object on standard output" },     \
	{                                                                                                              \
		"run-directory", 0, OPTION_TEXT, "DIR", AT(run_directory), 0, 0,                                       \
			"work files, best in memory (default " CLI_RUN_DIRECTORY ")"                                   \
	}

static const struct option_entry make_entries[] = {
	{ "leave-running", 0, OPTION_SET, NULL, AT(leave_running), 0, 0,
	  "it runs on here afterwards (default: it ends)" },
	{ "compress", 0, OPTION_SET, NULL, AT(compress), 0, 0, "images as zstd; plain CRIU reads them after unzstd" },
	{ "shell-job", 0, OPTION_SET, NULL, AT(shell_job), 0, 0, "it belongs to a terminal or a session" },
	{ "source", 0, OPTION_TEXT, "WHAT", AT(id), 0, 0,
	  "what becomes of the container: keep (stopped, renamed; default)\nor remove" },
	ENGINE_OPTIONS,
	LOG_OPTIONS(struct settings),
	{ .kind = OPTION_END },
};

static const struct option_table make_table = {
	"checkpoint", "TYPE ID DIR",
	"Saves a running workload into the directory DIR, memory and files of its own\n"
	"included, and ends it. Exit status: 0 saved; 1 not saved, it runs on; 2 wrong usage;\n"
	"3 refused, nothing was touched.\n",
	make_entries
};

static const struct option_entry restore_entries[] = {
	{ "dst-id", 0, OPTION_TEXT, "NAME", AT(id), 0, 0, "the container's name here (default: as it was)" },
	{ "target-bundle", 0, OPTION_TEXT, "DIR", AT(bundle), 0, 0,
	  "the bundle's directory here (runc; default: as it was)" },
	{ "skip-cpu-check", 0, OPTION_SET, NULL, AT(skip_cpu_check), 0, 0, "do not compare the CPUs" },
	ENGINE_OPTIONS,
	LOG_OPTIONS(struct settings),
	{ .kind = OPTION_END },
};

static const struct option_table restore_table = {
	"restore", "TYPE DIR",
	"Brings back what phaul checkpoint saved in DIR. Exit status: 0 it runs; 1 it does not,\n"
	"nothing is left of it; 2 wrong usage; 3 refused, nothing was touched.\n",
	restore_entries
};

static void show_obstacles(const struct checkpoint_result *result)
{
	for (size_t i = 0; i < result->obstacles.n; i++) {
		const struct obstacle *o = &result->obstacles.list[i];

		fprintf(stderr, "%s: %s%s%s\n", o->kind == OBSTACLE_REFUSES ? "obstacle" : "warning", o->what,
			o->cure[0] ? "; cure: " : "", o->cure);
	}
}

static void show_result(const struct checkpoint_result *result, const struct settings *s, const char *verb,
			const char *directory, const struct error *err)
{
	char bytes[TEXT_QUANTITY_MAX], frozen[TEXT_QUANTITY_MAX], total[TEXT_QUANTITY_MAX];
	json_t *o;

	if (s->json) {
		o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:f, s:f, s:I, s:i}", "event", "result", "outcome",
			      err->number		 ? "failed"
			      : !strcmp(verb, "restore") ? "restored"
							 : "saved",
			      "reason", err->text, "type", result->type, "id", result->id, "directory", directory,
			      "total_ms", (double)result->total_ns / NS_PER_MS, "frozen_ms",
			      (double)result->frozen_ns / NS_PER_MS, "bytes", (json_int_t)result->bytes, "root_pid",
			      (int)result->root_pid);
		json_dumpf(o, stdout, JSON_COMPACT);
		json_decref(o);
		putchar('\n');
	} else if (!err->number && !s->log.quiet && !strcmp(verb, "restore")) {
		printf("%s %s runs, process %d; restored in %s\n", result->type, result->id, (int)result->root_pid,
		       text_duration(result->total_ns, total));
	} else if (!err->number && !s->log.quiet) {
		printf("%s %s is saved in %s: %s; frozen for %s, %s in all\n", result->type, result->id, directory,
		       text_bytes(result->bytes, bytes), text_duration(result->frozen_ns, frozen),
		       text_duration(result->total_ns, total));
	}
}

static int run(const struct settings *s, struct checkpoint_options *o, const char *directory, bool restore)
{
	struct checkpoint_result result = { 0 };
	struct error err = { 0 };
	char absolute[PATH_MAX];
	struct cancel cancel;
	int r;

	fd_reserve_table();
	r = cancel_start(&cancel, &err);
	if (r < 0)
		return cli_failure(&err);
	if (directory[0] != '/' && getcwd(absolute, sizeof(absolute) / 2)) {
		snprintf(absolute + strlen(absolute), sizeof(absolute) / 2, "/%s", directory);
		directory = absolute;
	}
	o->directory = directory;
	o->run_directory = s->run_directory;
	o->force = s->force;
	o->cancel_fd = cancel.fd;
	r = restore ? checkpoint_restore(o, s->skip_cpu_check, &result, &err) : checkpoint_make(o, &result, &err);
	o->directory = NULL;
	cancel_stop(&cancel);
	show_obstacles(&result);
	show_result(&result, s, restore ? "restore" : "checkpoint", directory, &err);
	obstacles_free(&result.obstacles);
	if (r < 0) {
		error_wrap(&err, restore ? "cannot restore %s" : "cannot save a workload in %s", directory);
		(void)cli_failure(&err);
		return result.refused ? CLI_REFUSED : CLI_FAILED;
	}
	return CLI_OK;
}

int cli_checkpoint(int argc, char **argv)
{
	struct settings s = { .run_directory = CLI_RUN_DIRECTORY };
	const char *positional[POSITIONAL_MAX];
	struct checkpoint_options o = { 0 };
	struct error err = { 0 };
	int r = options_parse(&make_table, argc, argv, &s, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (!r && s.id && strcmp(s.id, "keep") != 0 && strcmp(s.id, "remove") != 0)
		r = error_set(&err, EINVAL, "--source: '%.40s' is neither keep nor remove", s.id);
	if (!r)
		r = cli_check_workload(positional[0], positional[1], &err);
	if (r < 0)
		return cli_usage_error(&err);
	if (log_options_apply(&s.log, &err) < 0)
		return cli_failure(&err);
	o.type = positional[0];
	o.id = positional[1];
	o.leave_running = s.leave_running;
	o.compress = s.compress;
	o.driver = (struct driver_options){ .shell_job = s.shell_job,
					    .runtime = s.runtime,
					    .engine = s.engine,
					    .remove_source = s.id && !strcmp(s.id, "remove") };
	return run(&s, &o, positional[2], false);
}

int cli_restore(int argc, char **argv)
{
	struct settings s = { .run_directory = CLI_RUN_DIRECTORY };
	const char *positional[POSITIONAL_MAX];
	struct checkpoint_options o = { 0 };
	struct error err = { 0 };
	int r = options_parse(&restore_table, argc, argv, &s, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (!r && !driver_find(positional[0]))
		r = cli_check_workload(positional[0], "1", &err);
	if (r < 0)
		return cli_usage_error(&err);
	if (log_options_apply(&s.log, &err) < 0)
		return cli_failure(&err);
	o.type = positional[0];
	o.driver = (struct driver_options){
		.runtime = s.runtime, .engine = s.engine, .target_id = s.id, .target_bundle = s.bundle
	};
	return run(&s, &o, positional[1], true);
}
