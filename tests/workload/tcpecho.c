/* tcpecho: a line echo server on epoll whose loop also carries a periodic timerfd that must keep firing.
 *
 * Each line comes back as it was. The line "ticks" is answered with "ticks N expirations M elapsed_ms T": N reads of
 * the timerfd, M expirations they reported. A server whose timer died in a restore answers with an N that stays.
 * Invariants: a connection's unsent output is kept until the peer takes it; input is not read meanwhile, so that
 * the buffer cannot grow beyond one line.
 * Threads: one.
 */
#include "common.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define LINE_BYTES 4096

struct connection {
	int fd;
	size_t in_bytes;
	size_t out_bytes;
	char in[LINE_BYTES];
	char out[LINE_BYTES];
};

struct server {
	int epoll_fd;
	int listen_fd;
	int timer_fd;
	uint64_t ticks;
	uint64_t expirations;
	uint64_t started_ns;
};

static void connection_end(struct connection *connection)
{
	close(connection->fd);
	free(connection);
}

/* Returns -EAGAIN when the peer must take some first. */
static int connection_flush(struct connection *connection)
{
	while (connection->out_bytes) {
		ssize_t sent =
			send(connection->fd, connection->out, connection->out_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0)
			return -errno;
		connection->out_bytes -= (size_t)sent;
		memmove(connection->out, connection->out + sent, connection->out_bytes);
	}
	return 0;
}

/* Moves whole lines from in to out, one at a time. */
static int connection_answer(struct server *server, struct connection *connection)
{
	char *newline;
	while ((newline = memchr(connection->in, '\n', connection->in_bytes))) {
		size_t length = (size_t)(newline - connection->in) + 1;
		int r = connection_flush(connection);
		if (r < 0)
			return r;
		if (length == 6 && memcmp(connection->in, "ticks\n", 6) == 0) {
			int written = snprintf(connection->out, LINE_BYTES,
					       "ticks %" PRIu64 " expirations %" PRIu64 " elapsed_ms %" PRIu64 "\n",
					       server->ticks, server->expirations,
					       (now_ns() - server->started_ns) / (uint64_t)NS_PER_MS);
			connection->out_bytes = (size_t)written;
		} else {
			memcpy(connection->out, connection->in, length);
			connection->out_bytes = length;
		}
		connection->in_bytes -= length;
		memmove(connection->in, connection->in + length, connection->in_bytes);
	}
	int r = connection_flush(connection);
	return r < 0 ? r : connection->in_bytes == LINE_BYTES ? -EMSGSIZE : 0;
}

static int connection_step(struct server *server, struct connection *connection)
{
	for (;;) {
		int r = connection_answer(server, connection);
		if (r < 0)
			return r;
		ssize_t got = recv(connection->fd, connection->in + connection->in_bytes,
				   LINE_BYTES - connection->in_bytes, MSG_DONTWAIT);
		if (got < 0)
			return -errno;
		if (got == 0)
			return -ENOTCONN;
		connection->in_bytes += (size_t)got;
	}
}

static void server_accept(struct server *server)
{
	int fd;
	while ((fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		struct connection *connection = calloc(1, sizeof(*connection));
		if (!connection) {
			close(fd);
			return;
		}
		connection->fd = fd;
		/* Edge-triggered both ways: each event means "go on where you stopped". */
		struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP,
					     .data.ptr = connection };
		if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
			connection_end(connection);
	}
}

static int server_open(struct server *server, const union tcp_address *address, uint64_t tick_ms)
{
	struct itimerspec every = { .it_interval = { .tv_sec = (time_t)(tick_ms / 1000),
						     .tv_nsec = (long)(tick_ms % 1000 * NS_PER_MS) } };
	every.it_value = every.it_interval;
	server->listen_fd = tcp_listen(address);
	if (server->listen_fd < 0)
		return server->listen_fd;
	server->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (server->timer_fd < 0 || server->epoll_fd < 0 || timerfd_settime(server->timer_fd, 0, &every, NULL) < 0)
		return -errno;
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = &server->listen_fd };
	if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->listen_fd, &event) < 0)
		return -errno;
	event.data.ptr = &server->timer_fd;
	if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->timer_fd, &event) < 0)
		return -errno;
	server->started_ns = now_ns();
	return 0;
}

static int server_run(struct server *server)
{
	for (;;) {
		struct epoll_event events[64];
		int count = epoll_wait(server->epoll_fd, events, 64, -1);
		if (count < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < count; i++) {
			if (events[i].data.ptr == &server->listen_fd) {
				server_accept(server);
			} else if (events[i].data.ptr == &server->timer_fd) {
				uint64_t expirations;
				if (read(server->timer_fd, &expirations, sizeof(expirations)) ==
				    (ssize_t)sizeof(expirations)) {
					server->ticks++;
					server->expirations += expirations;
				}
			} else {
				struct connection *connection = events[i].data.ptr;
				int r = connection_step(server, connection);
				if (r != -EAGAIN && r != -EINTR)
					connection_end(connection);
			}
		}
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "listen", required_argument, NULL, 'l' },
						 { "tick-ms", required_argument, NULL, 't' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	union tcp_address address = { 0 };
	uint64_t tick_ms = 10;
	int key;
	program_name("tcpecho");
	while ((key = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (key == 'h') {
			puts("usage: tcpecho --listen ADDR:PORT [--tick-ms 10]\n"
			     "Echoes lines; answers \"ticks\" with the count of its periodic timer.");
			return EXIT_SUCCESS;
		}
		if ((key == 'l' && parse_tcp_address("--listen", optarg, &address) < 0) ||
		    (key == 't' && parse_number("--tick-ms", optarg, 1, 60000, &tick_ms) < 0) || key == '?')
			return EXIT_USAGE;
	}
	if (!address.any.sa_family || optind != argc) {
		complain("%s", optind != argc ? "takes no arguments, only options" : "--listen ADDR:PORT is missing");
		return EXIT_USAGE;
	}
	struct server server = { .epoll_fd = -1, .listen_fd = -1, .timer_fd = -1 };
	int r = server_open(&server, &address, tick_ms);
	if (r == 0)
		r = server_run(&server);
	complain("cannot serve: %s", strerror(-r));
	return EXIT_FAILURE;
}
