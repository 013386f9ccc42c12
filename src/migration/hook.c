/*
 * Named points for tests: see hook.h. Compiled only with PHAUL_TEST_HOOKS.
 *
 * Invariant: without PHAUL_HOOK in the environment nothing happens.
 *
 * Threads: no state but the environment, any.
 */
#include "migration/hook.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define HOLD_POLL_MS 5

#ifdef PHAUL_TEST_HOOKS
/* Waits for DIR/NAME.go by polling: tests are the only ones that wait here. */
static int hook_hold(const char *name, int cancel_fd, struct error *err)
{
	const char *directory = getenv("PHAUL_HOOK_DIRECTORY");
	char reached[512], go[512];
	int fd;

	snprintf(reached, sizeof(reached), "%s/%s.reached", directory ? directory : "/tmp", name);
	snprintf(go, sizeof(go), "%s/%s.go", directory ? directory : "/tmp", name);
	fd = open(reached, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno(err, errno, "the test hook cannot make %s", reached);
	close(fd);
	while (access(go, F_OK) < 0) {
		struct pollfd p = { .fd = cancel_fd, .events = POLLIN };

		if (poll(&p, 1, HOLD_POLL_MS) > 0)
			return error_set(err, ECANCELED, "canceled before %s", name);
	}
	return 0;
}

int hook_reached(const char *side, const char *point, int cancel_fd, struct error *err)
{
	const char *wanted = getenv("PHAUL_HOOK");
	char name[64];
	size_t length;

	if (!wanted)
		return 0;
	length = (size_t)snprintf(name, sizeof(name), "%s-%s", side, point);
	for (const char *p = wanted; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
		if (strncmp(p, name, length) != 0 || p[length] != '=')
			continue;
		log_info("test hook %.*s", (int)strcspn(p, ","), p);
		switch (p[length + 1]) {
		case 'h':
			return hook_hold(name, cancel_fd, err);
		case 'f':
			return error_set(err, EIO, "the test hook %s failed", name);
		case 'k':
			raise(SIGKILL);
			break;
		default:
			break;
		}
	}
	return 0;
}
#endif
