/*
 * One line on a terminal that is redrawn: see live.h.
 *
 * The log knows of the line (log_set_live) and erases it before its own; the next event draws it again below. Nothing here may
 * block: while the workload is frozen a stopped terminal would keep it so. One thread.
 */
#include "cli/live.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/page.h"
#include "cli/plain.h"
#include "cli/text.h"

#define COLUMNS_DEFAULT 80
#define ERASE "\r\033[K"

bool live_possible(int fd)
{
	const char *terminal = getenv("TERM");

	return isatty(fd) && terminal && *terminal && strcmp(terminal, "dumb") != 0;
}

void live_begin(struct live *l, int fd)
{
	*l = (struct live){ .fd = fd, .started_ns = clock_now_ns() };
	log_set_live(fd >= 0);
}

static size_t terminal_columns(int fd)
{
	struct winsize size;

	return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : COLUMNS_DEFAULT;
}

/* A terminal that is stopped (Ctrl-S) or slow is left alone. */
static void put(int fd, const char *text, size_t length)
{
	if (fd_wait(fd, POLLOUT, 0) == 1 && write(fd, text, length) < 0)
		return;
}

void live_format(const struct live *l, uint64_t now_ns, size_t columns, char *out, size_t size)
{
	const struct migration_progress *p = &l->progress;
	char left[TEXT_QUANTITY_MAX], rate[TEXT_QUANTITY_MAX], dirty[TEXT_QUANTITY_MAX], time[TEXT_QUANTITY_MAX];
	char freeze[TEXT_QUANTITY_MAX + 24] = "";
	uint64_t pages_left = p->pages_round > p->pages_done ? p->pages_round - p->pages_done : 0;

	snprintf(time, sizeof(time), "%.1f s", (double)(now_ns - l->started_ns) / (double)NS_PER_S);
	if (p->estimate_ns)
		snprintf(freeze, sizeof(freeze), ", freeze ~%s", text_duration(p->estimate_ns, left));
	if (l->phase && !strcmp(l->phase, "copy") && l->progress_known)
		snprintf(out, size, "%s  round %u: %s left, %s/s, dirty %s/s%s", time, p->round,
			 text_bytes(pages_left * PAGE_BYTES, left), text_bytes(p->bytes_per_second, rate),
			 text_bytes(p->dirty_pages_per_second * PAGE_BYTES, dirty), freeze);
	else
		snprintf(out, size, "%s  %s", time, l->phase ? plain_phase(l->phase) : "");
	if (strlen(out) > columns)
		out[columns] = 0;
}

static void draw(struct live *l)
{
	char line[512], all[sizeof(line) + sizeof(ERASE)];
	int n;

	live_format(l, clock_now_ns(), terminal_columns(l->fd) - 1, line, sizeof(line));
	n = snprintf(all, sizeof(all), ERASE "%s", line);
	put(l->fd, all, (size_t)n);
}

void live_event(struct live *l, const struct migration_event *event)
{
	uint64_t rate;

	if (l->fd < 0)
		return;
	switch (event->kind) {
	case EVENT_PHASE:
		l->phase = event->phase;
		break;
	case EVENT_PROGRESS:
		rate = l->progress.bytes_per_second;
		l->progress = event->progress;
		/* The first measure of a round spans no time. */
		if (!l->progress.pages_done)
			l->progress.bytes_per_second = rate;
		l->progress_known = true;
		break;
	case EVENT_ITERATION:
		l->progress.round = event->round;
		l->progress.pages_done = 0;
		l->progress.pages_round = event->iteration.dirty_pages;
		break;
	case EVENT_DECISION:
		l->progress.estimate_ns = event->estimate_ns;
		break;
	case EVENT_NONE:
	case EVENT_OBSTACLE:
	case EVENT_SYNC:
		break;
	}
	draw(l);
}

void live_clear(struct live *l)
{
	if (l->fd >= 0)
		put(l->fd, ERASE, sizeof(ERASE) - 1);
}

void live_end(struct live *l)
{
	live_clear(l);
	log_set_live(false);
	l->fd = -1;
}
