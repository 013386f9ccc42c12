/*
 * What a runtime's restore leaves at the target when it is killed: see oci.h. runc mounts the root file system a second time for CRIU, below its directory of
 * the container, makes control groups, and writes its state last; a runtime that is told to delete a container without a state finds nothing.
 *
 * Only names of the container's own are touched, and groups without tasks: rmdir(2) removes no other. No state; any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "driver/group.h"
#include "driver/oci.h"

#define CGROUPS "/sys/fs/cgroup"
#define DELETE_MS 30000

/* `own` is the group of this process there: a runtime makes a container's below it where the configuration names none. */
static void remove_from(const char *hierarchy, const char *own, const char *group, const char *id)
{
	char path[PATH_MAX];

	if (group)
		snprintf(path, sizeof(path), CGROUPS "/%.128s%.1024s", hierarchy, group);
	else
		snprintf(path, sizeof(path), CGROUPS "/%.128s%.1024s/%.255s", hierarchy, strcmp(own, "/") ? own : "",
			 id);
	if (access(path, F_OK) == 0)
		(void)group_remove_tree(path);
}

/* Each line of /proc/self/cgroup is a hierarchy: NUMBER:CONTROLLERS:PATH, without controllers the one of version 2. */
static void remove_groups(const char *group, const char *id)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/cgroup", "re");
	bool hybrid = access(CGROUPS "/unified", F_OK) == 0;
	char line[2048];

	while (f && fgets(line, sizeof(line), f)) {
		char *controllers = strchr(line, ':'), *own = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!own)
			continue;
		*controllers++ = *own++ = 0;
		own[strcspn(own, "\n")] = 0;
		if (!strncmp(controllers, "name=", 5))
			controllers += 5;
		if (*controllers) {
			remove_from(controllers, own, group, id);
			continue;
		}
		remove_from(hybrid ? "unified" : ".", own, group, id);
		/* Beside the group of this process, which holds tasks and so can have none below it. */
		if (strcmp(own, "/") != 0) {
			*strrchr(own, '/') = 0;
			remove_from(hybrid ? "unified" : ".", *own ? own : "/", group, id);
		}
	}
}

int oci_clear_left(const char *runtime, const char *root, const char *id, const char *group, struct error *err)
{
	const char *argv[] = { runtime, "--root", root, "delete", "--force", id, NULL };
	char directory[PATH_MAX], mounted[PATH_MAX + 16], state[PATH_MAX + 16];
	int r = 0;

	if (!oci_id_valid(id))
		return error_set(err, EINVAL, "\"%.64s\" is not a container's id", id);
	snprintf(directory, sizeof(directory), "%.511s/%s", root, id);
	snprintf(mounted, sizeof(mounted), "%s/criu-root", directory);
	snprintf(state, sizeof(state), "%s/state.json", directory);
	if (umount2(mounted, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != ENOENT && errno != EINVAL)
		r = error_errno(err, errno, "cannot unmount %s", mounted);
	if (!r && access(state, F_OK) == 0)
		r = process_run(argv, NULL, deadline_in_ms(DELETE_MS), err);
	if (r > 0)
		r = error_wrap(err, "cannot delete container %s", id);
	if (!r && (r = dir_remove(directory)) < 0)
		r = error_errno(err, -r, "cannot remove %s", directory);
	if (!r && (!group || group[0] == '/'))
		remove_groups(group, id);
	return r;
}
