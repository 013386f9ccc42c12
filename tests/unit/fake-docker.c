/*
 * See fake-docker.h. It reads one request per connection and closes it, which HTTP allows.
 *
 * Threads: the server has one; `said` is only read after it has ended.
 */
#include "fake-docker.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buffer.h"

struct fake_docker {
	const struct fake_answer *answers;
	int listen_fd;
	pthread_t thread;
	struct buffer said;
};

/* Header and body; the body's length is in the header. */
static void read_request(int fd, char *text, size_t size)
{
	size_t length = 0, wanted = 0;

	while (length < size - 1) {
		ssize_t n = read(fd, text + length, size - 1 - length);
		char *end, *field;

		if (n <= 0)
			break;
		length += (size_t)n;
		text[length] = 0;
		end = strstr(text, "\r\n\r\n");
		field = strcasestr(text, "content-length:");
		if (end && field && field < end)
			wanted = (size_t)(end + 4 - text) + strtoul(field + 15, NULL, 10);
		else if (end)
			wanted = (size_t)(end + 4 - text);
		if (wanted && length >= wanted)
			break;
	}
	text[length] = 0;
}

static const struct fake_answer *find_answer(const struct fake_docker *d, const char *text)
{
	for (size_t i = 0; d->answers[i].request; i++)
		if (!strncmp(text, d->answers[i].request, strlen(d->answers[i].request)))
			return &d->answers[i];
	return NULL;
}

static void serve(struct fake_docker *d, int fd)
{
	static char text[65536];
	const struct fake_answer *answer;
	const char *body;

	read_request(fd, text, sizeof(text));
	if (!text[0])
		return;
	answer = find_answer(d, text);
	body = strstr(text, "\r\n\r\n");
	buffer_printf(&d->said, "%.*s%s%s\n", (int)(strstr(text, " HTTP/") - text), text, body && body[4] ? " " : "",
		      body ? body + 4 : "");
	body = answer ? answer->body : "{\"message\":\"no such thing\"}";
	dprintf(fd,
		"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
		answer ? answer->status : 404, strlen(body), body);
}

static void *fake_main(void *context)
{
	struct fake_docker *d = context;
	int fd;

	while ((fd = accept4(d->listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		serve(d, fd);
		close(fd);
	}
	return NULL;
}

struct fake_docker *fake_docker_start(const char *path, const struct fake_answer *answers)
{
	struct fake_docker *d = calloc(1, sizeof(*d));
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	assert(d && strlen(path) < sizeof(address.sun_path));
	d->answers = answers;
	memcpy(address.sun_path, path, strlen(path) + 1);
	unlink(path);
	d->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(d->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(d->listen_fd, 8) < 0 ||
	    pthread_create(&d->thread, NULL, fake_main, d) != 0)
		abort();
	return d;
}

char *fake_docker_stop(struct fake_docker *d)
{
	char *said;

	shutdown(d->listen_fd, SHUT_RDWR);
	pthread_join(d->thread, NULL);
	close(d->listen_fd);
	buffer_append(&d->said, "", 1);
	said = (char *)d->said.data;
	free(d);
	return said;
}
