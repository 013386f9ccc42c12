/*
 * Starting LXC's restore at the target, and ending what one left. No state; any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "driver/group.h"
#include "driver/helper.h"
#include "driver/lxc.h"
#include "driver/search-path.h"

#define ENVIRON_MAX (1U << 20)
#define END_MS 10000

/* LXC names the log on CRIU's command line, in the directory of the images; ours is elsewhere. */
static int link_log(const struct driver_place *place, struct error *err)
{
	char from[PATH_MAX], to[PATH_MAX];

	snprintf(from, sizeof(from), "%s/restore.log", place->criu_images);
	snprintf(to, sizeof(to), "%s/restore.log", place->work_directory);
	return symlink(to, from) < 0 && errno != EEXIST ? error_errno(err, errno, "cannot make %s", from) : 0;
}

/*
 * Where the container's tasks belong in version 2 of control groups. LXC tells CRIU so for each hierarchy, by the names of its controllers, but CRIU
 * knows that one by the empty name. It matters where the container has another name here than at the source.
 */
static int add_group(const struct driver_place *place, const char *name, struct error *err)
{
	_cleanup_close_ int fd = open(place->criu_config, O_WRONLY | O_APPEND | O_CLOEXEC);

	if (fd < 0 || dprintf(fd, "cgroup-root :/lxc.payload.%s\n", name) < 0)
		return error_errno(err, errno, "cannot add to %s", place->criu_config);
	return 0;
}

int lxc_restore(const struct workload *w, struct driver_place *place, int stderr_fd, struct process *ret,
		struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	char self[PATH_MAX] = "", config[PATH_MAX + 32], path[SEARCH_PATH_MAX], mark[128], log[PATH_MAX];
	struct lxc_target_place p;
	int r = lxc_spec_decode(w->spec, &s, err);

	if (!r)
		r = lxc_target_place(&s, place->options, &p, err);
	if (!r)
		r = link_log(place, err);
	if (!r)
		r = add_group(place, s.name, err);
	if (!r)
		r = search_path_make(place, path, sizeof(path), err);
	if (r < 0)
		return r;
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return error_errno(err, errno, "cannot find this program");
	snprintf(config, sizeof(config), "CRIU_CONFIG_FILE=%s", place->criu_config);
	snprintf(mark, sizeof(mark), "%s=%.64s", LXC_RESTORE_MARK, place->id_text);
	snprintf(log, sizeof(log), "%s/lxc.log", place->work_directory);
	{
		const char *argv[] = { self,
				       DRIVER_HELPER,
				       LXC_RESTORE_HELPER,
				       p.place,
				       s.name,
				       place->criu_images,
				       log,
				       place->work_directory,
				       place->criu_environment[0],
				       place->criu_environment[0] ? place->criu_environment[1] : NULL,
				       NULL };
		const char *environment[] = { config, path, mark, NULL };
		struct process_options options = { .argv = argv,
						   .environment = environment,
						   .stdin_fd = -1,
						   .stdout_fd = -1,
						   .stderr_fd = stderr_fd,
						   .new_session = true };

		return process_start(&options, ret, err);
	}
}

/* Whether a process was started by the restore of that migration. */
static bool is_marked(pid_t pid, const char *mark)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[64];
	size_t n = strlen(mark);

	snprintf(path, sizeof(path), "/proc/%d/environ", pid);
	if (fd_read_file(AT_FDCWD, path, ENVIRON_MAX, &text) < 0)
		return false;
	for (size_t i = 0; i + n < text.length; i += strlen((char *)text.data + i) + 1)
		if (!strcmp((char *)text.data + i, mark))
			return true;
	return false;
}

static void kill_and_wait(pid_t pid)
{
	_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0 || syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0)
		return;
	if (fd_wait(fd, POLLIN, deadline_in_ms(END_MS)) == 0)
		log_warning("process %d of a failed restore does not end", pid);
}

/* One of them, as long as there are any. */
static bool end_marked(const char *mark)
{
	_cleanup_closedir_ DIR *d = opendir("/proc");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

		if (pid <= 1 || pid == getpid() || !is_marked(pid, mark))
			continue;
		kill_and_wait(pid);
		return true;
	}
	return false;
}

/* The processes of one control group and those below it. */
static int end_group(const char *path, const struct stat *st, int type, struct FTW *at)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char procs[PATH_MAX + 32], *line, *rest;

	(void)st;
	(void)at;
	snprintf(procs, sizeof(procs), "%.*s/cgroup.procs", PATH_MAX, path);
	if (type != FTW_D || fd_read_file(AT_FDCWD, procs, ENVIRON_MAX, &text) < 0)
		return 0;
	for (line = strtok_r((char *)text.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		pid_t pid = (pid_t)strtol(line, NULL, 10);

		if (pid > 1 && pid != getpid())
			kill_and_wait(pid);
	}
	return 0;
}

/*
 * Tasks that CRIU had made already look like the container's own. They are in the group that LXC made for the container, which was not there before
 * (lxc_group_in_use). Then the groups that LXC's monitor had no time to remove.
 */
static int each_group(const char *name, int (*work)(const char *path))
{
	static const char *const kinds[] = { "payload", "monitor" };
	_cleanup_closedir_ DIR *d = opendir("/sys/fs/cgroup");
	char path[PATH_MAX];
	struct dirent *e;
	int found = 0;

	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup/lxc.%s.%.64s", kinds[k], name);
		found += access(path, F_OK) == 0 && work(path) == 0;
	}
	while (d && (e = readdir(d)))
		for (size_t k = 0; k < ARRAY_SIZE(kinds) && e->d_name[0] != '.'; k++) {
			snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/lxc.%s.%.64s", e->d_name, kinds[k], name);
			found += access(path, F_OK) == 0 && work(path) == 0;
		}
	return found;
}

static int end_tasks(const char *path)
{
	return nftw(path, end_group, 16, FTW_PHYS | FTW_MOUNT);
}

/* 0: LXC's monitor, or a task, is there. */
static int look(const char *path)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char procs[PATH_MAX + 32];

	snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
	return fd_read_file(AT_FDCWD, procs, ENVIRON_MAX, &text) == 0 && text.length ? 0 : -ENOENT;
}

bool lxc_group_in_use(const char *name)
{
	return each_group(name, look) > 0;
}

void lxc_remove_groups(const char *name)
{
	each_group(name, group_remove_tree);
}

void lxc_end_leftovers(const char *id_text, const char *name)
{
	uint64_t deadline_ns = deadline_in_ms(END_MS);
	char mark[128];

	snprintf(mark, sizeof(mark), "%s=%.64s", LXC_RESTORE_MARK, id_text);
	while (end_marked(mark))
		if (clock_now_ns() > deadline_ns)
			break;
	each_group(name, end_tasks);
	lxc_remove_groups(name);
}
