/*
 * LXC's restore, run by a helper (helper.h), `phaul engine-helper lxc-restore PLACE NAME IMAGES LOG WORK [NAME=VALUE]...`: liblxc forks the container's monitor out of whoever calls it, and that must
 * be small, without threads and without our descriptors.
 *
 *   phaul worker -> lxc-restore -> its child, which calls liblxc -> LXC's monitor, which stays -> CRIU
 *
 * Everything below lxc-restore carries LXC_RESTORE_MARK in its environment, by which it is found after a crash; the container's own tasks do not.
 * The monitor keeps the mount namespace that was made for it (see make_mounts) as long as the container runs. Threads: none.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fd.h"
#include "driver/group.h"
#include "driver/lxc-config.h"
#include "driver/lxc.h"

#define UNIFIED "/sys/fs/cgroup/unified"
#define LOG_MAX (1U << 20)
#define EASE_FOR_MS 5000 /* as long as a restore may take that somebody waits for */

struct request {
	const char *place, *name, *images, *log, *work;
};

/*
 * LXC up to at least 6.0 frees a string twice when a hierarchy of control groups has no controllers, as version 2 has beside version 1: it names the
 * hierarchy to CRIU by its controllers, and an unset pointer is freed when there are none (its criu.c, exec_criu). So it is shown one; nobody else
 * sees that, and CRIU takes the name for that of a hierarchy which the images do not have.
 */
static int show_controller(const struct request *q, struct error *err)
{
	static const char name[] = "phaul\n";
	char path[PATH_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/controllers", q->work);
	r = fd_write_file(AT_FDCWD, path, name, sizeof(name) - 1, 0600);
	if (r < 0)
		return error_errno(err, -r, "cannot write %s", path);
	if (mount(path, UNIFIED "/cgroup.controllers", NULL, MS_BIND, NULL) < 0)
		return error_errno(err, errno, "cannot show LXC a controller of " UNIFIED);
	return 0;
}

static bool unified_is_empty(void)
{
	_cleanup_buffer_ struct buffer text = { 0 };

	return fd_read_file(AT_FDCWD, UNIFIED "/cgroup.controllers", 4096, &text) == 0 &&
	       (!text.length || text.data[0] == '\n');
}

/*
 * LXC's restore binds the root file system as a directory and knows no overlay: it is mounted here as LXC does at a start (lower layers from the
 * topmost on, work directory "olwork" beside the upper one), and LXC is told of the directory. Nothing but its root is looked at before CRIU
 * goes on, so that the last file pass, which writes into the upper layer, is seen.
 */
static int mount_overlay(const struct request *q, char *layers, char *ret_root, size_t size, struct error *err)
{
	char *upper = strrchr(layers, ':'), work[PATH_MAX];
	_cleanup_free_ char *options = NULL;
	int r;

	if (!upper || upper[1] != '/')
		return error_set(err, EINVAL, "lxc.rootfs.path = overlay:%s names no upper directory", layers);
	*upper++ = 0;
	snprintf(work, sizeof(work), "%s", upper);
	*strrchr(work, '/') = 0;
	strncat(work, "/olwork", sizeof(work) - strlen(work) - 1);
	r = dir_make(work, 0755);
	if (r < 0)
		return error_errno(err, -r, "cannot make %s", work);
	snprintf(ret_root, size, "%s/rootfs", q->work);
	if (mkdir(ret_root, 0755) < 0 && errno != EEXIST)
		return error_errno(err, errno, "cannot make %s", ret_root);
	if (asprintf(&options, "upperdir=%s,lowerdir=%s,workdir=%s", upper, layers, work) < 0)
		return error_set(err, ENOMEM, "no memory to mount an overlay");
	if (mount("overlay", ret_root, "overlay", 0, options) < 0)
		return error_errno(err, errno, "cannot mount the container's overlay (%s)", options);
	return 0;
}

/* What only LXC's monitor sees. root: empty when LXC's own way of mounting it does. */
static int make_mounts(const struct request *q, char *ret_root, size_t size, struct error *err)
{
	_cleanup_buffer_ struct buffer config = { 0 };
	char directory[PATH_MAX], rootfs[LXC_VALUE_MAX] = "";
	bool overlay, empty = unified_is_empty();
	int r;

	ret_root[0] = 0;
	snprintf(directory, sizeof(directory), "%s/%s", q->place, q->name);
	r = lxc_config_load(directory, &config, err);
	if (r < 0)
		return r;
	lxc_config_value((char *)config.data, "lxc.rootfs.path", rootfs, sizeof(rootfs));
	overlay = !strncmp(rootfs, "overlay:", 8) || !strncmp(rootfs, "overlayfs:", 10);
	if (!overlay && !empty)
		return 0;
	/* What is unmounted outside must not stay mounted here. */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
		return error_errno(err, errno, "cannot make a mount namespace for LXC's monitor");
	if (empty)
		r = show_controller(q, err);
	return r < 0 || !overlay ? r : mount_overlay(q, strchr(rootfs, ':') + 1, ret_root, size, err);
}

/* LXC hands a profile to CRIU whether or not the kernel has AppArmor, and Debian's default configuration sets one. */
static bool have_apparmor(void)
{
	_cleanup_buffer_ struct buffer text = { 0 };

	return fd_read_file(AT_FDCWD, "/sys/module/apparmor/parameters/enabled", 64, &text) == 0 && text.length &&
	       text.data[0] == 'Y';
}

/* What is different from the container's configuration on disk, for this restore and the monitor that comes of it. */
static int adapt(const struct request *q, struct lxc_container *c, const char *root, struct error *err)
{
	char rootfs[PATH_MAX + 8];

	snprintf(rootfs, sizeof(rootfs), "dir:%s", root);
	if (root[0] && !c->set_config_item(c, "lxc.rootfs.path", rootfs))
		return error_set(err, EIO, "LXC does not take %s for the root of container %s", rootfs, q->name);
	if (!have_apparmor() && !c->clear_config_item(c, "lxc.apparmor.profile"))
		return error_set(err, EIO, "LXC does not let go of the AppArmor profile of container %s", q->name);
	return 0;
}

static int call_lxc(const struct request *q, const char *root, struct error *err)
{
	struct migrate_opts options = { .directory = (char *)q->images };
	struct lxc_log log = { .name = q->name, .lxcpath = q->place, .file = q->log, .level = "ERROR", .quiet = true };
	struct lxc_container *c = NULL;
	struct lxc_library l;
	int r = lxc_library_load(&l, err);

	if (r < 0)
		return r;
	if (l.log_init(&log) < 0)
		return error_set(err, EIO, "LXC cannot write its log to %s", q->log);
	r = lxc_library_open(&l, q->place, q->name, &c, err);
	if (r < 0)
		return r;
	r = adapt(q, c, root, err);
	if (!r && c->migrate(c, MIGRATE_RESTORE, &options, sizeof(options)))
		r = error_set(err, EIO, "LXC could not restore container %s", q->name);
	l.container_put(c);
	return r;
}

/* The child, of which the monitor is a child: it holds none of the caller's descriptors. */
static int restore_apart(const struct request *q)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), log;
	struct error err = { 0 };
	char root[PATH_MAX];
	int r;

	if (null < 0 || setsid() < 0 || chdir("/") < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
		return 1;
	r = make_mounts(q, root, sizeof(root), &err);
	if (!r)
		r = call_lxc(q, root, &err);
	if (r == 0)
		return 0;
	log = open(q->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log >= 0 && dprintf(log, "phaul: ERROR phaul - %s\n", err.text) < 0)
		return 2;
	return 1;
}

