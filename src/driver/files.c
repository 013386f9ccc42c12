/*
 * The files of a tree: see files.h. No state; any thread.
 *
 * Executables and libraries must be equal to the byte at the target, because the process goes on in the middle of them;
 * CRIU compares only size and build id. Files that are open must exist with the size they had (CRIU refuses a
 * "bad size"), unless somebody writes to them: then they have to come along, or lie on storage that both hosts see.
 * Names on pseudo file systems (proc, sysfs, devpts, cgroup) mean something else on each host: never compared.
 */
#include "driver/files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <xxhash.h>

#include "base/array.h"
#include "base/fd.h"
#include "driver/scan.h"

#define HASH_CHUNK (1U << 20)
#define DATA_HASH_MAX (64U << 20) /* mapped data above this is compared by size only */

struct gather {
	struct workload *w;
	size_t n_allocated;
	char last[SCAN_TARGET_MAX]; /* mappings of one file stand together */
	char last_permissions[5];
};

int files_hash(const char *path, uint64_t *ret_hash)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	_cleanup_free_ uint8_t *chunk = malloc(HASH_CHUNK);
	XXH3_state_t *state = XXH3_createState();
	struct stat st;
	int r = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;
	ssize_t n;

	if (!r && !S_ISREG(st.st_mode))
		r = -EINVAL; /* the path may come from a peer: never read a device */
	if (!r && (!chunk || !state || XXH3_64bits_reset(state) != XXH_OK))
		r = -ENOMEM;
	while (!r && (n = read(fd, chunk, HASH_CHUNK)) != 0) {
		if (n < 0 && errno != EINTR)
			r = -errno;
		else if (n > 0)
			XXH3_64bits_update(state, chunk, (size_t)n);
	}
	if (!r)
		*ret_hash = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	return r;
}

static bool on_pseudo_fs(const char *path)
{
	struct statfs fs;

	if (statfs(path, &fs) < 0)
		return true;
	switch ((unsigned long)fs.f_type) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case DEVPTS_SUPER_MAGIC:
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
	case DEBUGFS_MAGIC:
	case TRACEFS_MAGIC:
	case SECURITYFS_MAGIC:
	case BPF_FS_MAGIC:
	case NSFS_MAGIC:
		return true;
	default:
		return false;
	}
}

static int add_file(struct gather *g, const char *path, enum workload_file_use use, const struct stat *st,
		    bool writable)
{
	struct workload *w = g->w;
	char *copy;

	if (array_grow(&w->files, w->n_files, &g->n_allocated, 64, sizeof(*w->files)) < 0)
		return -ENOMEM;
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	w->files[w->n_files++] = (struct workload_file){
		.path = copy,
		.use = use,
		.size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0,
		.mode = st->st_mode,
		.writable = writable,
	};
	return 0;
}

