/*
 * Descriptors that CRIU cannot dump. Source of the facts: CRIU's files.c (dump_one_file), files-reg.c, tty.c. No
 * state; any thread.
 *
 * One walk over all descriptors judges each by itself; what needs the whole tree (pipes, sockets, terminals) is
 * gathered and judged at the end.
 */
#include "base/array.h"
#include "driver/pid.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "driver/pid-sockets.h"
#include "driver/scan.h"

#define MQUEUE_MAGIC 0x19800202
#define PTS_FIRST_MAJOR 136 /* admin-guide/devices.txt: 136..143, 256 terminals each */
#define PTS_LAST_MAJOR 143
#define TTY_MAJOR 4
#define TTYAUX_MAJOR 5
#define PTMX_MINOR 2
#define MEM_MAJOR 1
#define MISC_MAJOR 10
#define TUN_MINOR 200

struct terminal {
	pid_t pid;
	int index; /* of a pseudo-terminal; -1: another kind */
	bool master;
	char path[64];
};

struct walk {
	struct obstacles *o;
	const char *name; /* of the process in hand */
	bool own_network;
	struct ends pipes, sockets;
	bool container; /* names are those of its own root; its standard descriptors lead to the engine, which joins them again */
	struct terminal *terminals;
	size_t n_terminals, n_terminals_allocated;
};

static int add_terminal(struct walk *w, const struct scan_fd *s, int index, bool master)
{
	struct terminal *one;

	if (array_grow(&w->terminals, w->n_terminals, &w->n_terminals_allocated, 16, sizeof(*w->terminals)) < 0)
		return -ENOMEM;
	one = &w->terminals[w->n_terminals++];
	*one = (struct terminal){ .pid = s->pid, .index = index, .master = master };
	snprintf(one->path, sizeof(one->path), "%.60s", s->target);
	return 0;
}

static int check_character_device(struct walk *w, const struct scan_fd *s)
{
	unsigned int major = major(s->st.st_rdev), minor = minor(s->st.st_rdev);

	if (major >= PTS_FIRST_MAJOR && major <= PTS_LAST_MAJOR)
		return add_terminal(w, s, (int)(minor + 256 * (major - PTS_FIRST_MAJOR)), false);
	if (major == TTYAUX_MAJOR && minor == PTMX_MINOR)
		return add_terminal(w, s, s->tty_index, true);
	if (major == TTY_MAJOR || major == TTYAUX_MAJOR)
		return add_terminal(w, s, -1, false);
	if (major == MEM_MAJOR)
		return 0;
	if (major == MISC_MAJOR && minor == TUN_MINOR && w->own_network)
		return 0; /* tun.c: "Net namespace is required to dump tun link" */
	return obstacles_add(
		w->o, OBSTACLE_REFUSES, false, "have the program close the device",
		"process %d (%s) has the device %s open, whose state lives in this host's kernel or hardware", s->pid,
		w->name, s->target);
}

/* What CRIU knows by name among anonymous inodes: files.c. */
static int check_anonymous(struct walk *w, const struct scan_fd *s)
{
	static const char *const known[] = { "[eventfd]", "[eventpoll]", "[timerfd]", "[signalfd]",
					     "inotify",	  "[fanotify]",	 "[pidfd]",   "[inotify]" };
	const char *kind = s->target + strlen("anon_inode:");

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(kind, known[i]))
			return 0;
	if (!strcmp(kind, "[io_uring]"))
		return obstacles_add(w->o, OBSTACLE_REFUSES, false,
				     "switch io_uring off in the program's configuration",
				     "process %d (%s) uses io_uring, which CRIU cannot dump", s->pid, w->name);
	if (!strcmp(kind, "[userfaultfd]"))
		return obstacles_add(
			w->o, OBSTACLE_REFUSES, false,
			"switch off what uses it (a garbage collector, a virtual machine)",
			"process %d (%s) handles its own page faults (userfaultfd), which CRIU cannot dump", s->pid,
			w->name);
	if (!strcmp(kind, "bpf-map"))
		return obstacles_add(w->o, OBSTACLE_WARNS, false, NULL,
				     "process %d (%s) has a BPF map, which only a CRIU built with libbpf can dump",
				     s->pid, w->name);
	return obstacles_add(w->o, OBSTACLE_REFUSES, false, "have the program close it",
			     "process %d (%s) has descriptor %d of a kind that CRIU cannot dump: %s", s->pid, w->name,
			     s->fd, kind);
}

/* Files whose name is gone, or leads elsewhere by now. */
static int check_name(struct walk *w, const struct scan_fd *s)
{
	uint64_t bytes = (uint64_t)s->st.st_blocks * 512;
	char root[64], path[SCAN_TARGET_MAX + 64];
	struct stat now;

	snprintf(root, sizeof(root), "/proc/%d/root", s->pid);

	if (!strncmp(s->target, "/memfd:", strlen("/memfd:")))
		return 0;
	if (!s->st.st_nlink) {
		if (!S_ISREG(s->st.st_mode) || bytes <= PID_GHOST_LIMIT_BYTES)
			return 0;
		return obstacles_add(w->o, OBSTACLE_REFUSES, false, "have the program close it",
				     "process %d (%s) has %s open, of %" PRIu64
				     " MiB: deleted files travel up to %llu MiB",
				     s->pid, w->name, s->target, bytes >> 20, PID_GHOST_LIMIT_BYTES >> 20);
	}
	snprintf(path, sizeof(path), "%s%s", w->container ? root : "", s->target);
	if (!lstat(path, &now) && now.st_ino == s->st.st_ino && now.st_dev == s->st.st_dev)
		return 0;
	if (scan_deleted(s->target))
		return obstacles_add(
			w->o, OBSTACLE_REFUSES, false, "have the program open it again",
			"process %d (%s) has %s open, whose content lives on under another name (a hard link)", s->pid,
			w->name, s->target);
	return obstacles_add(w->o, OBSTACLE_REFUSES, false, "undo that, or have the program open it again",
			     "process %d (%s) has %s open, and that name now leads to another file (mounted over, or "
			     "outside of this root)",
			     s->pid, w->name, s->target);
}

