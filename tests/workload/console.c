/* Control of an observer by lines of text, and its report file.
 *
 * Answers are written blocking: a client that asks and does not read stops the observer's answers, not its counting
 * by the kernel (the receive buffer and the kernel's time stamps bridge that).
 * Threads: one.
 */
#include "console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int write_all(int fd, const char *bytes, size_t length)
{
	while (length) {
		ssize_t written = write(fd, bytes, length);
		if (written < 0 && errno != EINTR)
			return -errno;
		if (written > 0) {
			bytes += written;
			length -= (size_t)written;
		}
	}
	return 0;
}

static int socket_open(struct console *console)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(console->path) >= sizeof(address.sun_path)) {
		complain("--control: the path is too long");
		return -ENAMETOOLONG;
	}
	strcpy(address.sun_path, console->path);
	unlink(console->path); /* left by an observer that was killed */
	console->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (console->listen_fd < 0 ||
	    bind(console->listen_fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(console->listen_fd, CONSOLE_CLIENTS_MAX) < 0) {
		int r = -errno;
		complain("cannot listen on %s: %s", console->path, strerror(-r));
		return r;
	}
	return 0;
}

int console_open(struct console *console, const char *path, const struct console_ops *ops, void *self)
{
	*console = (struct console){ .ops = ops, .self = self, .path = path, .listen_fd = -1 };
	for (size_t i = 0; i < CONSOLE_CLIENTS_MAX; i++)
		console->clients[i].in_fd = -1;
	console->bytes = malloc(REPORT_BYTES);
	if (!console->bytes)
		return -ENOMEM;
	if (path)
		return socket_open(console);
	console->clients[0].in_fd = STDIN_FILENO;
	console->clients[0].out_fd = STDOUT_FILENO;
	return 0;
}

size_t console_poll_fill(const struct console *console, struct pollfd *ret_fds)
{
	ret_fds[0] = (struct pollfd){ .fd = console->listen_fd, .events = POLLIN };
	for (size_t i = 0; i < CONSOLE_CLIENTS_MAX; i++)
		ret_fds[i + 1] = (struct pollfd){ .fd = console->clients[i].in_fd, .events = POLLIN };
	return CONSOLE_FDS_MAX;
}

static void client_end(struct console_client *client)
{
	if (client->in_fd == client->out_fd)
		close(client->in_fd);
	client->in_fd = -1;
}

static void command_answer(struct console *console, struct console_client *client, const char *line)
{
	struct text text = { .bytes = console->bytes, .capacity = REPORT_BYTES - 1 };
	if (strncmp(line, "mark ", 5) == 0 && line[5]) {
		console->ops->mark(console->self, line + 5);
		text_add(&text, "ok");
	} else if (strcmp(line, "report") == 0) {
		console->ops->report(console->self, &text);
	} else if (strcmp(line, "quit") == 0) {
		console->quit = true;
		text_add(&text, "ok");
	} else {
		text_add(&text, "error: commands are mark NAME, report, quit");
	}
	text.bytes[text.length++] = '\n';
	if (write_all(client->out_fd, text.bytes, text.length) < 0)
		client_end(client);
}

static void client_serve(struct console *console, struct console_client *client)
{
	ssize_t got = read(client->in_fd, client->line + client->length, sizeof(client->line) - client->length);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		client_end(client);
		return;
	}
	client->length += (size_t)got;
	char *newline;
	while (client->in_fd >= 0 && (newline = memchr(client->line, '\n', client->length))) {
		*newline = 0;
		command_answer(console, client, client->line);
		client->length -= (size_t)(newline + 1 - client->line);
		memmove(client->line, newline + 1, client->length);
	}
	if (client->length == sizeof(client->line))
		client_end(client);
}

void console_serve(struct console *console, const struct pollfd *fds, size_t count)
{
	for (size_t i = 1; i < count; i++)
		if (fds[i].revents && console->clients[i - 1].in_fd >= 0)
			client_serve(console, &console->clients[i - 1]);
	if (!fds[0].revents)
		return;
	int fd = accept4(console->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	size_t place = 0;
	while (place < CONSOLE_CLIENTS_MAX && console->clients[place].in_fd >= 0)
		place++;
	if (fd >= 0 && place == CONSOLE_CLIENTS_MAX)
		close(fd);
	else if (fd >= 0)
		console->clients[place] = (struct console_client){ .in_fd = fd, .out_fd = fd };
}

static int report_file(struct console *console, const char *path)
{
	struct text text = { .bytes = console->bytes, .capacity = REPORT_BYTES - 1 };
	console->ops->report(console->self, &text);
	text.bytes[text.length++] = '\n';
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int r = fd < 0 ? -errno : write_all(fd, text.bytes, text.length);
	if (r < 0)
		complain("cannot write %s: %s", path, strerror(-r));
	return r;
}

int console_close(struct console *console, const char *path)
{
	int r = path ? report_file(console, path) : 0;
	for (size_t i = 0; i < CONSOLE_CLIENTS_MAX; i++)
		if (console->clients[i].in_fd >= 0)
			client_end(&console->clients[i]);
	if (console->listen_fd >= 0) {
		close(console->listen_fd);
		unlink(console->path);
	}
	free(console->bytes);
	console->bytes = NULL;
	return r;
}
