/*
 * phaul migrate and phaul check: the command line becomes migration options, and what happens is shown.
 *
 * Both verbs take the same options, so that a check becomes the move by changing one word. One thread, beside the one that
 * watches for signals.
 */
#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "base/parse.h"
#include "cli/cancel.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/show.h"
#include "driver/driver.h"
#include "migration/handover.h"
#include "transport/pki.h"
#include "wire/message.h"

#define PID_MAX_LIMIT 4194304 /* of Linux, include/linux/threads.h */
#define DOWNTIME_MAX_MS 3600000
#define BANDWIDTH_MIN 65536
#define BANDWIDTH_MAX (1ULL << 40)
#define TIMEOUT_MAX_S 86400
#define TIMEOUT_DEFAULT_S 30
#define RECONNECT_DEFAULT_S (RECONNECT_TIMEOUT_MS_DEFAULT / 1000)

struct settings {
	struct log_options log;
	const char *fence, *to, *pki, *state_directory, *run_directory, *tracker, *mode, *bandwidth, *on_timeout,
		*compress;
	uint64_t max_downtime, max_rounds, channels, timeout, peer_timeout, reconnect; /* 0: not given */
	const char *addresses[MIGRATION_ADDRESSES_MAX + 1];
	const char *sync[MIGRATION_SYNC_PATHS_MAX + 1];
	const char *bridges[MIGRATION_BRIDGES_MAX + 1];
	const char *runtime, *engine, *target_engine, *dst_id, *target_bundle, *source, *bind;
	bool json, keep_images, shell_job, force, skip_cpu_check, skip_criu_check, pre_copy, compressed, auto_converge,
		postcopy, no_start;
};

#define AT(member) offsetof(struct settings, member)

