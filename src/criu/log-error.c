/*
 * The first error of a CRIU log: the line that a person should read.
 *
 * CRIU writes "(SS.UUUUUU) " (only at log level 4), in restored tasks "   PID: ", then "Error (FILE:LINE): TEXT".
 * What follows the first error is mostly its echo up the call chain, so the first one counts, except for lines that
 * CRIU prints as errors and then goes on. No state; any thread. Source: criu/log.c, criu/include/log.h.
 */
#include <ctype.h>
#include <string.h>

#include "criu/criu.h"

/* Lines that CRIU writes as "Error" although nothing has failed for it, and why. */
static const struct {
	const char *text;
	const char *why;
} harmless[] = {
	{ "Can't setup RLIMIT_NOFILE", "no CAP_SYS_RESOURCE: CRIU keeps its own limit and goes on" },
	{ "Unable to set TCP_CORK", "the page server's socket is a unix socket" },
	{ "Unable to restore TCP_CORK", "the page server's socket is a unix socket" },
	{ "Unable to set TCP_NODELAY", "the page server's socket is a unix socket" },
	{ "Unable to restore TCP_NODELAY", "the page server's socket is a unix socket" },
	{ "tcp_cork", "the page server's socket is a unix socket" },
	{ "tcp_nodelay", "the page server's socket is a unix socket" },
	{ "RPC client reported script error", "we refused a notification: the reason is ours" },
	{ "CRIU was built without", "a feature that is absent is not a failure by itself" },
	{ "amdgpu", "plugins probe for devices" },
	{ "cuda_plugin", "plugins probe for devices" },
};

/* What CRIU says at the very end whatever went wrong; taken only when nothing better is there. */
static const char *const vague[] = {
	"Dumping FAILED.",
	"Restoring FAILED.",
	"Killing processes because of failure",
	"Lazy pages transfer FAILED",
	"Post-resume script ret code",
	"cgroupd: recv req error", /* its helper notices that CRIU is gone */
};

static bool line_is_harmless(const char *line)
{
	for (size_t i = 0; i < ARRAY_SIZE(harmless); i++)
		if (strstr(line, harmless[i].text))
			return true;
	return false;
}

static bool line_is_vague(const char *line)
{
	for (size_t i = 0; i < ARRAY_SIZE(vague); i++)
		if (strstr(line, vague[i]))
			return true;
	return false;
}

/* The error within a line: "Error (" at its head, behind time stamp and pid only. NULL: none. */
static const char *line_error(const char *line)
{
	if (*line == '(') {
		line += strcspn(line, ")");
		if (*line == ')')
			line++;
	}
	while (*line == ' ')
		line++;
	if (strncmp(line, "pie: ", 5) == 0) /* from the restorer's code, which runs inside of the task */
		line += 5;
	if (isdigit((unsigned char)*line)) {
		const char *p = line + strspn(line, "0123456789");

		if (p[0] == ':' && p[1] == ' ')
			line = p + 2;
	}
	if (strncmp(line, "Error (", 7) != 0 && strncmp(line, "Error: ", 7) != 0)
		return NULL;
	return line;
}

void criu_first_error(const char *log_path, char *text, size_t size)
{
	_cleanup_fclose_ FILE *f = fopen(log_path, "re");
	_cleanup_free_ char *line = NULL;
	size_t allocated = 0;
	ssize_t n;

	text[0] = 0;
	while (f && (n = getline(&line, &allocated, f)) > 0) {
		const char *error;
		bool is_vague;

		while (n && isspace((unsigned char)line[n - 1]))
			line[--n] = 0;
		error = line_error(line);
		if (!error || line_is_harmless(error))
			continue;
		is_vague = line_is_vague(error);
		if (is_vague && text[0])
			continue;
		snprintf(text, size, "%s", error);
		if (!is_vague)
			return;
	}
}
