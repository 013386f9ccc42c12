/*
 * The stream between two halves of rsync: its header, and the helper that rsync starts as its remote shell.
 *
 * The helper is a process of its own with one thread; it copies both ways between its stdin/stdout and the inherited
 * socket, with a buffer for each direction, so that neither side can block the other (rsync's halves write to each other at the same
 * time). It ends when the stream from the target has ended. The one that rsync started ends at once: rsync looks for the end of its remote
 * shell every 20 ms only, after everything else, and workloads stand still for that.
 */
#include "fs/sync-stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "fs/sync.h"

#define CHUNK 131072

int sync_header_encode(bool directory, const char *const *options, size_t n, struct buffer *ret)
{
	uint8_t kind = directory ? 'd' : 'f', length[4] = { 0 };
	size_t start = ret->length, total;
	int r = buffer_append(ret, length, sizeof(length));

	if (!r)
		r = buffer_append(ret, &kind, 1);
	for (size_t i = 0; i < n && !r; i++)
		r = buffer_append(ret, options[i], strlen(options[i]) + 1);
	if (r < 0)
		return r;
	total = ret->length - start - sizeof(length);
	if (total > SYNC_HEADER_MAX || n > SYNC_OPTIONS_MAX)
		return -E2BIG;
	for (size_t i = 0; i < sizeof(length); i++)
		ret->data[start + i] = (uint8_t)(total >> (8 * i));
	return 0;
}

/* "-logDtprHAXSe.iLsfxCIvu": flags that only say what is copied; behind "e." rsync tells its own capabilities. None of those that follow
 * links, change paths or run programs. */