static const struct option_entry entries[] = {
	{ "to", 't', OPTION_TEXT, "TARGET", AT(to), 0, 0,
	  "HOST[:PORT], [V6]:PORT (TLS, to a phaul serve there) or\nssh://[USER@]HOST[:PORT]; must be given" },
	{ "mode", 0, OPTION_TEXT, "MODE", AT(mode), 0, 0,
	  "live: it keeps running (default); restart: only its files are copied\nwhile it runs, then it is stopped "
	  "here and started there" },
	{ "nostart", 0, OPTION_SET, NULL, AT(no_start), 0, 0,
	  "restart mode: prepare it at the target, but do not start it" },
	{ "max-downtime", 0, OPTION_NUMBER, "MS", AT(max_downtime), 1, DOWNTIME_MAX_MS,
	  "how long the freeze may last; it decides when copying ends\n(default 100); given, nothing that would take "
	  "longer is begun" },
	{ "max-rounds", 0, OPTION_NUMBER, "N", AT(max_rounds), 1, MIGRATION_ITERATIONS_MAX,
	  "copy memory at most N times before the freeze (default 16)" },
	{ "auto-converge", 0, OPTION_SET, NULL, AT(auto_converge), 0, 0,
	  "hold the workload back, step by step, while it writes faster\nthan can be sent" },
	{ "postcopy", 0, OPTION_SET, NULL, AT(postcopy), 0, 0,
	  "if it writes faster than can be sent, run it at the target before all\nits memory is there; then it needs "
	  "both hosts until it is" },
	{ "bandwidth", 0, OPTION_TEXT, "RATE", AT(bandwidth), 0, 0,
	  "send at most so much per second while it runs: 40M (bytes),\n200mbit" },
	{ "timeout", 0, OPTION_NUMBER, "SECONDS", AT(timeout), 1, TIMEOUT_MAX_S,
	  "copy memory for at most so long (default: no limit)" },
	{ "on-timeout", 0, OPTION_TEXT, "WHAT", AT(on_timeout), 0, 0,
	  "then: abort (default), freeze, however long that takes, or postcopy" },
	{ "channels", 0, OPTION_NUMBER, "N", AT(channels), 1, MESSAGE_CHANNELS_MAX,
	  "connections that carry memory (default 2)" },
	{ "move-address", 0, OPTION_LIST, "ADDR/LEN@DEV", AT(addresses), 0, MIGRATION_ADDRESSES_MAX,
	  "this address of DEV goes along; may be repeated" },
	{ "sync", 0, OPTION_LIST, "PATH", AT(sync), 0, MIGRATION_SYNC_PATHS_MAX,
	  "bring this file or tree over with rsync (what the target has\nmore below PATH is deleted); may be "
	  "repeated" },
	{ "no-pre-copy", 0, OPTION_CLEAR, NULL, AT(pre_copy), 0, 0,
	  "copy everything in the freeze; also --no-pre-dump" },
	{ "no-pre-dump", 0, OPTION_CLEAR, NULL, AT(pre_copy), 0, 0, NULL },
	{ "compress", 0, OPTION_TEXT, "WAYS", AT(compress), 0, 0,
	  "how memory may be made shorter, where it pays: of lz4, zstd, delta,\nduplicate, with commas (default all)" },
	{ "no-compress", 0, OPTION_CLEAR, NULL, AT(compressed), 0, 0,
	  "do not try to: zero pages are left out, others go whole" },
	{ "tracker", 0, OPTION_TEXT, "KIND", AT(tracker), 0, 0,
	  "how written pages are found: auto (default), write-protect,\nsoft-dirty, none" },
	{ "dst-id", 0, OPTION_TEXT, "NAME", AT(dst_id), 0, 0,
	  "the container's name at the target (default: the same)" },
	{ "bridge", 0, OPTION_LIST, "SRC=DST", AT(bridges), 0, MIGRATION_BRIDGES_MAX,
	  "the container's bridge SRC is called DST at the target (lxc);\nmay be repeated" },
	{ "source", 0, OPTION_TEXT, "WHAT", AT(source), 0, 0,
	  "what becomes of the container here: keep (stopped, renamed;\ndefault) or remove" },
	{ "bind", 0, OPTION_TEXT, "RULE", AT(bind), 0, 0,
	  "directories of this host that the container has mounted (docker,\npodman): present (they must be there; "
	  "default), bring or refuse" },
	{ "runtime", 0, OPTION_TEXT, "PROGRAM", AT(runtime), 0, 0, "the OCI runtime of both sides (default runc)" },
	{ "engine", 0, OPTION_TEXT, "WHERE", AT(engine), 0, 0,
	  "the engine here: its socket (docker), its state directory (runc),\nits storage (podman), its container "
	  "directory (lxc)" },
	{ "target-engine", 0, OPTION_TEXT, "WHERE", AT(target_engine), 0, 0, "the same at the target" },
	{ "target-bundle", 0, OPTION_TEXT, "DIR", AT(target_bundle), 0, 0,
	  "the bundle's directory at the target (runc; default: the same)" },
	{ "shell-job", 0, OPTION_SET, NULL, AT(shell_job), 0, 0,
	  "it belongs to a terminal or a session that stays here" },
	{ "force", 0, OPTION_SET, NULL, AT(force), 0, 0, "go on although obstacles refuse" },
	{ "skip-cpu-check", 0, OPTION_SET, NULL, AT(skip_cpu_check), 0, 0, "do not compare the CPUs" },
	{ "skip-criu-check", 0, OPTION_SET, NULL, AT(skip_criu_check), 0, 0, "do not compare the versions of CRIU" },
	{ "keep-images", 0, OPTION_SET, NULL, AT(keep_images), 0, 0, "keep CRIU's images and logs on both sides" },
	{ "json", 0, OPTION_SET, NULL, AT(json), 0, 0, "one JSON object per line on standard output" },
	{ "peer-timeout", 0, OPTION_NUMBER, "SECONDS", AT(peer_timeout), 1, TIMEOUT_MAX_S,
	  "give up when the target is silent for so long (default 30)" },
	{ "reconnect-timeout", 0, OPTION_NUMBER, "SECONDS", AT(reconnect), 0, TIMEOUT_MAX_S,
	  "look for a target that was lost in the handover for so long, while\nthe workload stays stopped (default "
	  "60)" },
	{ "fence", 0, OPTION_TEXT, "PROGRAM", AT(fence), 0, 0,
	  "PROGRAM ID TARGET is run then; exit status 0 says that the target's\ncopy is certainly dead, and it is "
	  "taken back" },
	{ "pki", 0, OPTION_TEXT, "DIR", AT(pki), 0, 0, "certificates (default " PKI_DIRECTORY_DEFAULT ")" },
	DIRECTORY_OPTIONS(struct settings),
	LOG_OPTIONS(struct settings),
	{ .kind = OPTION_END },
};

