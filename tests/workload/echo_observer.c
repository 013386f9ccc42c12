/* observer --tcp: holds one TCP connection to a line echo server, sends a request each interval, and notes every wait.
 *
 * Closed loop: while a reply is outstanding no other request is sent; when it comes late, the next goes at once.
 * Each request carries a number, and the reply must be the same line. The connection is never made again: its end
 * is an error, for it should have survived.
 * Times: CLOCK_MONOTONIC before send and after recv, in this process.
 * Threads: one.
 */
#include "console.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define WAITS_MAX 200

struct wait_note {
	uint64_t at_ns;
	uint64_t length_ns;
};

struct echo {
	const struct echo_options *options;
	int fd; /* -1 after an error */
	uint64_t number;
	uint64_t sent_ns; /* 0: nothing outstanding */
	uint64_t started_ns;
	char expected[40];
	char got[40];
	size_t got_bytes;
	char error[96];
	/* since the mark: */
	char mark[64];
	uint64_t mark_ns, requests, replies, errors, waits_count, sum_ns;
	struct wait_note longest;
	struct wait_note waits[WAITS_MAX];
};

static void echo_fail(struct echo *echo, const char *what, int error)
{
	echo->errors++;
	snprintf(echo->error, sizeof(echo->error), "%s: %s", what, error ? strerror(error) : "wrong reply");
	close(echo->fd);
	echo->fd = -1;
}

static void echo_request(struct echo *echo)
{
	if (echo->fd < 0 || echo->sent_ns)
		return;
	int length = snprintf(echo->expected, sizeof(echo->expected), "request %" PRIu64 "\n", ++echo->number);
	echo->sent_ns = now_ns();
	echo->got_bytes = 0;
	/* Some bytes into an empty send buffer: never partial. */
	if (send(echo->fd, echo->expected, (size_t)length, MSG_NOSIGNAL) != length)
		echo_fail(echo, "send", errno);
	else
		echo->requests++;
}

static void wait_note(struct echo *echo, uint64_t now)
{
	struct wait_note note = { .at_ns = echo->sent_ns, .length_ns = now - echo->sent_ns };
	echo->replies++;
	echo->sum_ns += note.length_ns;
	if (note.length_ns > echo->longest.length_ns)
		echo->longest = note;
	if (note.length_ns > echo->options->over_ms * NS_PER_MS) {
		if (echo->waits_count < WAITS_MAX)
			echo->waits[echo->waits_count] = note;
		echo->waits_count++;
	}
	echo->sent_ns = 0;
}

/* Returns true when the reply is complete. */
static bool echo_reply(struct echo *echo)
{
	size_t length = strlen(echo->expected);
	ssize_t got = recv(echo->fd, echo->got + echo->got_bytes, sizeof(echo->got) - echo->got_bytes, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (got <= 0) {
		echo_fail(echo, "recv", got < 0 ? errno : ENOTCONN);
		return false;
	}
	echo->got_bytes += (size_t)got;
	if (!echo->sent_ns || echo->got_bytes > length || memcmp(echo->got, echo->expected, echo->got_bytes) != 0) {
		echo_fail(echo, "reply", 0);
		return false;
	}
	if (echo->got_bytes < length)
		return false;
	wait_note(echo, now_ns());
	return true;
}

static void echo_mark(void *self, const char *name)
{
	struct echo *echo = self;
	snprintf(echo->mark, sizeof(echo->mark), "%s", name);
	echo->mark_ns = now_ns();
	echo->requests = echo->replies = echo->waits_count = echo->sum_ns = 0;
	echo->errors = echo->fd < 0; /* a broken connection stays one */
	echo->longest = (struct wait_note){ 0 };
}

static void echo_report(void *self, struct text *text)
{
	struct echo *echo = self;
	uint64_t now = now_ns();
	text_add(text, "{\"mark\":");
	text_add_json_string(text, echo->mark);
	text_add(text, ",\"window_ms\":%.3f,\"clock\":\"CLOCK_MONOTONIC around send and recv\",\"connected\":%s",
		 (double)(now - echo->mark_ns) / 1e6, echo->fd >= 0 ? "true" : "false");
	text_add(text,
		 ",\"requests\":%" PRIu64 ",\"replies\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"error\":", echo->requests,
		 echo->replies, echo->errors);
	text_add_json_string(text, echo->error);
	text_add(text,
		 ",\"outstanding_ms\":%.3f,\"mean_wait_ms\":%.4f,\"longest_wait_ms\":%.3f,\"longest_wait_at_ms\":%.3f",
		 echo->sent_ns && echo->fd >= 0 ? (double)(now - echo->sent_ns) / 1e6 : 0.0,
		 echo->replies ? (double)echo->sum_ns / (double)echo->replies / 1e6 : 0.0,
		 (double)echo->longest.length_ns / 1e6,
		 echo->longest.at_ns ? (double)(echo->longest.at_ns - echo->started_ns) / 1e6 : 0.0);
	text_add(text, ",\"wait_over_ms\":%" PRIu64 ",\"waits_over_count\":%" PRIu64 ",\"waits_over\":[",
		 echo->options->over_ms, echo->waits_count);
	for (size_t i = 0; i < echo->waits_count && i < WAITS_MAX; i++)
		text_add(text, "%s{\"at_ms\":%.3f,\"ms\":%.3f}", i ? "," : "",
			 (double)(echo->waits[i].at_ns - echo->started_ns) / 1e6,
			 (double)echo->waits[i].length_ns / 1e6);
	text_add(text, "]}");
}

static int echo_loop(struct echo *echo, struct console *console, int timer_fd, const volatile int *stop)
{
	bool late = false; /* a tick came while a reply was outstanding */
	while (!*stop && !console->quit) {
		struct pollfd fds[2 + CONSOLE_FDS_MAX] = { { .fd = timer_fd, .events = POLLIN },
							   { .fd = echo->fd, .events = POLLIN } };
		size_t count = console_poll_fill(console, fds + 2);
		if (poll(fds, 2 + count, -1) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (fds[1].revents && echo_reply(echo) && late) {
			late = false;
			echo_request(echo);
		}
		uint64_t ticks;
		if (fds[0].revents && read(timer_fd, &ticks, sizeof(ticks)) == (ssize_t)sizeof(ticks)) {
			late = echo->sent_ns != 0;
			echo_request(echo);
		}
		console_serve(console, fds + 2, count);
	}
	return 0;
}

int echo_observe(const struct echo_options *options, const volatile int *stop)
{
	static const struct console_ops ops = { .mark = echo_mark, .report = echo_report };
	static struct echo echo;
	struct console console;
	echo = (struct echo){ .options = options, .started_ns = now_ns() };
	echo_mark(&echo, "start");
	echo.fd = tcp_connect(&options->to);
	if (echo.fd < 0) {
		complain("cannot connect: %s", strerror(-echo.fd));
		return echo.fd;
	}
	echo.errors = 0;
	_cleanup_close_ int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	struct itimerspec every = { .it_interval = { .tv_sec = (time_t)(options->interval_ms / 1000),
						     .tv_nsec = (long)(options->interval_ms % 1000 * NS_PER_MS) } };
	every.it_value = every.it_interval;
	if (timer_fd < 0 || timerfd_settime(timer_fd, 0, &every, NULL) < 0)
		return -errno;
	int r = console_open(&console, options->control, &ops, &echo);
	if (r == 0)
		r = echo_loop(&echo, &console, timer_fd, stop);
	int closed = console_close(&console, options->json);
	close_fd(&echo.fd);
	return r < 0 ? r : closed;
}