static bool short_options_allowed(const char *text)
{
	size_t n;

	if (text[0] != '-' || text[1] == '-' || !text[1])
		return false;
	n = 1 + strspn(text + 1, "logDtpdrRHAXSWvq");
	if (!text[n])
		return true;
	if (text[n] != 'e' || text[n + 1] != '.')
		return false;
	n += 2;
	return strspn(text + n, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.") == strlen(text + n);
}

static bool option_allowed(const char *text)
{
	static const char *const allowed[] = { "--delete",	  "--delete-before",
					       "--delete-during", "--delete-delay",
					       "--delete-after",  "--numeric-ids",
					       "--inplace",	  "--sparse",
					       "--force-delete",  "--stats",
					       "--no-r",	  "-@-1",
					       "--force",	  "--delete-missing-args" };

	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		if (!strcmp(text, allowed[i]))
			return true;
	return short_options_allowed(text);
}

int sync_header_decode(const uint8_t *data, size_t length, struct sync_header *ret, struct error *err)
{
	if (length < 2 || length > SYNC_HEADER_MAX || data[length - 1] || (data[0] != 'd' && data[0] != 'f'))
		return error_set(err, EINVAL, "the source sent a file stream that does not begin as one");
	ret->directory = data[0] == 'd';
	ret->n_options = 0;
	memcpy(ret->text, data + 1, length - 1);
	for (size_t at = 0; at < length - 1; at += strlen(ret->text + at) + 1) {
		char *option = ret->text + at;

		if (!at && strcmp(option, "--server") != 0)
			return error_set(err, EINVAL,
					 "the source asks for something other than an rsync server: \"%.64s\"", option);
		if (at && !option_allowed(option))
			return error_set(err, EINVAL,
					 "the source asks rsync for the option \"%.64s\", which is not allowed",
					 option);
		if (ret->n_options >= SYNC_OPTIONS_MAX)
			return error_set(err, EINVAL, "the source gives rsync more than %d options", SYNC_OPTIONS_MAX);
		ret->options[ret->n_options++] = option;
	}
	return 0;
}

/* One direction: bytes [start, end) of data wait to be written. */
struct flow {
	int from, to;
	bool ended;  /* from has no more */
	bool closed; /* the end was passed on to `to` */
	size_t start, end;
	uint8_t *data;
};

static bool would_block(void)
{
	return errno == EAGAIN || errno == EINTR;
}

/* Moves what can be moved; false when the reader is gone. */
static bool flow_step(struct flow *f)
{
	ssize_t n;

	if (f->start == f->end && !f->ended) {
		n = recv(f->from, f->data, CHUNK, MSG_DONTWAIT);
		if (n < 0 && errno == ENOTSOCK)
			n = read(f->from, f->data, CHUNK);
		if (n == 0 || (n < 0 && !would_block()))
			f->ended = true;
		f->start = 0;
		f->end = n > 0 ? (size_t)n : 0;
	}
	if (f->start < f->end) {
		n = send(f->to, f->data + f->start, f->end - f->start, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == ENOTSOCK)
			n = write(f->to, f->data + f->start, f->end - f->start);
		if (n < 0 && !would_block())
			return false;
		f->start += n > 0 ? (size_t)n : 0;
	}
	return true;
}

static void flow_close(struct flow *f)
{
	if (!f->ended || f->start < f->end || f->closed)
		return;
	if (shutdown(f->to, SHUT_WR) < 0 && errno == ENOTSOCK)
		close(f->to);
	f->closed = true;
}

static int relay(int stream_fd)
{
	struct flow flows[2] = { { .from = STDIN_FILENO, .to = stream_fd },
				 { .from = stream_fd, .to = STDOUT_FILENO } };
	_cleanup_free_ uint8_t *data = malloc(2 * CHUNK);
	bool rsync_gone = false;

	if (!data)
		return 1;
	fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
	fcntl(STDOUT_FILENO, F_SETFL, fcntl(STDOUT_FILENO, F_GETFL) | O_NONBLOCK);
	flows[0].data = data;
	flows[1].data = data + CHUNK;
	/* The end of the stream is the end, as with ssh; but rsync's last words must be out, too, when it has gone first. */
	while (!flows[1].closed || (rsync_gone && !flows[0].closed)) {
		struct pollfd p[4];

		for (int i = 0; i < 2; i++) {
			bool full = flows[i].start < flows[i].end;

			p[2 * i] =
				(struct pollfd){ .fd = full || flows[i].ended ? -1 : flows[i].from, .events = POLLIN };
			p[2 * i + 1] = (struct pollfd){ .fd = full ? flows[i].to : -1, .events = POLLOUT };
		}
		if (poll(p, 4, -1) < 0 && errno != EINTR)
			break;
		for (int i = 0; i < 2; i++) {
			if (!flows[i].closed && !flow_step(&flows[i])) {
				flows[i].closed = flows[i].ended = true;
				flows[i].start = flows[i].end = 0;
				rsync_gone = rsync_gone || i;
				/* The target is gone, and may have said why: hear it out. */
				if (!i)
					close(STDIN_FILENO);
			}
			flow_close(&flows[i]);
		}
	}
	shutdown(stream_fd, SHUT_WR); /* phaul has the socket as well, so that our end alone would not end it */
	return 0;
}

/* True in a child that nobody waits for; and here, when there can be none. */
static bool go_on_alone(void)
{
	pid_t pid = fork();
	int null_fd;

	if (pid > 0)
		return false;
	/* Whoever reads rsync's words waits for the end of all who could say something. */
	null_fd = pid ? -1 : open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (null_fd >= 0)
		dup2(null_fd, STDERR_FILENO);
	return true;
}

/* argv: program, rsync-stream, FD, 'd' or 'f', [-l USER,] HOST, "rsync", "--server", options..., ".", path. */
int sync_stream_main(int argc, char **argv)
{
	_cleanup_buffer_ struct buffer header = { 0 };
	const char *const *options;
	int first = 4, last, stream_fd;

	while (first < argc && strcmp(argv[first], "--server") != 0)
		first++;
	for (last = first; last < argc && strcmp(argv[last], ".") != 0; last++)
		;
	if (argc < 5 || last >= argc) {
		fprintf(stderr, "%s is started by rsync, not by hand\n", SYNC_VERB);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	stream_fd = atoi(argv[2]);
	options = (const char *const *)argv + first;
	if (sync_header_encode(argv[3][0] == 'd', options, (size_t)(last - first), &header) < 0 ||
	    fd_write_full(stream_fd, header.data, header.length) < 0) {
		fprintf(stderr, "the stream to the target is closed\n");
		return 1;
	}
	return go_on_alone() ? relay(stream_fd) : 0;
}