/* LXC's log, and as the last line its first error, which is the cause of the others: without the place in LXC's source. */
static void tell_failure(const struct request *q)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	const char *error, *message;

	if (fd_read_file(AT_FDCWD, q->log, LOG_MAX, &text) < 0 || !text.length)
		return;
	fprintf(stderr, "%s", (char *)text.data);
	error = strstr((char *)text.data, " ERROR ");
	message = error ? strstr(error, " - ") : NULL;
	if (message && !strncmp(message + 3, "../", 3) && strstr(message + 3, " - "))
		message = strstr(message + 3, " - ");
	if (message)
		fprintf(stderr, "%.*s\n", (int)strcspn(message + 3, "\n"), message + 3);
}

/* Of what CRIU restores here, the tasks put themselves into their control groups one after the other, in the freeze. */
static int wait_for(pid_t pid, int *ret_status)
{
	_cleanup_close_ int group = group_open_own();
	uint64_t until = deadline_in_ms(EASE_FOR_MS);
	pid_t ended;

	do {
		bool easing = group >= 0 && clock_now_ns() < until;

		ended = waitpid(pid, ret_status, easing ? WNOHANG : 0);
		if (!ended) {
			group_ease(group);
			poll(NULL, 0, GROUP_EASE_MS);
		}
	} while (!ended || (ended < 0 && errno == EINTR));
	return ended < 0 ? -errno : 0;
}

int lxc_restore_main(int argc, char **argv)
{
	struct request q;
	int status;
	pid_t pid;

	if (argc < 6)
		return 2;
	/* For CRIU, and for nobody up to there: LD_PRELOAD would act in this program, too. */
	for (int i = 6; i < argc; i++)
		if (putenv(argv[i]))
			return 1;
	q = (struct request){ argv[1], argv[2], argv[3], argv[4], argv[5] };
	pid = fork();
	if (pid < 0) {
		perror("fork");
		return 1;
	}
	if (pid == 0)
		_exit(restore_apart(&q));
	if (wait_for(pid, &status) < 0)
		return 1;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	tell_failure(&q);
	if (WIFSIGNALED(status))
		fprintf(stderr, "LXC's library died of signal %d\n", WTERMSIG(status));
	return 1;
}