static int check_file(struct walk *w, const struct scan_fd *s)
{
	char link[64];
	struct statfs fs;

	snprintf(link, sizeof(link), "/proc/%d/fd/%d", s->pid, s->fd);
	if (statfs(link, &fs) < 0)
		return 0;
	switch ((unsigned long)fs.f_type) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case NSFS_MAGIC:
	case HUGETLBFS_MAGIC:
	case 0x50494446: /* pidfs: a pidfd, of kernels from 6.9 on */
		return 0;
	case MQUEUE_MAGIC:
		return obstacles_add(w->o, OBSTACLE_REFUSES, false, "have the program close it",
				     "process %d (%s) has the POSIX message queue %s open, which CRIU cannot dump",
				     s->pid, w->name, s->target);
	default:
		return s->target[0] == '/' ? check_name(w, s) : 0;
	}
}

static int check_fd(void *context, const struct scan_fd *s)
{
	struct walk *w = context;
	struct end end = { .inode = s->st.st_ino, .pid = s->pid, .fd = s->fd, .name = w->name };

	if (!strncmp(s->target, "anon_inode:", strlen("anon_inode:")))
		return check_anonymous(w, s);
	switch (s->st.st_mode & S_IFMT) {
	case S_IFSOCK:
		return ends_add(&w->sockets, &end);
	case S_IFIFO:
		if (strncmp(s->target, "pipe:", strlen("pipe:")) != 0)
			return check_file(w, s);
		end.sides = (s->flags & O_ACCMODE) == O_RDONLY ? 1 : (s->flags & O_ACCMODE) == O_WRONLY ? 2 : 3;
		/* The engine's pipe, or one of the container's own that others read at any descriptor (PostgreSQL's log). */
		if (w->container && s->fd <= STDERR_FILENO)
			end.sides = 3;
		return ends_add(&w->pipes, &end);
	case S_IFCHR:
		return check_character_device(w, s);
	case S_IFBLK:
		return obstacles_add(w->o, OBSTACLE_REFUSES, false, "have the program close the device",
				     "process %d (%s) has the block device %s open, which CRIU cannot dump", s->pid,
				     w->name, s->target);
	default:
		return check_file(w, s);
	}
}

/* A terminal whose master the tree holds itself (tmux, script) travels with it; any other stays behind. NULL: none of these. */
static const struct terminal *outside_terminal(const struct walk *w)
{
	for (size_t i = 0; i < w->n_terminals; i++) {
		const struct terminal *t = &w->terminals[i];
		bool inside = t->master;

		for (size_t j = 0; j < w->n_terminals && !inside; j++)
			inside = w->terminals[j].master && w->terminals[j].index == t->index && t->index >= 0;
		if (!inside)
			return t;
	}
	return NULL;
}

static int check_terminals(const struct walk *w, const struct driver_options *options)
{
	const struct terminal *t = outside_terminal(w);

	if (!t)
		return 0;
	if (options && options->shell_job)
		return obstacles_add(w->o, OBSTACLE_WARNS, false, NULL,
				     "process %d uses the terminal %s: at the target it gets phaul's own terminal, if "
				     "phaul has one there",
				     t->pid, t->path);
	return obstacles_add(
		w->o, OBSTACLE_REFUSES, false,
		"start it detached (setsid, with input and output from files or /dev/null), or give --shell-job",
		"process %d uses the terminal %s, which stays on this host", t->pid, t->path);
}

static int gather_terminal(void *context, const struct scan_fd *s)
{
	struct walk *w = context;

	if (!S_ISCHR(s->st.st_mode))
		return 0;
	return check_character_device(w, s);
}

int pid_find_terminal(const struct tree *t, bool *ret_found, struct error *err)
{
	struct obstacles ignored = { 0 };
	struct walk w = { .o = &ignored, .name = "" };
	int r = 0;

	for (size_t i = 0; i < t->n && !r; i++)
		r = scan_fds(t->processes[i].pid, gather_terminal, &w);
	if (!r)
		*ret_found = outside_terminal(&w) != NULL;
	free(w.terminals);
	obstacles_free(&ignored);
	return r < 0 ? error_errno(err, -r, "cannot look at the terminals of the tree of process %d",
				   t->processes[0].pid)
		     : 0;
}

int pid_check_descriptors(const struct tree *t, bool container, const struct driver_options *options,
			  struct obstacles *ret, struct error *err)
{
	struct walk w = { .o = ret, .container = container };
	int r = 0;

	w.own_network = tree_namespace(t->processes[0].pid, "net") != tree_namespace(getpid(), "net");
	for (size_t i = 0; i < t->n && !r; i++) {
		w.name = t->processes[i].name;
		r = scan_fds(t->processes[i].pid, check_fd, &w);
	}
	if (!r)
		r = check_terminals(&w, options);
	if (!r)
		r = pid_check_pipes(&w.pipes, ret);
	if (r < 0)
		error_errno(err, -r, "cannot look at the descriptors of the tree of process %d", t->processes[0].pid);
	else
		r = pid_check_sockets(t, &w.sockets, ret, err);
	ends_free(&w.pipes);
	ends_free(&w.sockets);
	free(w.terminals);
	return r;
}