static const struct option_table migrate_table = {
	"migrate", "TYPE ID",
	"Moves a running workload to another host while it keeps running. TYPE is pid,\n"
	"runc, docker, podman or lxc; ID is the process id of the root of the tree to move,\n"
	"or the container's name. Exit status: 0 moved;\n"
	"1 not moved, the source still runs; 2 wrong usage; 3 refused by the plan, nothing\n"
	"was touched; 4 outcome unknown, see phaul status.\n",
	entries
};

static const struct option_table check_table = {
	"check", "TYPE ID",
	"Plans a move and prints every obstacle with its cure; changes nothing. It takes\n"
	"the options of phaul migrate. Exit status: 0 nothing stands in the way; 1 it could\n"
	"not be checked; 2 wrong usage; 3 obstacles refuse.\n",
	entries
};

int cli_check_workload(const char *type, const char *id, struct error *err)
{
	uint64_t ignored;

	if (!driver_find(type)) {
		char known[128] = "";

		for (const struct driver_ops *const *d = driver_all(); *d; d++)
			snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s", *known ? ", " : "",
				 (*d)->name);
		return error_set(err, EINVAL, "'%.40s' is not a type of workload (%s)", type, known);
	}
	if (!strcmp(type, "pid") && parse_u64(id, 1, PID_MAX_LIMIT, &ignored, err) < 0)
		return error_wrap(err, "the ID of a pid");
	if (!*id)
		return error_set(err, EINVAL, "the ID is empty");
	return 0;
}

static int check_bridge(const char *pair, struct error *err)
{
	const char *equal = strchr(pair, '=');

	if (!equal || equal == pair || !equal[1] || strchr(equal + 1, '=') || strpbrk(pair, "/ \t\n#"))
		return error_set(err, EINVAL, "--bridge: '%.64s' is not SRC=DST, the names of two bridges", pair);
	return 0;
}

