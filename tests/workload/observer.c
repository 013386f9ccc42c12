/* observer: stands outside, receives beats (or holds a TCP conversation, echo_observer.c), and tells what it saw.
 *
 * Arrival is the kernel's receive time stamp (SO_TIMESTAMPNS), put on CLOCK_MONOTONIC by the difference of both clocks
 * at the moment of reading; so a busy observer does not lengthen a gap. Losses in its own receive buffer are
 * counted by the kernel (SO_RXQ_OVFL) and reported as kernel_drops.
 * Threads: one.
 */
#include "console.h"
#include "tally.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define RECEIVE_BYTES (16 << 20)

static volatile int stop;

static void on_stop(int number)
{
	(void)number;
	stop = 1;
}

struct observer {
	struct tally tally;
	int fd;
	int receive_bytes;
	uint32_t kernel_drops;
};

static uint64_t wall_ns(const struct timespec *time)
{
	return (uint64_t)time->tv_sec * NS_PER_S + (uint64_t)time->tv_nsec;
}

static int beats_open(struct observer *observer, const struct sockaddr_in *address)
{
	socklen_t length = sizeof(int);
	observer->fd = udp_socket(address);
	if (observer->fd < 0)
		return observer->fd;
	/* FORCE passes the machine's limit where we may; otherwise as much as is allowed. */
	if (setsockopt(observer->fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){ RECEIVE_BYTES }, sizeof(int)) < 0 &&
	    setsockopt(observer->fd, SOL_SOCKET, SO_RCVBUF, &(int){ RECEIVE_BYTES }, sizeof(int)) < 0)
		return -errno;
	if (setsockopt(observer->fd, SOL_SOCKET, SO_TIMESTAMPNS, &(int){ 1 }, sizeof(int)) < 0 ||
	    setsockopt(observer->fd, SOL_SOCKET, SO_RXQ_OVFL, &(int){ 1 }, sizeof(int)) < 0 ||
	    getsockopt(observer->fd, SOL_SOCKET, SO_RCVBUF, &observer->receive_bytes, &length) < 0)
		return -errno;
	return 0;
}

static void datagram_take(struct observer *observer, struct msghdr *message, size_t length, uint64_t to_monotonic)
{
	uint64_t arrival = now_ns();
	struct beat beat;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
			struct timespec stamp;
			memcpy(&stamp, CMSG_DATA(c), sizeof(stamp));
			arrival = wall_ns(&stamp) + to_monotonic; /* wraps around, on purpose */
		} else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
			memcpy(&observer->kernel_drops, CMSG_DATA(c), sizeof(observer->kernel_drops));
		}
	}
	if (beat_decode(message->msg_iov->iov_base, length, &beat) < 0)
		observer->tally.refused++;
	else
		tally_beat(&observer->tally, &beat, arrival);
}

