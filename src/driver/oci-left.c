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

#define DELETE_MS 30000

/* `own` is the group of this process there: a runtime makes a container's below it where the configuration names none. */
static void remove_from(const char *hierarchy, const char *own, const char *group, const char *id)
{
	char path[PATH_MAX];

	if (group)
		snprintf(path, sizeof(path), GROUP_ROOT "/%.128s%.1024s", hierarchy, group);
	else
		snprintf(path, sizeof(path), GROUP_ROOT "/%.128s%.1024s/%.255s", hierarchy, strcmp(own, "/") ? own : "",
			 id);
	if (access(path, F_OK) == 0)
		(void)group_remove_tree(path);
}

struct left_groups {
	const char *group, *id;
};

static int remove_group(void *context, const char *hierarchy, char *own, bool unified)
{
	const struct left_groups *left = context;

	remove_from(hierarchy, own, left->group, left->id);
	/* Beside the group of this process, which holds tasks and so can have none below it. */
	if (unified && strcmp(own, "/") != 0) {
		*strrchr(own, '/') = 0;
		remove_from(hierarchy, *own ? own : "/", left->group, left->id);
	}
	return 0;
}

static void remove_groups(const char *group, const char *id)
{
	struct left_groups left = { .group = group, .id = id };

	(void)group_each_own(remove_group, &left);
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