/* rsync and the target want it without "//", "." and ".."; a slash at the end is taken away. */
static int check_sync_path(char *path, struct error *err)
{
	size_t length = strlen(path);

	if (path[0] != '/')
		return error_set(err, EINVAL, "--sync: '%.200s' is not an absolute path", path);
	while (length > 1 && path[length - 1] == '/')
		path[--length] = 0;
	if (length == 1)
		return error_set(err, EINVAL, "--sync: the whole of / cannot be brought over");
	for (const char *p = path; *p;) {
		size_t n = strcspn(++p, "/");

		if (!n || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return error_set(err, EINVAL, "--sync: '%.200s' has an empty, '.' or '..' part", path);
		p += n;
	}
	return 0;
}

static int make_convergence(const struct settings *s, struct migration_options *o, struct error *err)
{
	static const struct {
		const char *name;
		enum policy_resort resort;
	} resorts[] = { { "abort", POLICY_RESORT_STOP },
			{ "freeze", POLICY_RESORT_FREEZE },
			{ "postcopy", POLICY_RESORT_POSTCOPY } };
	size_t i = 0;

	if (s->bandwidth && parse_rate(s->bandwidth, BANDWIDTH_MIN, BANDWIDTH_MAX, &o->bandwidth, err) < 0)
		return error_wrap(err, "--bandwidth");
	if (s->on_timeout && !s->timeout)
		return error_set(err, EINVAL,
				 "--on-timeout says what to do when the time of --timeout is over, and that is "
				 "not given");
	while (s->on_timeout && i < ARRAY_SIZE(resorts) && strcmp(resorts[i].name, s->on_timeout) != 0)
		i++;
	if (i == ARRAY_SIZE(resorts))
		return error_set(err, EINVAL, "--on-timeout: '%.40s' is not one of abort, freeze, postcopy",
				 s->on_timeout);
	o->on_timeout = resorts[i].resort;
	o->copy_ms = s->timeout * 1000;
	o->max_downtime_ms = s->max_downtime ? s->max_downtime : POLICY_MAX_DOWNTIME_MS_DEFAULT;
	o->promise = s->max_downtime != 0;
	o->max_rounds = s->max_rounds ? (uint32_t)s->max_rounds : POLICY_MAX_ROUNDS_DEFAULT;
	o->rounds_asked = s->max_rounds != 0;
	o->auto_converge = s->auto_converge;
	o->postcopy = s->postcopy;
	return 0;
}

/* A comma-separated list into a set of encodings. */
static int parse_encodings(const char *text, uint32_t *ret, struct error *err)
{
	uint32_t set = 0;

	for (const char *at = text;; at++) {
		size_t n = strcspn(at, ",");
		int i = ENCODING_MAX;

		while (--i > ENCODING_RAW && (strlen(encoding_name(i)) != n || strncmp(at, encoding_name(i), n) != 0))
			;
		if (i <= ENCODING_RAW)
			return error_set(err, EINVAL, "--compress: '%.*s' is not one of lz4, zstd, delta, duplicate",
					 (int)MIN(n, (size_t)40), at);
		set |= ENCODING_BIT(i);
		at += n;
		if (!*at)
			break;
	}
	*ret = set;
	return 0;
}

static int check_words(const struct settings *s, struct error *err)
{
	static const char *const trackers[] = { "auto", "write-protect", "soft-dirty", "none" };
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(trackers); i++)
		known = known || !strcmp(s->tracker, trackers[i]);
	if (!known)
		return error_set(err, EINVAL, "--tracker: '%.40s' is not one of auto, write-protect, soft-dirty, none",
				 s->tracker);
	if (s->bind && strcmp(s->bind, "present") != 0 && strcmp(s->bind, "bring") != 0 &&
	    strcmp(s->bind, "refuse") != 0)
		return error_set(err, EINVAL, "--bind: '%.40s' is not present, bring or refuse", s->bind);
	if (s->source && strcmp(s->source, "keep") != 0 && strcmp(s->source, "remove") != 0)
		return error_set(err, EINVAL, "--source: '%.40s' is neither keep nor remove", s->source);
	if (strcmp(s->mode, "live") != 0 && strcmp(s->mode, "restart") != 0)
		return error_set(err, EINVAL, "--mode: '%.40s' is not a mode (live, restart)", s->mode);
	if (!strcmp(s->mode, "restart") && s->addresses[0])
		return error_set(
			err, EINVAL,
			"--move-address needs --mode live: what is started anew gets its address from its engine");
	if (s->no_start && strcmp(s->mode, "restart") != 0)
		return error_set(err, EINVAL, "--nostart needs --mode restart: what moves live runs at the target");
	if (!s->to)
		return error_set(err, EINVAL, "--to TARGET is missing");
	return 0;
}

