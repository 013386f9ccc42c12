/*
 * What would stop CRIU's dump of a process tree: its processes, namespaces and mappings (descriptors: pid-fds.c).
 * Source of the facts: CRIU's cr-dump.c, namespaces.c, proc_parse.c, files-reg.c. No state; any thread.
 */
#include "driver/pid.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "driver/scan.h"

#define DEV_ZERO makedev(1, 5)

static int check_tracer(const struct tree *t, const struct tree_process *p, struct obstacles *o)
{
	for (size_t i = 0; i < p->threads; i++) {
		pid_t tid = t->threads[p->first_thread + i];
		struct tree_process thread, tracer;

		if (tree_read_process(tid, &thread, NULL) < 0 || !thread.tracer)
			continue;
		if (tree_read_process(thread.tracer, &tracer, NULL) < 0)
			snprintf(tracer.name, sizeof(tracer.name), "?");
		return obstacles_add(o, OBSTACLE_REFUSES, false, "detach that debugger or tracer",
				     "process %d (%s) is traced by process %d (%s)", p->pid, p->name, thread.tracer,
				     tracer.name);
	}
	return 0;
}

static int check_process(const struct tree *t, const struct tree_process *p, struct obstacles *o)
{
	int r;

	/* A dead child waits for its parent; CRIU makes it again as such. Dead main threads of living processes are another matter. */
	if (p->state == 'Z' && p->threads > 1)
		return obstacles_add(
			o, OBSTACLE_REFUSES, false, "wait until it has ended",
			"the main thread of process %d (%s) has ended while others go on; CRIU cannot dump that",
			p->pid, p->name);
	if (p->state == 'D') {
		r = obstacles_add(
			o, OBSTACLE_WARNS, false, "if the freeze times out, look what it waits for (/proc/PID/wchan)",
			"process %d (%s) sleeps uninterruptibly and cannot be frozen before it wakes", p->pid, p->name);
		if (r < 0)
			return r;
	}
	return check_tracer(t, p, o);
}

int pid_check_processes(const struct tree *t, struct obstacles *ret, struct error *err)
{
	for (size_t i = 0; i < t->n; i++) {
		int r = check_process(t, &t->processes[i], ret);

		if (r < 0)
			return error_errno(err, -r, "cannot look at process %d", t->processes[i].pid);
	}
	return 0;
}

/* What the root must not have of its own, or must have right. */
static int check_root_namespaces(const struct tree *t, struct obstacles *o)
{
	const struct tree_process *root = &t->processes[0];
	pid_t self = getpid();
	int r = 0;

	if (tree_namespace(root->pid, "mnt") != tree_namespace(self, "mnt"))
		r = obstacles_add(
			o, OBSTACLE_REFUSES, false,
			"run phaul inside of that mount namespace, or move it as a container (runc, docker, podman, "
			"lxc)",
			"process %d (%s) has a mount namespace of its own, which a bare tree cannot take along",
			root->pid, root->name);
	if (!r && tree_namespace(root->pid, "user") != tree_namespace(self, "user"))
		r = obstacles_add(
			o, OBSTACLE_REFUSES, false, "move it as a container",
			"process %d (%s) has a user namespace of its own, which a bare tree cannot take along",
			root->pid, root->name);
	if (!r && tree_namespace(root->pid, "net") != tree_namespace(self, "net"))
		r = obstacles_add(o, OBSTACLE_WARNS, false, "move it as a container, whose engine makes its network",
				  "process %d (%s) has a network namespace of its own: it is made again without a "
				  "connection to the network outside",
				  root->pid, root->name);
	if (r || tree_namespace(root->pid, "pid") == tree_namespace(self, "pid"))
		return r;
	if (root->image_pid != 1)
		return obstacles_add(o, OBSTACLE_REFUSES, false, "name the first process of that pid namespace instead",
				     "process %d (%s) is number %d of its pid namespace: only the whole namespace can "
				     "move, from its process 1 on",
				     root->pid, root->name, root->image_pid);
	return 0;
}

static int check_sessions(const struct tree *t, struct obstacles *o)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct tree_process *p = &t->processes[i];

		if (p->image_session || p->state == 'Z')
			continue;
		return obstacles_add(o, OBSTACLE_REFUSES, false, "start it with setsid",
				     "the session of process %d (%s) is led from outside of its pid namespace", p->pid,
				     p->name);
	}
	return 0;
}

