/*
 * The program's verbs and what they share. One file per verb; a verb prints, it never decides.
 */
#pragma once

#include "base/error.h"

/* The exit statuses of all verbs; scripts rely on them. */
enum cli_status {
	CLI_OK = 0,	 /* moved; for other verbs: done */
	CLI_FAILED = 1,	 /* not moved, the source still runs; for other verbs: not done */
	CLI_USAGE = 2,	 /* wrong usage */
	CLI_REFUSED = 3, /* the plan refuses; nothing was touched */
	CLI_UNKNOWN = 4, /* outcome unknown */
};

#define CLI_STATE_DIRECTORY "/var/lib/phaul"
#define CLI_RUN_DIRECTORY "/run/phaul"

/* A verb gets argv from its own name on: argv[0] is "migrate". Each returns an enum cli_status. */
int cli_migrate(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_serve(int argc, char **argv);
int cli_receive(int argc, char **argv);
int cli_pki(int argc, char **argv);
int cli_checkpoint(int argc, char **argv);
int cli_restore(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_resume(int argc, char **argv);
int cli_resolve(int argc, char **argv);
int cli_cleanup(int argc, char **argv);
int cli_version(int argc, char **argv);

/* TYPE and ID of a command line: -EINVAL with the types that there are. */
int cli_check_workload(const char *type, const char *id, struct error *err);

/* Says what is wrong with the command line, in one line on stderr; returns CLI_USAGE. */
int cli_usage_error(const struct error *err);

/* Says why something failed, in one line on stderr (and in the log file); returns CLI_FAILED. */
int cli_failure(const struct error *err);
