/*
 * Tasks that a journal remembers: see tasks.h. No state; any thread.
 *
 * Invariant: no signal goes to a pid whose start time is not the noted one: the pidfd is taken first, the time looked at then, the signal
 * sent through the pidfd.
 */
#include "migration/tasks.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/process.h"
#include "criu/criu.h"
#include "driver/tree.h"

#define TASKS_KEY "tasks"
#define KILL_MS 10000

void noted_tasks_free(struct noted_tasks *t)
{
	free(t->list);
	*t = (struct noted_tasks){ 0 };
}

int noted_tasks_write(struct journal *j, pid_t root, const pid_t *stopped, size_t n_stopped, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	_cleanup_tree_ struct tree tree = { 0 };
	int r = tree_read(root, &tree, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < tree.n && !r; i++) {
		bool was_stopped = false;

		for (size_t k = 0; k < n_stopped; k++)
			was_stopped = was_stopped || stopped[k] == tree.processes[i].pid;
		r = buffer_printf(&text, "%s%d:%" PRIu64 "%s", i ? " " : "", tree.processes[i].pid,
				  process_start_ticks(tree.processes[i].pid), was_stopped ? ":s" : "");
	}
	if (!r)
		r = buffer_append(&text, "", 1);
	if (r < 0)
		return error_set(err, ENOMEM, "no memory to note the tasks");
	return journal_note_text(j, TASKS_KEY, (const char *)text.data, err);
}

static bool parse_task(const char **at, struct noted_task *ret)
{
	int pid, used = 0;
	uint64_t ticks;

	if (sscanf(*at, "%d:%" SCNu64 "%n", &pid, &ticks, &used) != 2 || pid <= 1)
		return false;
	*ret = (struct noted_task){ .pid = pid, .ticks = ticks };
	*at += used;
	if (!strncmp(*at, ":s", 2)) {
		ret->was_stopped = true;
		*at += 2;
	}
	while (**at == ' ')
		(*at)++;
	return true;
}

int noted_tasks_read(const struct journal *j, struct noted_tasks *ret, struct error *err)
{
	const char *at = journal_fact(j, TASKS_KEY);
	size_t n = 1;

	*ret = (struct noted_tasks){ 0 };
	for (const char *p = at; *p; p++)
		n += *p == ' ';
	ret->list = calloc(n, sizeof(*ret->list));
	if (!ret->list)
		return error_set(err, ENOMEM, "no memory for the noted tasks");
	while (*at) {
		if (ret->n == n || !parse_task(&at, &ret->list[ret->n])) {
			noted_tasks_free(ret);
			return error_set(err, EBADMSG,
					 "the journal of migration %s names its tasks in a way that makes no sense",
					 journal_id(j));
		}
		ret->n++;
	}
	return 0;
}

/* -1 when that very task is gone; a zombie is. */
static int task_open(const struct noted_task *t)
{
	_cleanup_close_ int fd = t->ticks ? (int)syscall(SYS_pidfd_open, t->pid, 0) : -1;

	if (fd < 0 || process_start_ticks(t->pid) != t->ticks || fd_wait(fd, POLLIN, 0) != 0)
		return -1;
	return TAKE_FD(fd);
}

int noted_process_write(struct journal *j, const char *key, pid_t pid, struct error *err)
{
	char text[64];

	snprintf(text, sizeof(text), "%d:%" PRIu64, pid, process_start_ticks(pid));
	return journal_note_text(j, key, text, err);
}

uint64_t noted_process_ticks(const struct journal *j, const char *key)
{
	const char *at = journal_fact(j, key);
	struct noted_task task;

	return parse_task(&at, &task) ? task.ticks : 0;
}

void noted_process_await(const struct journal *j, const char *key, uint64_t deadline_ns)
{
	_cleanup_close_ int fd = -1;
	const char *at = journal_fact(j, key);
	struct noted_task task;

	if (!parse_task(&at, &task))
		return;
	fd = task_open(&task);
	if (fd < 0 || fd_wait(fd, POLLIN, deadline_ns) == 1)
		return;
	log_warning("process %d (%s) does not end and is killed", task.pid, key);
	syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
	fd_wait(fd, POLLIN, deadline_in_ms(KILL_MS));
}

pid_t noted_process_alive(const struct journal *j, const char *key)
{
	_cleanup_close_ int fd = -1;
	const char *at = journal_fact(j, key);
	struct noted_task task;

	if (!parse_task(&at, &task))
		return 0;
	fd = task_open(&task);
	return fd >= 0 ? task.pid : 0;
}

size_t noted_tasks_alive(const struct noted_tasks *t)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n; i++) {
		_cleanup_close_ int fd = task_open(&t->list[i]);

		n += fd >= 0;
	}
	return n;
}

bool noted_tasks_held(const struct noted_tasks *t)
{
	for (size_t i = 0; i < t->n; i++) {
		_cleanup_close_ int fd = task_open(&t->list[i]);
		struct tree_process p;

		if (fd < 0 || tree_read_process(t->list[i].pid, &p, NULL) < 0)
			continue;
		if (p.state != 'T' && p.state != 't' && p.state != 'Z' && p.state != 'X')
			return false;
	}
	return true;
}

int noted_tasks_kill(const struct noted_tasks *t, struct error *err)
{
	uint64_t deadline = deadline_in_ms(KILL_MS);

	for (size_t i = 0; i < t->n; i++) {
		_cleanup_close_ int fd = task_open(&t->list[i]);

		if (fd >= 0)
			criu_silence_connections(t->list[i].pid);
	}
	/* All first, so that no parent lives to make another child. */
	for (int wait = 0; wait < 2; wait++)
		for (size_t i = 0; i < t->n; i++) {
			_cleanup_close_ int fd = task_open(&t->list[i]);

			if (fd < 0)
				continue;
			syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
			if (wait && fd_wait(fd, POLLIN, deadline) != 1)
				return error_set(err, ETIMEDOUT, "process %d does not end although it was killed",
						 t->list[i].pid);
		}
	return 0;
}

void noted_tasks_continue(const struct noted_tasks *t)
{
	/* Children first, so that no parent sees a child of its own still stopped. */
	for (size_t i = t->n; i-- > 0;) {
		_cleanup_close_ int fd = t->list[i].was_stopped ? -1 : task_open(&t->list[i]);

		if (fd >= 0)
			syscall(SYS_pidfd_send_signal, fd, SIGCONT, NULL, 0);
	}
}