static int check_nested(const struct tree *t, struct obstacles *o)
{
	static const char *const kinds[][2] = {
		{ "pid", "pid" }, { "mnt", "mount" }, { "net", "network" }, { "ipc", "IPC" },
		{ "uts", "UTS" }, { "user", "user" }, { "time", "time" },   { "cgroup", "cgroup" },
	};
	const struct tree_process *root = &t->processes[0];

	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		uint64_t outer = tree_namespace(root->pid, kinds[k][0]);

		for (size_t i = 1; i < t->n; i++) {
			const struct tree_process *p = &t->processes[i];
			uint64_t inner = tree_namespace(p->pid, kinds[k][0]);
			int r;

			if (!inner || !outer || inner == outer)
				continue;
			r = obstacles_add(o, OBSTACLE_REFUSES, false,
					  "end that part of the tree, or move that process by itself",
					  "process %d (%s) has a %s namespace other than the root of the tree", p->pid,
					  p->name, kinds[k][1]);
			if (r < 0)
				return r;
			break;
		}
	}
	return 0;
}

int pid_check_namespaces(const struct tree *t, struct obstacles *ret, struct error *err)
{
	int r = check_root_namespaces(t, ret);

	if (!r)
		r = check_sessions(t, ret);
	if (!r)
		r = check_nested(t, ret);
	if (r < 0)
		return error_errno(err, -r, "cannot compare the namespaces of process %d", t->processes[0].pid);
	return 0;
}

struct mappings {
	struct obstacles *o;
	const char *name; /* of the process */
	bool own_ipc;
};

static int check_deleted_mapping(const struct mappings *c, const struct scan_mapping *m)
{
	char link[96];
	struct stat st;

	snprintf(link, sizeof(link), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, m->pid, m->start, m->end);
	if (stat(link, &st) < 0)
		return 0;
	if (st.st_nlink || (uint64_t)st.st_blocks * 512 <= PID_GHOST_LIMIT_BYTES || !S_ISREG(st.st_mode))
		return 0;
	/* Unlinked files of the kernel's own tmpfs (memfd, shared memory) are memory, not ghosts. */
	if (!strncmp(m->path, "/memfd:", 7) || !strncmp(m->path, "/dev/zero", 9) || !strncmp(m->path, "/SYSV", 5) ||
	    !strncmp(m->path, "/anon_hugepage", 14))
		return 0;
	return obstacles_add(c->o, OBSTACLE_REFUSES, false, "restart the program, so that it maps the present file",
			     "process %d (%s) maps %s, of %" PRIu64 " MiB: deleted files travel up to %llu MiB", m->pid,
			     c->name, m->path, ((uint64_t)st.st_blocks * 512) >> 20, PID_GHOST_LIMIT_BYTES >> 20);
}

static int check_mapping(void *context, const struct scan_mapping *m)
{
	struct mappings *c = context;
	struct stat st;

	if (!strncmp(m->path, "/SYSV", 5) && scan_deleted(m->path) && !c->own_ipc)
		return obstacles_add(c->o, OBSTACLE_REFUSES, false,
				     "run it with an IPC namespace of its own (unshare --ipc, a container)",
				     "process %d (%s) uses System V shared memory of this host's IPC namespace", m->pid,
				     c->name);
	if (!strncmp(m->path, "/secretmem", 10))
		return obstacles_add(c->o, OBSTACLE_REFUSES, false, "have the program close its memfd_secret memory",
				     "process %d (%s) has secret memory that not even root can read", m->pid, c->name);
	if (!strcmp(m->path, "[uprobes]"))
		return obstacles_add(c->o, OBSTACLE_REFUSES, false, "remove the uprobes from the program",
				     "process %d (%s) is being probed (uprobes)", m->pid, c->name);
	if (!strncmp(m->path, "anon_inode:", 11) || !strncmp(m->path, "/dmabuf:", 8))
		return obstacles_add(c->o, OBSTACLE_REFUSES, false, "have the program close it",
				     "process %d (%s) maps %s, which CRIU cannot dump", m->pid, c->name, m->path);
	if (m->path[0] != '/')
		return 0;
	if (scan_deleted(m->path))
		return check_deleted_mapping(c, m);
	if (stat(m->path, &st) < 0 || !(S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) || st.st_rdev == DEV_ZERO)
		return 0;
	return obstacles_add(c->o, OBSTACLE_REFUSES, false, "have the program let go of the device",
			     "process %d (%s) maps the device %s, whose memory cannot move", m->pid, c->name, m->path);
}

int pid_check_mappings(const struct tree *t, struct obstacles *ret, struct error *err)
{
	struct mappings c = { .o = ret };

	c.own_ipc = tree_namespace(t->processes[0].pid, "ipc") != tree_namespace(getpid(), "ipc");
	for (size_t i = 0; i < t->n; i++) {
		int r;

		c.name = t->processes[i].name;
		r = scan_mappings(t->processes[i].pid, check_mapping, &c);
		if (r < 0)
			return error_errno(err, -r, "cannot read the mappings of process %d", t->processes[i].pid);
	}
	return 0;
}
