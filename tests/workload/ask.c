/* ask: sends one command to an observer (unix socket) or to a workload (UDP) and prints the answer.
 *
 * Exit status: 0 answered, 1 no answer within the time or nobody there, 2 wrong usage.
 * Threads: one.
 */
#include "common.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int unix_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	int taken = fd;
	fd = -1;
	return taken;
}

static int udp_connect(const struct sockaddr_in *address)
{
	_cleanup_close_ int fd = udp_socket(NULL);
	if (fd < 0)
		return fd;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
		return -errno;
	int taken = fd;
	fd = -1;
	return taken;
}

/* Prints until the first newline. */
static int answer_print(int fd, uint64_t timeout_ms)
{
	uint64_t deadline = now_ns() + timeout_ms * NS_PER_MS;
	for (;;) {
		char bytes[65536];
		uint64_t now = now_ns();
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		int ready = now < deadline ? poll(&wait, 1, (int)((deadline - now) / NS_PER_MS) + 1) : 0;
		if (ready == 0)
			return -ETIMEDOUT;
		ssize_t got = ready < 0 ? -1 : recv(fd, bytes, sizeof(bytes), 0);
		if (got < 0)
			return -errno;
		if (got == 0)
			return -ENOTCONN;
		fwrite(bytes, 1, (size_t)got, stdout);
		if (memchr(bytes, '\n', (size_t)got))
			return 0;
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "timeout-ms", required_argument, NULL, 't' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	uint64_t timeout_ms = 10000;
	int key;
	program_name("ask");
	while ((key = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
		if (key == 'h') {
			puts("usage: ask [--timeout-ms 10000] unix:PATH|udp:ADDR:PORT|tcp:ADDR:PORT COMMAND...\n"
			     "Sends COMMAND as one line and prints the line that comes back.");
			return EXIT_SUCCESS;
		}
		if (key == '?' || parse_number("--timeout-ms", optarg, 1, 3600000, &timeout_ms) < 0)
			return EXIT_USAGE;
	}
	char command[512];
	struct text text = { .bytes = command, .capacity = sizeof(command) };
	for (int i = optind + 1; i < argc; i++)
		text_add(&text, "%s%s", i > optind + 1 ? " " : "", argv[i]);
	text_add(&text, "\n");
	const char *to = optind < argc ? argv[optind] : "";
	union tcp_address address;
	bool is_unix = strncmp(to, "unix:", 5) == 0;
	bool is_inet = strncmp(to, "udp:", 4) == 0 || strncmp(to, "tcp:", 4) == 0;
	if (argc - optind < 2 || text.cut || (!is_unix && !is_inet)) {
		complain("needs unix:PATH, udp:ADDR:PORT or tcp:ADDR:PORT, and a command");
		return EXIT_USAGE;
	}
	if (is_inet && (to[0] == 'u' ? parse_address("the address", to + 4, true, &address.in)
				     : parse_tcp_address("the address", to + 4, &address)) < 0)
		return EXIT_USAGE;
	_cleanup_close_ int fd = is_unix	? unix_connect(to + 5)
				 : to[0] == 'u' ? udp_connect(&address.in)
						: tcp_connect(&address);
	int r = fd < 0 ? fd : 0;
	if (r == 0 && send(fd, command, text.length, MSG_NOSIGNAL) < 0)
		r = -errno;
	if (r == 0)
		r = answer_print(fd, timeout_ms);
	if (r < 0)
		complain("no answer from %s: %s", to, strerror(-r));
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
