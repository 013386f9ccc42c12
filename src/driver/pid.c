/*
 * The pid driver: a tree of bare processes, named by the pid of its root. See driver.h, docs/driver-pid.md.
 *
 * No state besides the workload; any thread. Nothing is remembered between two calls, because the tree may
 * change between them: each walks /proc again.
 */
#include "driver/pid.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "driver/files.h"

static int parse_id(const char *id, pid_t *ret, struct error *err)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(id, &end, 10);
	if (errno || end == id || *end || id[0] == '+' || id[0] == ' ' || value <= 0 || value > 4194304)
		return error_set(err, EINVAL,
				 "\"%.64s\" is not a process id: give the number of the tree's root process", id);
	*ret = (pid_t)value;
	return 0;
}

/* What no flag or cure can make a tree of. */
static int check_root(pid_t pid, struct error *err)
{
	struct tree_process p;
	int r = tree_read_process(pid, &p, err);

	if (r < 0)
		return r;
	if (p.kernel_thread)
		return error_set(
			err, EINVAL,
			"process %d (%s) is a kernel thread: it belongs to this host's kernel and cannot be moved", pid,
			p.name);
	if (p.thread_group != pid)
		return error_set(err, EINVAL, "%d is a thread of process %d: give the process's number", pid,
				 p.thread_group);
	if (p.state == 'Z' || p.state == 'X')
		return error_set(
			err, EINVAL,
			"process %d (%s) has ended and only waits for its parent to notice: there is nothing to move",
			pid, p.name);
	return 0;
}

/* Everything is in that tree, phaul too; and its files are not even readable. */
static int check_not_init(pid_t pid, struct error *err)
{
	if (pid != 1)
		return 0;
	return error_set(err, EINVAL, "process 1 is this host's own: name the root of the workload's tree");
}

static int compare_pids(const void *a, const void *b)
{
	return *(const pid_t *)a - *(const pid_t *)b;
}

/* Pids that CRIU makes again: threads, and sessions and groups whose leaders are gone, by helper processes. The root's own session and group may
 * be inherited from outside (shell-job) and are then replaced by CRIU with those of the target. */
static int collect_pids(const struct tree *t, struct workload *ret)
{
	const struct tree_process *root = &t->processes[0];
	pid_t *pids = calloc(t->n_threads + 2 * t->n, sizeof(*pids));
	size_t n = 0, kept = 0;

	if (!pids)
		return -ENOMEM;
	memcpy(pids, t->threads, t->n_threads * sizeof(*pids));
	n = t->n_threads;
	for (size_t i = 0; i < t->n; i++) {
		const struct tree_process *p = &t->processes[i];

		if (p->session != root->session || root->session == root->pid)
			pids[n++] = p->session;
		if (p->group != root->group || root->group == root->pid)
			pids[n++] = p->group;
	}
	qsort(pids, n, sizeof(*pids), compare_pids);
	for (size_t i = 0; i < n; i++)
		if (pids[i] > 0 && (!kept || pids[kept - 1] != pids[i]))
			pids[kept++] = pids[i];
	ret->pids = pids;
	ret->n_pids = kept;
	return 0;
}

static int fill_processes(const struct tree *t, struct workload *ret)
{
	ret->processes = calloc(t->n, sizeof(*ret->processes));
	if (!ret->processes)
		return -ENOMEM;
	for (size_t i = 0; i < t->n; i++) {
		const struct tree_process *p = &t->processes[i];
		struct workload_process *w = &ret->processes[i];

		w->pid = p->pid;
		w->image_pid = p->image_pid;
		w->threads = p->threads;
		w->resident_bytes = p->resident_bytes;
		w->stopped = p->state == 'T';
		snprintf(w->name, sizeof(w->name), "%s", p->name);
		ret->resident_bytes += p->resident_bytes;
		ret->hugetlb_bytes += p->hugetlb_bytes;
	}
	ret->n_processes = t->n;
	return 0;
}

int pid_describe_tree(pid_t root, bool with_files, struct workload *ret, struct error *err)
{
	_cleanup_tree_ struct tree t = { 0 };
	int r = tree_read(root, &t, err);

	if (r < 0)
		return r;
	ret->root_pid = root;
	ret->own_pid_namespace = tree_namespace(root, "pid") != tree_namespace(getpid(), "pid");
	ret->session_leader = t.processes[0].session == root;
	r = fill_processes(&t, ret);
	if (!r && !ret->own_pid_namespace)
		r = collect_pids(&t, ret);
	if (r < 0)
		return error_errno(err, -r, "cannot describe the tree of process %d", root);
	r = pid_find_terminal(&t, &ret->has_terminal, err);
	return r < 0 || !with_files ? r : files_describe(&t, ret, err);
}

static int describe(const char *id, const struct driver_options *options, struct workload *ret, struct error *err)
{
	struct workload w = { 0 };
	pid_t pid = 0;
	int r = parse_id(id, &pid, err);

	(void)options;
	if (!r)
		r = check_root(pid, err);
	if (!r)
		r = check_not_init(pid, err);
	if (!r)
		r = pid_describe_tree(pid, true, &w, err);
	if (r < 0) {
		workload_free(&w);
		return r;
	}
	snprintf(w.type, sizeof(w.type), "%s", driver_pid.name);
	snprintf(w.id, sizeof(w.id), "%s", id);
	*ret = w;
	return 0;
}