static int gather_mapping(void *context, const struct scan_mapping *m)
{
	struct gather *g = context;
	bool shared_writable = m->permissions[1] == 'w' && m->permissions[3] == 's';
	struct stat st;

	if (m->path[0] != '/' || scan_deleted(m->path))
		return 0;
	if (!strcmp(m->path, g->last) && !strcmp(m->permissions, g->last_permissions))
		return 0;
	snprintf(g->last, sizeof(g->last), "%s", m->path);
	memcpy(g->last_permissions, m->permissions, sizeof(g->last_permissions));
	if (stat(m->path, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	return add_file(g, m->path, m->permissions[2] == 'x' ? FILE_USE_EXECUTABLE : FILE_USE_MAPPED, &st,
			shared_writable);
}

static int gather_fd(void *context, const struct scan_fd *s)
{
	struct gather *g = context;
	unsigned int access = s->flags & O_ACCMODE;

	if (s->target[0] != '/' || scan_deleted(s->target) || on_pseudo_fs(s->target))
		return 0;
	if (S_ISDIR(s->st.st_mode))
		return add_file(g, s->target, FILE_USE_DIRECTORY, &s->st, false);
	if (!S_ISREG(s->st.st_mode) && !S_ISFIFO(s->st.st_mode))
		return 0;
	return add_file(g, s->target, FILE_USE_OPEN, &s->st, access == O_WRONLY || access == O_RDWR);
}

/* exe, cwd and root of a process: links as /proc/PID shows them. */
static int gather_link(struct gather *g, pid_t pid, const char *name, enum workload_file_use use)
{
	char link[64], target[SCAN_TARGET_MAX];
	struct stat st;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/%d/%s", pid, name);
	n = readlink(link, target, sizeof(target) - 1);
	if (n <= 0)
		return 0;
	target[n] = 0;
	if (target[0] != '/' || scan_deleted(target) || stat(link, &st) < 0 || on_pseudo_fs(target))
		return 0;
	return add_file(g, target, use, &st, false);
}

static int compare_files(const void *a, const void *b)
{
	const struct workload_file *x = a, *y = b;
	int r = strcmp(x->path, y->path);

	return r ? r : (int)x->use - (int)y->use;
}

/* One entry per path: the strictest use (they are ordered so), writable if any is. */
static void merge_files(struct workload *w)
{
	size_t kept = 0;

	if (w->n_files)
		qsort(w->files, w->n_files, sizeof(*w->files), compare_files);
	for (size_t i = 0; i < w->n_files; i++) {
		if (kept && !strcmp(w->files[kept - 1].path, w->files[i].path)) {
			w->files[kept - 1].writable |= w->files[i].writable;
			free(w->files[i].path);
		} else {
			w->files[kept++] = w->files[i];
		}
	}
	w->n_files = kept;
}

static int hash_files(struct workload *w, struct error *err)
{
	for (size_t i = 0; i < w->n_files; i++) {
		struct workload_file *f = &w->files[i];
		int r;

		if (f->use == FILE_USE_MAPPED && (f->writable || f->size > DATA_HASH_MAX))
			continue;
		if (f->use != FILE_USE_EXECUTABLE && f->use != FILE_USE_MAPPED)
			continue;
		r = files_hash(f->path, &f->hash);
		if (r < 0 && r != -ENOENT) /* another mount namespace: check_source tells */
			return error_errno(err, -r, "cannot read %s, which the workload has mapped", f->path);
	}
	return 0;
}

int files_describe(const struct tree *t, struct workload *ret, struct error *err)
{
	struct gather g = { .w = ret };
	int r = 0;

	for (size_t i = 0; i < t->n && !r; i++) {
		pid_t pid = t->processes[i].pid;

		g.last[0] = 0;
		r = gather_link(&g, pid, "exe", FILE_USE_EXECUTABLE);
		if (!r)
			r = gather_link(&g, pid, "cwd", FILE_USE_DIRECTORY);
		if (!r)
			r = gather_link(&g, pid, "root", FILE_USE_DIRECTORY);
		if (!r)
			r = scan_mappings(pid, gather_mapping, &g);
		if (!r)
			r = scan_fds(pid, gather_fd, &g);
	}
	if (r < 0)
		return error_errno(err, -r, "cannot list the files of the tree of process %d", t->processes[0].pid);
	merge_files(ret);
	if (ret->n_files > WORKLOAD_FILES_MAX)
		return error_set(err, E2BIG, "the workload has %zu files open or mapped, phaul moves at most %d",
				 ret->n_files, WORKLOAD_FILES_MAX);
	return hash_files(ret, err);
}

static bool is_synced(const char *path, const struct driver_options *options)
{
	for (size_t i = 0; options && i < options->n_synced_paths; i++) {
		const char *s = options->synced_paths[i];
		size_t n = strlen(s);

		while (n > 1 && s[n - 1] == '/')
			n--;
		if (!strncmp(path, s, n) && (path[n] == '/' || !path[n] || n == 1))
			return true;
	}
	return false;
}

static const char *const bring_cure = "bring it along with --sync, or put it there (the same path on both hosts)";

static int check_content(const struct workload_file *f, const struct stat *st, struct obstacles *o)
{
	const char *cure = "install the same version on both hosts, or bring it along with --sync";
	uint64_t hash = 0;
	int r;

	if (!f->hash || f->writable)
		return 0;
	if ((uint64_t)st->st_size == f->size) {
		r = files_hash(f->path, &hash);
		if (r < 0)
			return obstacles_add(o, OBSTACLE_REFUSES, true, NULL, "%s cannot be read at the target: %s",
					     f->path, strerror(-r));
		if (hash == f->hash)
			return 0;
	}
	return obstacles_add(o, OBSTACLE_REFUSES, true, cure,
			     "%s differs at the target from the file that the workload has mapped", f->path);
}

static int check_file(const struct workload_file *f, struct obstacles *o)
{
	struct stat st;

	if (stat(f->path, &st) < 0)
		return obstacles_add(o, OBSTACLE_REFUSES, true, bring_cure, "%s is missing at the target", f->path);
	if ((st.st_mode & S_IFMT) != (f->mode & S_IFMT))
		return obstacles_add(o, OBSTACLE_REFUSES, true, bring_cure,
				     "%s is another kind of file at the target than at the source", f->path);
	switch (f->use) {
	case FILE_USE_EXECUTABLE:
	case FILE_USE_MAPPED:
		if (!f->hash && !f->writable && (uint64_t)st.st_size != f->size)
			break;
		return check_content(f, &st, o);
	case FILE_USE_OPEN:
		if (!S_ISREG(f->mode) || (uint64_t)st.st_size == f->size)
			return 0;
		if (f->writable)
			return obstacles_add(o, OBSTACLE_WARNS, true,
					     "bring it along with --sync unless both hosts see the same storage",
					     "%s is written by the workload and has another size at the target",
					     f->path);
		break;
	case FILE_USE_DIRECTORY:
		return 0;
	case FILE_USE_INVALID:
	case FILE_USE_MAX:
	default:
		return -EINVAL;
	}
	return obstacles_add(o, OBSTACLE_REFUSES, true, bring_cure,
			     "%s has %llu bytes at the target and %llu at the source", f->path,
			     (unsigned long long)st.st_size, (unsigned long long)f->size);
}

int files_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
		       struct error *err)
{
	for (size_t i = 0; i < w->n_files; i++) {
		int r;

		if (w->files[i].path[0] != '/')
			return error_set(err, EINVAL, "the plan names a file by a path that is not absolute");
		if (is_synced(w->files[i].path, options))
			continue;
		r = check_file(&w->files[i], ret);
		if (r < 0)
			return error_errno(err, -r, "cannot compare %s", w->files[i].path);
	}
	return 0;
}
