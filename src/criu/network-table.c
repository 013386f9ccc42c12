/*
 * The name of CRIU's network lock: from what libphaul-criu.so noted, from CRIU's log where that is kept in detail, or from the inventory. No state; any thread.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "criu/criu.h"
#include "criu/images.h"
#include "criu/job.h"
#include "criu/preload/protocol.h"

/* CRIU composes "inet CRIU-ID" in 32 bytes, which cuts the name (criu/netfilter.c, 4.2). */
void criu_table_of_run(const char *id, size_t length, char *ret, size_t size)
{
	char name[32 - sizeof("inet ") + 1];

	snprintf(name, sizeof(name), "CRIU-%.*s", (int)length, id);
	snprintf(ret, size, "%s", name);
}

/* The last id counts: `criu swrk` makes one twice, and a restore works with that of the dump. */
static bool find_run(const char *directory, const char *name, char *ret, size_t size)
{
	static const char marker[] = PRELOAD_RUN_MARKER;
	_cleanup_fclose_ FILE *f = NULL;
	char line[PATH_MAX + 64];
	bool found = false;

	snprintf(line, sizeof(line), "%s/%s", directory, name);
	f = fopen(line, "re");

	while (f && fgets(line, sizeof(line), f)) {
		const char *id = strstr(line, marker);

		if (!id)
			continue;
		id += strlen(marker);
		criu_table_of_run(id, strcspn(id, " \n"), ret, size);
		found = true;
	}
	return found;
}

/* It has the id, too, but is written last. */
static bool inventory_table(const char *directory, char *ret, size_t size)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/images", directory);
	return criu_inventory_table(path, ret, size) == 0;
}

int criu_network_table(const char *work_directory, char *ret, size_t size)
{
	return find_run(work_directory, PRELOAD_STATUS_NAME PRELOAD_RUN_SUFFIX, ret, size) ||
			       find_run(work_directory, DUMP_LOG, ret, size) ||
			       inventory_table(work_directory, ret, size)
		       ? 0
		       : -ENOENT;
}
