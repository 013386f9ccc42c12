/*
 * phaul pki: a small certificate authority, and certificates for the hosts that may send workloads to one another.
 *
 * What it makes is described in transport/pki.h. One thread.
 */
#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "transport/pki.h"

#define DAYS_MAX 36500
#define DAYS_AUTHORITY 3650
#define DAYS_HOST 825

struct settings {
	const char *directory;
	uint64_t days;
	bool force;
};

#define AT(member) offsetof(struct settings, member)

#define DIRECTORY_OPTION                                                                                               \
	{                                                                                                              \
		"directory", 'd', OPTION_TEXT, "DIR", AT(directory), 0, 0, "where (default " PKI_DIRECTORY_DEFAULT ")" \
	}

static const struct option_entry init_entries[] = {
	DIRECTORY_OPTION,
	{ "days", 0, OPTION_NUMBER, "N", AT(days), 1, DAYS_MAX, "valid for N days (default 3650)" },
	{ .kind = OPTION_END },
};

static const struct option_entry issue_entries[] = {
	DIRECTORY_OPTION,
	{ "days", 0, OPTION_NUMBER, "N", AT(days), 1, DAYS_MAX, "valid for N days (default 825)" },
	{ "force", 'f', OPTION_SET, NULL, AT(force), 0, 0, "replace a certificate that is there already" },
	{ .kind = OPTION_END },
};

static const struct option_table init_table = {
	"pki init", "",
	"Makes the authority: ca.crt, which every host needs, and ca.key, which stays on the\n"
	"host where certificates are issued.\n",
	init_entries
};

static const struct option_table issue_table = {
	"pki issue", "NAME",
	"Issues a certificate for the host NAME: NAME.crt and NAME.key. A host needs ca.crt and,\n"
	"as host.crt and host.key, its own two files in its " PKI_DIRECTORY_DEFAULT ".\n",
	issue_entries
};

static int pki_init_verb(int argc, char **argv)
{
	struct settings s = { .directory = PKI_DIRECTORY_DEFAULT, .days = DAYS_AUTHORITY };
	const char *positional[POSITIONAL_MAX];
	struct error err = { 0 };
	int r = options_parse(&init_table, argc, argv, &s, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (r < 0)
		return cli_usage_error(&err);
	if (pki_init(s.directory, (int)s.days, &err) < 0)
		return cli_failure(&err);
	printf("made the authority %s/ca.crt, valid for %d days\n", s.directory, (int)s.days);
	return CLI_OK;
}

static int pki_issue_verb(int argc, char **argv)
{
	struct settings s = { .directory = PKI_DIRECTORY_DEFAULT, .days = DAYS_HOST };
	const char *positional[POSITIONAL_MAX];
	struct error err = { 0 };
	int r = options_parse(&issue_table, argc, argv, &s, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (r < 0)
		return cli_usage_error(&err);
	r = pki_issue(s.directory, positional[0], (int)s.days, s.force, &err);
	if (r == -EINVAL)
		return cli_usage_error(&err);
	if (r < 0)
		return cli_failure(&err);
	printf("issued %s/%s.crt and %s.key\n", s.directory, positional[0], positional[0]);
	return CLI_OK;
}

static void print_help(void)
{
	fputs("Usage: phaul pki init [OPTION...]\n"
	      "       phaul pki issue NAME [OPTION...]\n\n"
	      "A small certificate authority for the encrypted sessions between hosts.\n\n",
	      stdout);
	options_print_help(&init_table);
	putchar('\n');
	options_print_help(&issue_table);
}

int cli_pki(int argc, char **argv)
{
	struct error err = { 0 };

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		print_help();
		return CLI_OK;
	}
	if (argc > 1 && !strcmp(argv[1], "init"))
		return pki_init_verb(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "issue"))
		return pki_issue_verb(argc - 1, argv + 1);
	if (argc > 1)
		error_set(&err, EINVAL, "pki: there is no pki %.40s, only init and issue (phaul pki --help)", argv[1]);
	else
		error_set(&err, EINVAL, "pki: it needs init or issue NAME (phaul pki --help)");
	return cli_usage_error(&err);
}
