/*
 * phaul-criu-hook: the action script of a CRIU that an engine starts for phaul (criu/held.h).
 *
 * CRIU runs it at every stage, in the freeze: so it is small, links to libc alone and ends at once at the stages that nobody waits for. It is run
 * under a name in the migration's directory (a symbolic link): beside that name is the socket on which phaul listens.
 * Once the namespaces are there it sets what is to be set in them (hook-settings.c).
 * It says "STAGE ROOT-PID CRIU-PID" there; at the stage at which CRIU shall be held it waits for a byte: '1' lets CRIU go on, anything else, the end
 * of the connection included, makes it fail. So a phaul that dies before the commit takes the restore with it.
 *
 * Threads: one. Source: criu.org/Action_scripts; criu/action-scripts.c, run_shell_scripts().
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "criu/preload/hook-settings.h"
#include "criu/preload/protocol.h"

int main(int argc, char **argv)
{
	const char *stage = getenv("CRTOOLS_SCRIPT_ACTION"), *root = getenv("CRTOOLS_INIT_PID");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *slash = argc ? strrchr(argv[0], '/') : NULL;
	char text[128], answer = 0;
	int held, fd, n;

	if (!stage || !slash)
		return 1;
	if (!strcmp(stage, HOOK_STAGE_NAMESPACES) && root) {
		n = snprintf(text, sizeof(text), "%.*s", (int)(slash - argv[0]), argv[0]);
		if (n < (int)sizeof(text))
			hook_settings(text, root);
		return 0;
	}
	held = !strcmp(stage, HOOK_STAGE_HELD);
	if (!held && strcmp(stage, HOOK_STAGE_RELEASED) != 0 && strcmp(stage, HOOK_STAGE_RUNNING) != 0)
		return 0;
	n = snprintf(address.sun_path, sizeof(address.sun_path), "%.*s/" HOOK_SOCKET, (int)(slash - argv[0]), argv[0]);
	if (n < 0 || n >= (int)sizeof(address.sun_path))
		return 1;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	/* Where nobody listens any more, a CRIU that has let the tasks go must not fail because of that. */
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return held;
	n = snprintf(text, sizeof(text), "%s %s %d", stage, root ? root : "0", (int)getppid());
	if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n)
		return held;
	if (held && (recv(fd, &answer, 1, 0) != 1 || answer != HOOK_GO))
		return 1;
	return 0;
}
