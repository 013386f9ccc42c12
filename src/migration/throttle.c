/*
 * Holding a workload back, the side of phaul: see throttle.h. One thread.
 *
 * The share that a quota leaves is one of what the workload took before it was held back, as in QEMU a percentage of the time of
 * a virtual CPU: a quota of so many whole processors would not touch a workload with one busy thread.
 */
#include "migration/throttle.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/process.h"
#include "migration/throttle-internal.h"

#define ANSWER_MS 10000
#define PERIOD_US 20000ULL   /* short, so that the workload does not stand for long */
#define QUOTA_MIN_US 1000ULL /* the kernel's least */
#define PERIOD_MAX_US 1000000ULL
#define KEY "cpu_quota"

struct throttle {
	struct journal *journal;
	struct process process;
	int fd;
	bool active, noted;
	char quota_file[PATH_MAX], period_file[PATH_MAX];
	const char *way;
	uint64_t cpu_ns, at_ns; /* of all processes, at the last measure */
	double share;		/* of one processor, before it was held back; 0: not known */
};

int throttle_new(struct journal *j, struct throttle **ret, struct error *err)
{
	static const char *const argv[] = { "/proc/self/exe", "throttle", "3", NULL };
	struct process_options o = { .argv = argv,
				     .stdin_fd = -1,
				     .stdout_fd = -1,
				     .stderr_fd = STDERR_FILENO,
				     .child_fds = { 3 },
				     .n_fds = 1,
				     .new_session = true };
	struct throttle *t = calloc(1, sizeof(*t));
	int pair[2], r;

	if (!t)
		return error_set(err, ENOMEM, "no memory to hold the workload back");
	*t = (struct throttle){ .journal = j, .process = PROCESS_NONE, .fd = -1, .way = "" };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		r = error_errno(err, errno, "cannot make a socket for what holds the workload back");
		free(t);
		return r;
	}
	t->fd = pair[0];
	o.source_fds[0] = pair[1];
	r = process_start(&o, &t->process, err);
	close(pair[1]);
	if (r < 0) {
		throttle_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

void throttle_measure(struct throttle *t, const pid_t *pids, size_t n)
{
	uint64_t now = clock_now_ns(), sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += process_cpu_ns(pids[i]);
	if (!t->active && t->at_ns && now > t->at_ns && sum > t->cpu_ns)
		t->share = (double)(sum - t->cpu_ns) / (double)(now - t->at_ns);
	t->cpu_ns = sum;
	t->at_ns = now;
}

static int order(struct throttle *t, const struct throttle_order *o, struct error *err)
{
	size_t length = sizeof(*o) + o->n * sizeof(o->tasks[0]);
	uint8_t answer = 0;

	if (send(t->fd, o, length, MSG_NOSIGNAL) < 0)
		return error_errno(err, errno, "what holds the workload back is gone");
	if (fd_wait(t->fd, POLLIN, deadline_in_ms(ANSWER_MS)) != 1 || recv(t->fd, &answer, 1, 0) != 1)
		return error_set(err, ETIMEDOUT, "what holds the workload back does not answer");
	return answer ? error_errno(err, answer, "the workload cannot be held back or let go") : 0;
}

/* For a recovery that finds neither us nor the process: where the quota was, and what it was. */
static int note(struct throttle *t, struct error *err)
{
	_cleanup_buffer_ struct buffer quota = { 0 }, period = { 0 };
	char text[2 * PATH_MAX + 256];

	if (t->noted || !t->quota_file[0])
		return 0;
	if (fd_read_file(AT_FDCWD, t->quota_file, 64, &quota) < 0 || buffer_append(&quota, "", 1) < 0 ||
	    (t->period_file[0] && fd_read_file(AT_FDCWD, t->period_file, 64, &period) < 0) ||
	    buffer_append(&period, "", 1) < 0)
		return error_set(err, EIO, "cannot read the CPU quota in %s", t->quota_file);
	quota.data[strcspn((char *)quota.data, "\n")] = 0;
	period.data[strcspn((char *)period.data, "\n")] = 0;
	snprintf(text, sizeof(text), "%s|%s|%s|%s", (char *)quota.data, t->quota_file, (char *)period.data,
		 t->period_file);
	t->noted = true;
	return journal_note_text(t->journal, KEY, text, err);
}

int throttle_set(struct throttle *t, const pid_t *pids, size_t n, uint32_t percent, struct error *err)
{
	_cleanup_free_ struct throttle_order *o = NULL;
	double left_us;
	size_t count = MIN(n, (size_t)THROTTLE_TASKS_MAX);
	int r;

	o = calloc(1, sizeof(*o) + count * sizeof(o->tasks[0]));
	if (!o)
		return error_set(err, ENOMEM, "no memory to hold the workload back");
	/* Looked for anew each time: somebody may have moved into the group. */
	if (t->share <= 0 || throttle_group_find(pids, n, t->quota_file, t->period_file) < 0)
		t->quota_file[0] = t->period_file[0] = 0;
	t->way = t->quota_file[0] ? "quota" : "stops";
	o->percent = percent;
	if (t->quota_file[0]) {
		left_us = t->share * (100 - percent) / 100 * (double)PERIOD_US;
		o->period_us = PERIOD_US;
		if (left_us < (double)QUOTA_MIN_US)
			o->period_us = (uint64_t)MIN((double)PERIOD_US * (double)QUOTA_MIN_US / left_us,
						     (double)PERIOD_MAX_US);
		o->quota_us = MAX((uint64_t)left_us, QUOTA_MIN_US);
		memcpy(o->quota_file, t->quota_file, PATH_MAX);
		memcpy(o->period_file, t->period_file, PATH_MAX);
	}
	for (size_t i = 0; i < count && !t->quota_file[0]; i++) {
		o->tasks[i].pid = pids[i];
		o->tasks[i].ticks = process_start_ticks(pids[i]);
		o->n++;
	}
	r = note(t, err);
	t->active = true;
	return r < 0 ? r : order(t, o, err);
}

int throttle_end(struct throttle *t, struct error *err)
{
	static const struct throttle_order none = { 0 };
	int r = t->active ? order(t, &none, err) : 0;

	t->active = t->active && r < 0;
	return r;
}

const char *throttle_way(const struct throttle *t)
{
	return t->way;
}

void throttle_free(struct throttle *t)
{
	struct error err = { 0 };

	if (!t)
		return;
	if (throttle_end(t, &err) < 0)
		log_error("%s", err.text);
	/* Its socket's end undoes everything, too; killed, it could not. */
	close_fd(&t->fd);
	if (t->process.pid && process_wait(&t->process, deadline_in_ms(ANSWER_MS)) != 1)
		log_error("what held the workload back does not end");
	process_free(&t->process);
	free(t);
}

void throttle_undo(const struct journal *j)
{
	char text[2 * PATH_MAX + 256], *part[4] = { 0 }, *rest = text;
	int r = 0;

	snprintf(text, sizeof(text), "%s", journal_fact(j, KEY));
	for (size_t i = 0; i < ARRAY_SIZE(part) && rest; i++)
		part[i] = strsep(&rest, "|");
	if (!text[0] || !part[3])
		return;
	r = throttle_group_write(part[1], part[0]);
	if (!r && part[3][0])
		r = throttle_group_write(part[3], part[2]);
	if (r < 0 && r != -ENOENT)
		log_warning("cannot give the CPU quota in %s back: %s", part[1], strerror(-r));
}
