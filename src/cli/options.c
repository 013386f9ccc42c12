/*
 * The options of a verb as a table: see options.h.
 *
 * getopt_long(3) does the walking; its own messages are off, because ours are one sentence that says where the help is.
 * One thread (getopt has global state).
 */
#include "cli/options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"

#define VALUE_BASE 256 /* of getopt's `val`: above every letter */
#define VALUE_HELP 255
#define HELP_COLUMN 28

struct getopt_tables {
	struct option options[OPTIONS_MAX + 2];
	char letters[2 * OPTIONS_MAX + 4];
	size_t n;
};

static void make_tables(const struct option_table *table, struct getopt_tables *ret)
{
	size_t n_letters = 0;

	ret->letters[n_letters++] = ':'; /* a missing argument is told apart from an unknown option */
	ret->letters[n_letters++] = 'h';
	for (ret->n = 0; table->entries[ret->n].kind != OPTION_END; ret->n++) {
		const struct option_entry *e = &table->entries[ret->n];

		assert(ret->n < OPTIONS_MAX);
		ret->options[ret->n] = (struct option){ e->name, e->argument ? required_argument : no_argument, NULL,
							VALUE_BASE + (int)ret->n };
		if (e->letter)
			ret->letters[n_letters++] = e->letter;
		if (e->letter && e->argument)
			ret->letters[n_letters++] = ':';
	}
	ret->letters[n_letters] = 0;
	ret->options[ret->n] = (struct option){ "help", no_argument, NULL, VALUE_HELP };
	ret->options[ret->n + 1] = (struct option){ 0 };
}

static int list_append(const struct option_entry *e, const char **list, const char *value, struct error *err)
{
	size_t n = 0;

	while (list[n])
		n++;
	if (n >= e->max)
		return error_set(err, EINVAL, "--%s may be given at most %llu times", e->name,
				 (unsigned long long)e->max);
	list[n] = value;
	list[n + 1] = NULL;
	return 0;
}

static int store(const struct option_entry *e, void *settings, const char *value, struct error *err)
{
	void *at = (char *)settings + e->offset;
	int r;

	switch (e->kind) {
	case OPTION_SET:
	case OPTION_CLEAR:
		*(bool *)at = e->kind == OPTION_SET;
		return 0;
	case OPTION_COUNT:
		++*(unsigned int *)at;
		return 0;
	case OPTION_NUMBER:
		r = parse_u64(value, e->min, e->max, at, err);
		return r < 0 ? error_wrap(err, "--%s", e->name) : 0;
	case OPTION_TEXT:
		if (!*value)
			return error_set(err, EINVAL, "--%s needs a %s that is not empty", e->name, e->argument);
		*(const char **)at = value;
		return 0;
	case OPTION_LIST:
		return list_append(e, at, value, err);
	case OPTION_END:
	case OPTION_KIND_MAX:
		break;
	}
	assert(!"an option of no kind");
	return -EINVAL;
}

/* The entry that getopt's answer names; NULL for none. */
static const struct option_entry *entry_of(const struct option_table *table, const struct getopt_tables *t, int value)
{
	if (value >= VALUE_BASE && value < VALUE_BASE + (int)t->n)
		return &table->entries[value - VALUE_BASE];
	for (size_t i = 0; i < t->n; i++)
		if (value && table->entries[i].letter == value)
			return &table->entries[i];
	return NULL;
}

static int refuse(const struct option_table *table, const struct getopt_tables *t, bool argument_missing, char **argv,
		  struct error *err)
{
	const struct option_entry *e = entry_of(table, t, optopt);

	if (argument_missing && e)
		return error_set(err, EINVAL, "--%s needs an argument: %s", e->name, e->argument);
	if (optopt == VALUE_HELP || (e && optopt >= VALUE_BASE))
		return error_set(err, EINVAL, "--%s takes no argument", e ? e->name : "help");
	if (optopt)
		return error_set(err, EINVAL, "there is no option -%c", optopt);
	return error_set(err, EINVAL, "there is no option %.64s, or more than one that begins so", argv[optind - 1]);
}

