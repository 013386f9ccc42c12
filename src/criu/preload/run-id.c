/*
 * libphaul-criu.so, uuid_unparse() of the id of CRIU's run: noted beside the status file, as CRIU's log has it.
 *
 * The network lock is named after it (criu/netfilter.c), and must be found when CRIU has been killed. CRIU says it in its log only together with thousands of other
 * lines, each a write(2) in the freeze.
 * Threads: CRIU's main one. Source: criu/util.c (util_init), which is called twice; the last id counts.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "library.h"
#include "protocol.h"

void uuid_unparse(const unsigned char id[16], char *ret); /* as in uuid/uuid.h */

EXPORTED void uuid_unparse(const unsigned char id[16], char *ret)
{
	void (*real)(const unsigned char *, char *);
	char path[PATH_MAX + 16];
	int fd, saved = errno;

	*(void **)&real = dlsym(RTLD_NEXT, "uuid_unparse");
	if (!real)
		return;
	real(id, ret);
	if (!library.active || !library.status_path[0])
		return;
	snprintf(path, sizeof(path), "%s" PRELOAD_RUN_SUFFIX, library.status_path);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd >= 0) {
		dprintf(fd, PRELOAD_RUN_MARKER "%s\n", ret);
		close(fd);
	}
	errno = saved;
}
