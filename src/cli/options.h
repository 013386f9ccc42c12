/*
 * The options of a verb as a table: what getopt_long(3) needs and what --help prints come from the same lines.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

enum option_kind {
	OPTION_END,
	OPTION_SET,    /* bool: becomes true */
	OPTION_CLEAR,  /* bool: becomes false */
	OPTION_COUNT,  /* unsigned int: one more each time */
	OPTION_NUMBER, /* uint64_t, within min and max */
	OPTION_TEXT,   /* const char *, kept by reference */
	OPTION_LIST,   /* const char *[max + 1], NULL-terminated: one more each time, at most max */
	OPTION_KIND_MAX,
};

struct option_entry {
	const char *name; /* long name, without dashes */
	char letter;	  /* short name, or 0 */
	enum option_kind kind;
	const char *argument; /* what --help calls the argument; NULL for those without */
	size_t offset;	      /* of the value in the verb's settings */
	uint64_t min, max;
	const char *help; /* may hold newlines; NULL: another name of the entry above, not shown */
};

#define OPTIONS_MAX 48
#define POSITIONAL_MAX 4

struct option_table {
	const char *verb;		    /* "migrate", "pki issue" */
	const char *positional;		    /* "TYPE ID"; "" if none; optional ones in brackets at the end: "[ID]" */
	const char *description;	    /* a paragraph for --help, newline at its end */
	const struct option_entry *entries; /* OPTION_END behind the last */
};

/* The options that all verbs which log have; settings must hold a `struct log_options log`. */
struct log_options {
	unsigned int verbose;
	bool quiet;
	const char *file;
};

/* A path that --log-file names is opened, the level set. */
int log_options_apply(const struct log_options *options, struct error *err);

/* The two directories that everything which migrates has; settings must hold both as `const char *`. cli.h names the defaults. */
#define DIRECTORY_OPTIONS(settings)                                                                                    \
	{ "state-directory",                                                                                           \
	  0,                                                                                                           \
	  OPTION_TEXT,                                                                                                 \
	  "DIR",                                                                                                       \
	  offsetof(settings, state_directory),                                                                         \
	  0,                                                                                                           \
	  0,                                                                                                           \
	  "journals (default " CLI_STATE_DIRECTORY ")" },                                                              \
	{                                                                                                              \
		"run-directory", 0, OPTION_TEXT, "DIR", offsetof(settings, run_directory), 0, 0,                       \
			"work files, best in memory (default " CLI_RUN_DIRECTORY ")"                                   \
	}

#define LOG_OPTIONS(settings)                                                                                          \
	{ "log-file",                                                                                                  \
	  0,                                                                                                           \
	  OPTION_TEXT,                                                                                                 \
	  "FILE",                                                                                                      \
	  offsetof(settings, log.file),                                                                                \
	  0,                                                                                                           \
	  0,                                                                                                           \
	  "append everything that happens to FILE" },                                                                  \
		{ "verbose",                                                                                           \
		  'v',                                                                                                 \
		  OPTION_COUNT,                                                                                        \
		  NULL,                                                                                                \
		  offsetof(settings, log.verbose),                                                                     \
		  0,                                                                                                   \
		  0,                                                                                                   \
		  "say more on standard error; twice: all of it" },                                                    \
	{                                                                                                              \
		"quiet", 'q', OPTION_SET, NULL, offsetof(settings, log.quiet), 0, 0, "say only what fails"             \
	}

enum options_outcome {
	OPTIONS_GO,
	OPTIONS_HELP, /* --help was asked for and printed on stdout */
};

/*
 * Reads argv (argv[0] is the verb) into settings and the positional arguments into ret_positional, in order; those that may
 * be left out are NULL then. An options_outcome, or -EINVAL with a sentence that names `phaul VERB --help`.
 */
int options_parse(const struct option_table *table, int argc, char **argv, void *settings,
		  const char *ret_positional[POSITIONAL_MAX], struct error *err);

void options_print_help(const struct option_table *table);
