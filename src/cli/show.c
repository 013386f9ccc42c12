/*
 * How a migration is shown: see show.h.
 *
 * Invariant: between the freeze and the commit nothing is written that could block. Whoever reads our output may be slow or
 * stopped, and the workload would wait for it; lines of that time are kept and written afterwards. One thread.
 */
#include "cli/show.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/plain.h"
#include "cli/report.h"

void show_begin(struct show *s, enum show_kind kind, const struct migration_options *options)
{
	*s = (struct show){ .kind = kind, .options = options, .live = { .fd = -1 } };
	if (kind == SHOW_LIVE)
		live_begin(&s->live, STDERR_FILENO);
}

/* All of it, also to a descriptor that somebody made non-blocking. 0 or a negative errno. */
static int write_all(int fd, const struct buffer *b)
{
	size_t done = 0;

	while (done < b->length) {
		ssize_t n = write(fd, b->data + done, b->length - done);

		if (n >= 0)
			done += (size_t)n;
		else if (errno == EAGAIN)
			(void)fd_wait(fd, POLLOUT, DEADLINE_NEVER);
		else if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static void flush(struct show *s)
{
	if (s->hold)
		return;
	if (s->err.length) {
		live_clear(&s->live);
		(void)write_all(STDERR_FILENO, &s->err); /* there is nowhere to complain */
	}
	if (s->out.length && !s->out_broken) {
		int r;

		live_clear(&s->live);
		r = write_all(STDOUT_FILENO, &s->out);
		if (r < 0) {
			log_warning("standard output is closed, what goes there is lost: %s", strerror(-r));
			s->out_broken = true;
		}
	}
	s->out.length = s->err.length = 0;
}

static int take_obstacle(struct show *s, const struct obstacle *obstacle)
{
	if (obstacle->kind == OBSTACLE_REFUSES)
		s->n_refusing++;
	/* They are what a check is for; beside a migration they are messages. */
	return plain_obstacle(obstacle, s->options->check_only ? &s->out : &s->err);
}

/* A stage that has nothing to do is not worth a line. */
static bool is_idle(const struct show *s, const struct migration_event *event)
{
	return s->kind != SHOW_JSON && event->kind == EVENT_PHASE &&
	       ((!strcmp(event->phase, "files") && !s->options->sync_paths[0]) ||
		(!strcmp(event->phase, "postcopy") && !s->options->postcopy &&
		 s->options->on_timeout != POLICY_RESORT_POSTCOPY));
}

void show_event(struct show *s, const struct migration_event *event)
{
	int r = 0;

	if (is_idle(s, event))
		return;
	/* After the freeze there is progress only in post-copy: it runs at the target. */
	if (event->kind == EVENT_PROGRESS || (event->kind == EVENT_PHASE && !strcmp(event->phase, "fill")))
		s->hold = false;
	if (s->kind == SHOW_JSON)
		r = report_event(event, &s->out);
	else if (event->kind == EVENT_OBSTACLE)
		r = take_obstacle(s, &event->obstacle);
	else if (s->kind == SHOW_PLAIN && !s->options->check_only)
		r = plain_event(event, &s->err);
	if (r < 0)
		log_warning("no memory to show what happens");
	flush(s);
	live_event(&s->live, event);
	if (event->kind == EVENT_PHASE && !strcmp(event->phase, "freeze"))
		s->hold = true;
}

static int status_of(enum migration_outcome outcome)
{
	switch (outcome) {
	case OUTCOME_MIGRATED:
	case OUTCOME_CHECKED:
		return CLI_OK;
	case OUTCOME_ABORTED:
		return CLI_FAILED;
	case OUTCOME_REFUSED:
		return CLI_REFUSED;
	case OUTCOME_UNKNOWN:
	case OUTCOME_NONE:
		break;
	}
	return CLI_UNKNOWN;
}

int show_result(struct show *s, const struct migration_result *result)
{
	_cleanup_buffer_ struct buffer failure = { 0 };
	int status = status_of(result->outcome), r = 0;

	s->hold = false;
	live_end(&s->live);
	flush(s);
	if (s->kind == SHOW_JSON)
		r = report_result(result, &s->out);
	else if (status == CLI_OK && s->kind != SHOW_QUIET)
		r = plain_summary(s->options, result, &s->out);
	if (status != CLI_OK && plain_failure(s->options, result, s->n_refusing, &failure) == 0)
		log_error("%s", (char *)failure.data);
	if (r < 0)
		log_warning("no memory to show the result");
	flush(s);
	buffer_free(&s->out);
	buffer_free(&s->err);
	return status;
}