/* phaul cannot move what it runs in: itself, its shell, its session's sshd. */
static int check_not_ours(const struct tree *t, struct obstacles *ret)
{
	struct tree_process p;
	pid_t pid = getpid();

	while (pid > 0) {
		if (tree_contains(t, pid))
			return obstacles_add(ret, OBSTACLE_REFUSES, false,
					     "start phaul from elsewhere, outside of that tree",
					     "phaul itself runs inside of the tree of process %d", t->processes[0].pid);
		if (tree_read_process(pid, &p, NULL) < 0)
			return 0;
		pid = p.parent;
	}
	return 0;
}

static int check_source(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
			struct error *err)
{
	_cleanup_tree_ struct tree t = { 0 };
	int r = check_root(w->root_pid, err);

	if (!r)
		r = tree_read(w->root_pid, &t, err);
	if (r < 0)
		return r;
	if (check_not_ours(&t, ret) < 0)
		return error_set(err, ENOMEM, "no memory for the list of obstacles");
	r = pid_check_processes(&t, ret, err);
	if (!r)
		r = pid_check_namespaces(&t, ret, err);
	if (!r)
		r = pid_check_descriptors(&t, false, options, ret, err);
	if (!r)
		r = pid_check_mappings(&t, ret, err);
	return r;
}

static int way(const struct workload *w, const struct driver_options *options, struct checkpoint_way *ret,
	       struct error *err)
{
	(void)err;
	*ret = (struct checkpoint_way){
		.root_pid = w->root_pid,
		.shell_job = !w->session_leader || (options && options->shell_job && w->has_terminal),
		.tcp_established = true,
		.file_locks = true,
		.ghost_limit_bytes = PID_GHOST_LIMIT_BYTES,
	};
	return 0;
}

int pid_processes(const struct workload *w, pid_t **ret_pids, pid_t **ret_image_pids, size_t *ret_n, struct error *err)
{
	_cleanup_tree_ struct tree t = { 0 };
	_cleanup_free_ pid_t *pids = NULL, *image_pids = NULL;
	int r = tree_read(w->root_pid, &t, err);

	if (r < 0)
		return r;
	pids = calloc(t.n, sizeof(*pids));
	image_pids = calloc(t.n, sizeof(*image_pids));
	if (!pids || !image_pids)
		return error_set(err, ENOMEM, "no memory for the list of %zu processes", t.n);
	for (size_t i = 0; i < t.n; i++) {
		pids[i] = t.processes[i].pid;
		image_pids[i] = t.processes[i].image_pid;
	}
	*ret_pids = TAKE_PTR(pids);
	*ret_image_pids = TAKE_PTR(image_pids);
	*ret_n = t.n;
	return 0;
}

/* One that ended meanwhile is no failure. */
static int signal_process(pid_t pid, int signal)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (pidfd < 0)
		return errno == ESRCH ? 0 : -errno;
	if (syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) < 0)
		return errno == ESRCH ? 0 : -errno;
	return 0;
}

/* SIGSTOP stays pending while CRIU's ptrace holds the task, and takes effect at the detach, even when CRIU was killed. */
int pid_stop_firmly(const struct workload *w, struct error *err)
{
	_cleanup_tree_ struct tree t = { 0 };
	int r = tree_read(w->root_pid, &t, err);

	for (size_t i = 0; !r && i < t.n; i++) {
		if (t.processes[i].state == 'Z')
			continue;
		r = signal_process(t.processes[i].pid, SIGSTOP);
		if (r < 0)
			error_errno(err, -r, "cannot stop process %d", t.processes[i].pid);
	}
	return r;
}

static bool was_stopped(const struct workload *w, pid_t pid)
{
	for (size_t i = 0; i < w->n_processes; i++)
		if (w->processes[i].pid == pid)
			return w->processes[i].stopped;
	return false;
}

/* Children first, so that no parent sees a child of its own still stopped. All are tried; the first failure is told. */
int pid_unstop(const struct workload *w, struct error *err)
{
	_cleanup_tree_ struct tree t = { 0 };
	int r = tree_read(w->root_pid, &t, err), first = 0;

	if (r < 0)
		return r;
	for (size_t i = t.n; i-- > 0;) {
		if (was_stopped(w, t.processes[i].pid))
			continue;
		r = signal_process(t.processes[i].pid, SIGCONT);
		if (r < 0 && !first)
			first = error_errno(err, -r, "cannot let process %d go on", t.processes[i].pid);
	}
	return first;
}

const struct driver_ops driver_pid = {
	.name = "pid",
	.capabilities = DRIVER_MOVES_BARE_PIDS,
	.describe = describe,
	.check_source = check_source,
	.check_target = pid_check_target,
	.way = way,
	.processes = pid_processes,
	.stop_firmly = pid_stop_firmly,
	.unstop = pid_unstop,
};
