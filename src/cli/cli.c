/*
 * How verbs fail: see cli.h.
 *
 * Through the log, so that a log file has it too. No state of its own; any thread.
 */
#include "cli/cli.h"

#include "base/log.h"

int cli_usage_error(const struct error *err)
{
	log_error("%s", err->text);
	return CLI_USAGE;
}

int cli_failure(const struct error *err)
{
	log_error("%s", err->text);
	return CLI_FAILED;
}