/* The words of "TYPE ID" and "[ID]": how many must be there, and may be. */
static void count_positional(const char *words, size_t *ret_min, size_t *ret_max)
{
	size_t min = 0, max = 0;

	for (const char *p = words; *p; p += strcspn(p, " "), p += strspn(p, " ")) {
		max++;
		min += *p != '[';
	}
	assert(max <= POSITIONAL_MAX);
	*ret_min = min;
	*ret_max = max;
}

static int take_positional(const struct option_table *table, int argc, char **argv, const char *ret[POSITIONAL_MAX],
			   struct error *err)
{
	size_t min, max, n = (size_t)(argc - optind);

	count_positional(table->positional, &min, &max);
	if (n < min)
		return error_set(err, EINVAL, "it needs %s", table->positional);
	if (n > max)
		return error_set(err, EINVAL, "'%.64s' is too much", argv[(size_t)optind + max]);
	for (size_t i = 0; i < POSITIONAL_MAX; i++)
		ret[i] = i < n ? argv[(size_t)optind + i] : NULL;
	return 0;
}

int options_parse(const struct option_table *table, int argc, char **argv, void *settings,
		  const char *ret_positional[POSITIONAL_MAX], struct error *err)
{
	struct getopt_tables t;
	struct error why = { 0 };
	int value, r = 0;

	make_tables(table, &t);
	optind = 0; /* glibc: begin anew, with another argv */
	opterr = 0;
	while (!r && (value = getopt_long(argc, argv, t.letters, t.options, NULL)) != -1) {
		if (value == VALUE_HELP || value == 'h') {
			options_print_help(table);
			return OPTIONS_HELP;
		}
		if (value == '?' || value == ':')
			r = refuse(table, &t, value == ':', argv, &why);
		else
			r = store(entry_of(table, &t, value), settings, optarg, &why);
	}
	if (!r)
		r = take_positional(table, argc, argv, ret_positional, &why);
	if (r < 0)
		return error_set(err, EINVAL, "%s: %s (phaul %s --help)", table->verb, why.text, table->verb);
	return OPTIONS_GO;
}

/* One line or more per option; further lines of the text begin under the first. */
static void print_entry(const char *name, char letter, const char *argument, const char *help)
{
	char left[64];
	int n = snprintf(left, sizeof(left), "  %c%c%c --%s%s%s", letter ? '-' : ' ', letter ? letter : ' ',
			 letter ? ',' : ' ', name, argument ? " " : "", argument ? argument : "");

	if (n >= HELP_COLUMN)
		printf("%s\n%*s", left, HELP_COLUMN, "");
	else
		printf("%-*s", HELP_COLUMN, left);
	for (const char *line = help; *line;) {
		size_t length = strcspn(line, "\n");

		printf("%.*s\n", (int)length, line);
		line += length + (line[length] == '\n');
		if (*line)
			printf("%*s", HELP_COLUMN, "");
	}
}

void options_print_help(const struct option_table *table)
{
	printf("Usage: phaul %s%s%s [OPTION...]\n\n%s\nOptions:\n", table->verb, *table->positional ? " " : "",
	       table->positional, table->description);
	for (const struct option_entry *e = table->entries; e->kind != OPTION_END; e++)
		if (e->help)
			print_entry(e->name, e->letter, e->argument, e->help);
	print_entry("help", 'h', NULL, "this text");
}

int log_options_apply(const struct log_options *options, struct error *err)
{
	static const enum log_level levels[] = { LOG_WARNING, LOG_INFO, LOG_DEBUG };

	log_set_level(options->quiet ? LOG_ERROR : levels[MIN(options->verbose, (unsigned int)ARRAY_SIZE(levels) - 1)]);
	return options->file ? log_open_file(options->file, err) : 0;
}