static int make_options(const struct settings *s, struct migration_options *o, struct error *err)
{
	int r = check_words(s, err);

	if (!r)
		r = make_convergence(s, o, err);
	if (!r)
		r = cli_check_workload(o->type, o->id, err);
	o->restart = !strcmp(s->mode, "restart");
	o->no_start = s->no_start;
	if (!r && o->restart && !driver_find(o->type)->stop)
		r = error_set(err, EINVAL, "--mode restart: a %s cannot be moved by restarting it, only live", o->type);
	if (!r && endpoint_parse(s->to, &o->target, err) < 0)
		r = error_wrap(err, "--to");
	for (; !r && s->addresses[o->n_addresses]; o->n_addresses++)
		if (net_address_parse(s->addresses[o->n_addresses], &o->addresses[o->n_addresses], err) < 0)
			r = error_wrap(err, "--move-address");
	for (size_t i = 0; !r && s->sync[i]; i++) {
		o->sync_paths[i] = s->sync[i];
		r = check_sync_path((char *)s->sync[i], err); /* argv is ours to change */
	}
	for (size_t i = 0; !r && s->bridges[i]; i++) {
		o->bridges[i] = s->bridges[i];
		r = check_bridge(s->bridges[i], err);
	}
	o->target_text = s->to;
	o->pki_directory = s->pki;
	o->state_directory = s->state_directory;
	o->run_directory = s->run_directory;
	o->force = s->force;
	o->skip_cpu_check = s->skip_cpu_check;
	o->skip_criu_check = s->skip_criu_check;
	o->shell_job = s->shell_job;
	o->keep_images = s->keep_images;
	o->encodings = s->compressed ? ENCODINGS_ALL : 0;
	if (!r && s->compress && !s->compressed)
		r = error_set(err, EINVAL, "--compress and --no-compress contradict each other");
	if (!r && s->compress)
		r = parse_encodings(s->compress, &o->encodings, err);
	o->pre_copy = s->pre_copy;
	o->channels = (uint32_t)s->channels;
	o->timeout_ms = (int64_t)s->peer_timeout * 1000;
	o->reconnect_ms = (int64_t)s->reconnect * 1000;
	o->fence = s->fence;
	o->runtime = s->runtime;
	o->engine = s->engine;
	o->target_engine = s->target_engine;
	o->target_id = s->dst_id;
	o->target_bundle = s->target_bundle;
	o->bind_rule = s->bind;
	o->remove_source = s->source && !strcmp(s->source, "remove");
	o->tracker = s->tracker;
	return r;
}

static enum show_kind show_kind_of(const struct settings *s)
{
	if (s->json)
		return SHOW_JSON;
	if (s->log.quiet)
		return SHOW_QUIET;
	return live_possible(STDERR_FILENO) ? SHOW_LIVE : SHOW_PLAIN;
}

static int run(const struct migration_options *options, enum show_kind kind, struct error *err)
{
	struct migration_event event;
	struct source *source = NULL;
	struct show show;
	int status;

	if (source_new(options, &source, err) < 0)
		return cli_failure(err);
	show_begin(&show, kind, options);
	while (source_step(source, &event) == 1)
		show_event(&show, &event);
	status = show_result(&show, source_result(source));
	source_free(source);
	return status;
}

static int migrate(const struct option_table *table, bool check_only, int argc, char **argv)
{
	struct settings s = { .pki = PKI_DIRECTORY_DEFAULT,
			      .state_directory = CLI_STATE_DIRECTORY,
			      .run_directory = CLI_RUN_DIRECTORY,
			      .tracker = "auto",
			      .mode = "live",
			      .channels = MIGRATION_CHANNELS_DEFAULT,
			      .peer_timeout = TIMEOUT_DEFAULT_S,
			      .reconnect = RECONNECT_DEFAULT_S,
			      .pre_copy = true,
			      .compressed = true };
	struct migration_options options = { .check_only = check_only };
	const char *positional[POSITIONAL_MAX];
	struct error err = { 0 };
	struct cancel cancel;
	int status, r = options_parse(table, argc, argv, &s, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (r == OPTIONS_GO) {
		options.type = positional[0];
		options.id = positional[1];
		r = make_options(&s, &options, &err);
		if (r < 0)
			error_wrap(&err, "%s", table->verb);
	}
	if (r < 0)
		return cli_usage_error(&err);
	fd_reserve_table();
	if (log_options_apply(&s.log, &err) < 0 || cancel_start(&cancel, &err) < 0)
		return cli_failure(&err);
	options.cancel_fd = cancel.fd;
	status = run(&options, show_kind_of(&s), &err);
	cancel_stop(&cancel);
	return status;
}

int cli_migrate(int argc, char **argv)
{
	return migrate(&migrate_table, false, argc, argv);
}

int cli_check(int argc, char **argv)
{
	return migrate(&check_table, true, argc, argv);
}
