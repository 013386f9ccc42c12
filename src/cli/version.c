/*
 * phaul version: of this program, and of the CRIU that it would use.
 *
 * A missing CRIU is told, not a failure: the target's is often the question. One thread.
 */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "criu/criu.h"

static const struct option_entry entries[] = {
	{ .kind = OPTION_END },
};

static const struct option_table table = { "version", "",
					   "Prints the versions of phaul and of the CRIU that it would use.\n",
					   entries };

int cli_version(int argc, char **argv)
{
	const char *positional[POSITIONAL_MAX];
	struct error err = { 0 };
	int version, r = options_parse(&table, argc, argv, NULL, positional, &err);

	if (r == OPTIONS_HELP)
		return CLI_OK;
	if (r < 0)
		return cli_usage_error(&err);
	puts("phaul " PHAUL_VERSION);
	if (criu_version(&version, &err) < 0)
		printf("criu: %s\n", err.text);
	else
		printf("criu %d.%d.%d\n", version / 10000, version / 100 % 100, version % 100);
	return CLI_OK;
}