/* Takes all that has arrived. */
static int beats_receive(struct observer *observer)
{
	static uint8_t bytes[BATCH][BEAT_BYTES + 1]; /* one more, so that a longer datagram is noticed */
	static uint8_t controls[BATCH][128];
	struct mmsghdr messages[BATCH];
	struct iovec vectors[BATCH];
	int count;
	do {
		for (size_t i = 0; i < BATCH; i++) {
			vectors[i] = (struct iovec){ .iov_base = bytes[i], .iov_len = sizeof(bytes[i]) };
			messages[i].msg_hdr = (struct msghdr){ .msg_iov = &vectors[i],
							       .msg_iovlen = 1,
							       .msg_control = controls[i],
							       .msg_controllen = sizeof(controls[i]) };
		}
		count = recvmmsg(observer->fd, messages, BATCH, MSG_DONTWAIT, NULL);
		if (count < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		struct timespec wall;
		clock_gettime(CLOCK_REALTIME, &wall);
		uint64_t to_monotonic = now_ns() - wall_ns(&wall);
		for (int i = 0; i < count; i++)
			datagram_take(observer, &messages[i].msg_hdr, messages[i].msg_len, to_monotonic);
	} while (count == BATCH);
	return 0;
}

static void observer_mark(void *self, const char *name)
{
	struct observer *observer = self;
	beats_receive(observer); /* what arrived before belongs before */
	tally_mark(&observer->tally, name, now_ns());
}

static void observer_report(void *self, struct text *text)
{
	struct observer *observer = self;
	char extra[160];
	beats_receive(observer);
	snprintf(extra, sizeof(extra),
		 ",\"clock\":\"SO_TIMESTAMPNS on CLOCK_MONOTONIC\",\"receive_buffer\":%d,\"kernel_drops\":%u",
		 observer->receive_bytes, observer->kernel_drops);
	tally_report(&observer->tally, now_ns(), extra, text);
}

static int observe_beats(struct observer *observer, const struct sockaddr_in *address, const char *control,
			 const char *json)
{
	static const struct console_ops ops = { .mark = observer_mark, .report = observer_report };
	struct console console;
	int r = beats_open(observer, address);
	if (r < 0) {
		complain("cannot receive beats: %s", strerror(-r));
		return r;
	}
	observer->tally.start_ns = now_ns();
	tally_mark(&observer->tally, "start", observer->tally.start_ns);
	r = console_open(&console, control, &ops, observer);
	while (r == 0 && !stop && !console.quit) {
		struct pollfd fds[1 + CONSOLE_FDS_MAX] = { { .fd = observer->fd, .events = POLLIN } };
		size_t count = console_poll_fill(&console, fds + 1);
		if (poll(fds, 1 + count, -1) < 0) {
			r = errno == EINTR ? 0 : -errno;
			continue;
		}
		if (fds[0].revents)
			r = beats_receive(observer);
		console_serve(&console, fds + 1, count);
	}
	int closed = console_close(&console, json);
	close(observer->fd);
	tally_free(&observer->tally);
	return r < 0 ? r : closed;
}

static void usage(void)
{
	puts("usage: observer --listen ADDR:PORT [options]     receive beats by UDP\n"
	     "       observer --tcp ADDR:PORT [options]        converse with a line echo server\n"
	     "Commands, a line each, on stdin or the control socket: mark NAME (count anew), report (one line of "
	     "JSON), quit.\n\n"
	     "  --control PATH    take commands on this unix socket instead of stdin (see ask --help)\n"
	     "  --json FILE       write a last report there at the end (SIGTERM, SIGINT, quit)\n"
	     "  --gap-ms N        list gaps and waits longer than this (default 20)\n"
	     "  --alive-ms N      a host counts as alive between two beats at most this far apart (default 100)\n"
	     "  --interval-ms N   --tcp: between requests (default 1)\n"
	     "  --help            print this");
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "listen", required_argument, NULL, 'l' },
						 { "tcp", required_argument, NULL, 't' },
						 { "control", required_argument, NULL, 'c' },
						 { "json", required_argument, NULL, 'j' },
						 { "gap-ms", required_argument, NULL, 'g' },
						 { "alive-ms", required_argument, NULL, 'a' },
						 { "interval-ms", required_argument, NULL, 'i' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	struct sockaddr_in listen_at = { 0 };
	struct echo_options echo = { .interval_ms = 1, .over_ms = 20 };
	uint64_t alive_ms = 100;
	int key, r = 0;
	program_name("observer");
	while (r == 0 && (key = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (key) {
		case 'h':
			usage();
			return EXIT_SUCCESS;
		case 'l':
			r = parse_address("--listen", optarg, true, &listen_at);
			break;
		case 't':
			r = parse_tcp_address("--tcp", optarg, &echo.to);
			break;
		case 'c':
			echo.control = optarg;
			break;
		case 'j':
			echo.json = optarg;
			break;
		case 'g':
			r = parse_number("--gap-ms", optarg, 1, 3600000, &echo.over_ms);
			break;
		case 'a':
			r = parse_number("--alive-ms", optarg, 1, 3600000, &alive_ms);
			break;
		case 'i':
			r = parse_number("--interval-ms", optarg, 1, 60000, &echo.interval_ms);
			break;
		default:
			r = -EINVAL;
		}
	}
	if (r < 0)
		return EXIT_USAGE;
	if (optind != argc || !listen_at.sin_family == !echo.to.any.sa_family) {
		complain("needs either --listen ADDR:PORT or --tcp ADDR:PORT, and no other arguments; see --help");
		return EXIT_USAGE;
	}
	struct sigaction action = { .sa_handler = on_stop };
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	static struct observer observer;
	observer.tally.gap_ns = echo.over_ms * NS_PER_MS;
	observer.tally.alive_ns = alive_ms * NS_PER_MS;
	r = echo.to.any.sa_family ? echo_observe(&echo, &stop)
				  : observe_beats(&observer, &listen_at, echo.control, echo.json);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
