/*
 * Where a watch tells everything: see watch-place.h. Nothing here is changed; one thread.
 *
 * An overlay's upper directory is written through the overlay by the container and is brought over by its own path. Whether the kernel
 * tells of such writes at that path depends on its version, so it is tried, once per tree that is one.
 */
#include "fs/watch-place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/buffer.h"
#include "base/fd.h"

#define MOUNTS_MAX (16U << 20)

/* statfs(2): file systems that other hosts write to as well, unseen from here. */
static bool is_cluster(const char *path)
{
	static const uint32_t cluster[] = { 0x00c36400 /* ceph */,   0x01161970 /* gfs2 */, 0x7461636f /* ocfs2 */,
					    0x6969 /* nfs */,	     0xff534d42 /* cifs */, 0xfe534d42 /* smb2 */,
					    0x0bd00bd0 /* lustre */, 0x65735546 /* fuse */, 0x01021997 /* 9p */ };
	struct statfs s;

	if (statfs(path, &s) < 0)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(cluster); i++)
		if ((uint32_t)s.f_type == cluster[i])
			return true;
	return false;
}

/* mountinfo(5) writes space, tab, newline and backslash as \ooo. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *p = text; *p; p++) {
		if (p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] && p[3]) {
			*to++ = (char)((p[1] - '0') * 64 + (p[2] - '0') * 8 + (p[3] - '0'));
			p += 3;
		} else {
			*to++ = *p;
		}
	}
	*to = 0;
}

static bool lies_in(const char *path, const char *directory)
{
	size_t n = strlen(directory);

	return !strncmp(path, directory, n) && (!path[n] || path[n] == '/');
}

/* "36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/root rw,upperdir=/x,workdir=/y" */
static int check_mount(const struct sync_tree *tree, const char *path, char *line, bool own, bool *ret_upper,
		       struct error *err)
{
	char *point = line, *options = strstr(line, " - "), *upper;

	for (int i = 0; i < 4 && point; i++)
		point = strchr(point, ' ') ? strchr(point, ' ') + 1 : NULL;
	if (!point || !options)
		return 0;
	upper = strncmp(options, " - overlay ", 11) ? NULL : strstr(options, ",upperdir=");
	if (upper) {
		upper += strlen(",upperdir=");
		upper[strcspn(upper, ", ")] = 0;
		unescape(upper);
		*ret_upper = *ret_upper || lies_in(path, upper) || lies_in(upper, path);
	}
	point[strcspn(point, " ")] = 0;
	unescape(point);
	if (own && strcmp(point, path) != 0 && lies_in(point, path) &&
	    !sync_tree_excludes(tree, point + strlen(path) + 1))
		return error_set(err, EOPNOTSUPP, "changes below %s cannot be watched: %s is mounted in it", path,
				 point);
	return 0;
}

static int check_mounts(const struct sync_tree *tree, const char *path, pid_t pid, bool *ret_upper, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char name[64] = "/proc/self/mountinfo";
	char *line, *rest;
	int r;

	if (pid)
		snprintf(name, sizeof(name), "/proc/%d/mountinfo", pid);
	r = fd_read_file(AT_FDCWD, name, MOUNTS_MAX, &text);
	if (!r)
		r = buffer_append(&text, "", 1);
	if (r < 0)
		return error_set(err, EOPNOTSUPP, "changes below %s cannot be watched: %s cannot be read: %s", path,
				 name, strerror(-r));
	rest = (char *)text.data;
	while ((line = strsep(&rest, "\n")) && !r)
		r = check_mount(tree, path, line, !pid, ret_upper, err);
	return r;
}

/* A mount that is attached nowhere. */
static int detached_mount(const char *type, const char *const *options)
{
	_cleanup_close_ int fs = fsopen(type, FSOPEN_CLOEXEC);
	int r = fs < 0 ? -1 : 0;

	for (; !r && *options; options += 2)
		r = fsconfig(fs, FSCONFIG_SET_STRING, options[0], options[1], 0);
	if (!r)
		r = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
	return r < 0 ? -1 : fsmount(fs, FSMOUNT_CLOEXEC, 0);
}

static bool was_told(int fan_fd)
{
	char chunk[4096] __attribute__((aligned(8)));
	ssize_t n = read(fan_fd, chunk, sizeof(chunk));
	const struct fanotify_event_metadata *m = (const void *)chunk;

	/* Only one file was written, and nobody else sees this file system. */
	return n >= (ssize_t)sizeof(*m) && (m->mask & FAN_MODIFY);
}

int watch_overlay_is_told(void)
{
	static const char *const none[] = { NULL };
	_cleanup_close_ int below = detached_mount("tmpfs", none), over = -1, file = -1, fan = -1;
	char lower[64], upper[64], work[64];
	const char *const options[] = { "lowerdir", lower, "upperdir", upper, "workdir", work, NULL };

	snprintf(lower, sizeof(lower), "/proc/thread-self/fd/%d/l", below);
	snprintf(upper, sizeof(upper), "/proc/thread-self/fd/%d/u", below);
	snprintf(work, sizeof(work), "/proc/thread-self/fd/%d/w", below);
	if (below < 0 || mkdirat(below, "l", 0700) < 0 || mkdirat(below, "u", 0700) < 0 ||
	    mkdirat(below, "w", 0700) < 0)
		return 0;
	over = detached_mount("overlay", options);
	file = over < 0 ? -1 : openat(over, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	fan = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_DFID_NAME, O_RDONLY);
	if (file < 0 || fan < 0 || fanotify_mark(fan, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_MODIFY, below, ".") < 0)
		return 0;
	return write(file, "x", 1) == 1 && was_told(fan);
}

int watch_place_check(const struct sync_tree *tree, const char *path, pid_t pid, struct error *err)
{
	bool upper = false;
	int r = 0;

	if (is_cluster(path))
		return error_set(err, EOPNOTSUPP,
				 "changes below %s cannot be watched: other hosts may write to its file system", path);
	r = check_mounts(tree, path, 0, &upper, err);
	if (!r && pid)
		r = check_mounts(tree, path, pid, &upper, err);
	if (!r && upper && !watch_overlay_is_told())
		return error_set(
			err, EOPNOTSUPP,
			"changes below %s cannot be watched: an overlay writes there, and this kernel does not "
			"tell of that",
			path);
	return r;
}
