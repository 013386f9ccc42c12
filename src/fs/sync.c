/*
 * Passes of rsync over a stream: see sync.h, docs/filesystem.md. A struct sync is used by one thread.
 *
 * Both halves are child processes whose words are kept. The target's is started only when the source's header has come and has been
 * found harmless, and writes through a directory descriptor that was reached without following a single symbolic link.
 */
#include "fs/sync.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "fs/apart.h"
#include "fs/links.h"
#include "fs/sync-options.h"
#include "fs/sync-stream.h"

#define WORDS_MAX 16384 /* of rsync's output that are kept */
#define STREAM_CHILD_FD 10
#define ARGUMENTS_MAX (SYNC_OPTIONS_MAX + 8)
#define VANISHED                                                                                                       \
	24 /* files that went away while they were listed: normal while the workload runs; rsync(1), EXIT VALUES */

struct sync {
	struct process process;
	bool started, client;
	bool stay_apart; /* target: from others' mounts, which may go away */
	struct apart *apart;
	int stream_fd; /* the caller's */
	char *path;
	int out_fd, err_fd;
	struct buffer out, errors;
	uint64_t start_ns;
	struct buffer header; /* target: as much of it as has come */
	int list_fd;	      /* source: where rsync reads the names, -1: it has all, or needs none */
	struct buffer list;
	size_t list_done;
};

/* Absolute, no empty, "." or ".." parts, no slash at the end, not the root itself. */
static int check_path(const char *path, struct error *err)
{
	bool good = path[0] == '/' && path[1] && strlen(path) < 4096;

	for (const char *p = path; good && *p; p++) {
		size_t n = *p == '/' ? strcspn(p + 1, "/") : 1;

		if (*p == '/')
			good = n && !(n == 1 && p[1] == '.') && !(n == 2 && p[1] == '.' && p[2] == '.');
	}
	return good ? 0 : error_set(err, EINVAL, "\"%.128s\" is not an absolute, plain path to synchronise", path);
}

static struct sync *sync_new(const char *path, int stream_fd)
{
	struct sync *s = calloc(1, sizeof(*s));

	if (s)
		s->path = strdup(path);
	if (!s || !s->path) {
		free(s);
		return NULL;
	}
	s->process = PROCESS_NONE;
	s->stream_fd = stream_fd;
	s->out_fd = s->err_fd = s->list_fd = -1;
	s->start_ns = clock_now_ns();
	return s;
}

void sync_free(struct sync *s)
{
	if (!s)
		return;
	process_free(&s->process);
	apart_end(s->apart);
	shutdown(s->stream_fd, SHUT_RDWR); /* so that whoever pumps the other end notices */
	close_fd(&s->out_fd);
	close_fd(&s->err_fd);
	close_fd(&s->list_fd);
	buffer_free(&s->list);
	buffer_free(&s->out);
	buffer_free(&s->errors);
	buffer_free(&s->header);
	free(s->path);
	free(s);
}

/* Starts rsync with its stderr, and stdout unless that is the stream, on pipes of s. */
static int start_rsync(struct sync *s, struct process_options *o, struct error *err)
{
	static const char *const environment[] = { "LC_ALL=C", "RSYNC_PROTECT_ARGS=0", NULL };
	int out[2] = { -1, -1 }, errors[2] = { -1, -1 }, r;

	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0) {
		r = error_errno(err, errno, "cannot make a pipe for rsync");
	} else {
		o->environment = environment;
		o->stderr_fd = errors[1];
		if (o->stdout_fd < 0)
			o->stdout_fd = out[1];
		r = process_start(o, &s->process, err);
	}
	close_fd(&out[1]);
	close_fd(&errors[1]);
	s->out_fd = out[0];
	s->err_fd = errors[0];
	s->started = r >= 0;
	return r;
}

/* The pipe that the list goes through: rsync's end is returned. */
static int open_list(struct sync *s, struct error *err)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_errno(err, errno, "cannot make a pipe for rsync");
	s->list_fd = ends[1];
	fcntl(s->list_fd, F_SETFL, O_WRONLY | O_NONBLOCK);
	return ends[0];
}

static int start_client(struct sync *s, const struct sync_tree *tree, char kind, bool listed, struct error *err)
{
	_cleanup_close_ int list = listed ? open_list(s, err) : -1;
	_cleanup_(sync_options_free) struct sync_options options = { 0 };
	struct process_options o = { .stdin_fd = list,
				     .stdout_fd = -1,
				     .source_fds = { s->stream_fd },
				     .child_fds = { STREAM_CHILD_FD },
				     .n_fds = 1 };
	int r = listed && list < 0 ? list : sync_options_make(tree, kind, listed, STREAM_CHILD_FD, &options, err);

	o.argv = (const char *const *)options.argv;
	return r < 0 ? r : start_rsync(s, &o, err);
}

int sync_send_start(const struct sync_tree *tree, bool listed, int stream_fd, struct sync **ret, struct error *err)
{
	struct sync *s;
	struct stat st;
	int r = check_path(tree->path, err);

	if (r < 0)
		return r;
	if (stat(tree->path, &st) < 0)
		return error_errno(err, errno, "cannot synchronise %s", tree->path);
	if (!S_ISDIR(st.st_mode) && (listed || !S_ISREG(st.st_mode)))
		return error_set(err, EINVAL, "%s is neither a directory nor a file: it cannot be synchronised",
				 tree->path);
	s = sync_new(tree->path, stream_fd);
	if (!s)
		return error_set(err, ENOMEM, "no memory to synchronise %s", tree->path);
	s->client = true;
	r = start_client(s, tree, S_ISDIR(st.st_mode) ? 'd' : 'f', listed, err);
	if (r < 0) {
		sync_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void sync_feed(struct sync *s, struct buffer *list)
{
	s->start_ns = clock_now_ns();
	s->list = *list;
	*list = (struct buffer){ 0 };
}

int sync_receive_start(const char *path, bool stay_apart, int stream_fd, struct sync **ret, struct error *err)
{
	struct sync *s;
	int r = check_path(path, err);

	if (r < 0)
		return r;
	s = sync_new(path, stream_fd);
	if (!s)
		return error_set(err, ENOMEM, "no memory to synchronise %s", path);
	s->stay_apart = stay_apart;
	*ret = s;
	return 0;
}

/* One step down, made when it is missing; no symbolic link is followed. A descriptor or a negative errno. */
static int open_below(int parent_fd, const char *name)
{
	struct open_how how = { .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
				.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH };
	long fd;

	if (mkdirat(parent_fd, name, 0755) < 0 && errno != EEXIST)
		return -errno;
	fd = syscall(SYS_openat2, parent_fd, name, &how, sizeof(how));
	return fd < 0 ? -errno : (int)fd;
}

/* Opens all of the path but, unless `whole`, its last part, whose name is left in *ret_name. */
static int open_target(const char *path, bool whole, int *ret_fd, const char **ret_name, struct error *err)
{
	_cleanup_close_ int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *part = path + 1;

	for (;;) {
		size_t n = strcspn(part, "/");
		char name[256];
		int next;

		if (!part[n] && !whole)
			break;
		if (n >= sizeof(name))
			return error_set(err, ENAMETOOLONG, "%s has a part that is too long", path);
		memcpy(name, part, n);
		name[n] = 0;
		next = open_below(fd, name);
		if (next == -ELOOP || next == -ENOTDIR)
			return error_set(err, ELOOP,
					 "%.*s at the target is not a directory (a symbolic link?): synchronising "
					 "would write elsewhere",
					 (int)(part + n - path), path);
		if (next < 0)
			return error_errno(err, -next, "cannot open %.*s at the target", (int)(part + n - path), path);
		close(fd);
		fd = next;
		if (!part[n])
			break;
		part += n + 1;
	}
	*ret_name = part;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int start_server(struct sync *s, const struct sync_header *h, struct error *err)
{
	const char *argv[ARGUMENTS_MAX] = { "rsync" }, *name = "";
	_cleanup_close_ int fd = -1;
	char destination[300];
	bool in_place;
	size_t n = 1;
	struct stat st;
	struct process_options o = { .argv = argv, .stdin_fd = s->stream_fd, .stdout_fd = s->stream_fd };
	int r = open_target(s->path, h->directory, &fd, &name, err);

	if (r < 0)
		return r;
	/* A single file goes to its own name, so that a source that lies about its list cannot reach its neighbours. */
	if (!h->directory && !fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) && !S_ISREG(st.st_mode))
		return error_set(err, EEXIST, "%s at the target is not a file: synchronising would write elsewhere",
				 s->path);
	snprintf(destination, sizeof(destination), "/proc/self/fd/%d/%.255s", STREAM_CHILD_FD,
		 h->directory ? "" : name);
	/* Writing into a file that has another name here, and perhaps not at the source, would change that one as well. */
	in_place = !h->directory || !links_below(fd);
	for (size_t i = 0; i < h->n_options; i++)
		if (in_place || strcmp(h->options[i], "--inplace") != 0)
			argv[n++] = h->options[i];
	argv[n++] = ".";
	argv[n++] = destination;
	o.source_fds[0] = fd;
	o.child_fds[0] = STREAM_CHILD_FD;
	o.n_fds = 1;
	return start_rsync(s, &o, err);
}

struct server_start {
	struct sync *s;
	const struct sync_header *h;
	struct error *err;
};

static int start_server_of(void *arg)
{
	const struct server_start *start = arg;

	return start_server(start->s, start->h, start->err);
}

/* Bytes of the whole header as far as it is known; -EINVAL when it claims to be absurd. */
static ssize_t header_size(const struct sync *s)
{
	uint32_t length = 0;

	if (s->header.length < sizeof(length))
		return sizeof(length);
	for (size_t i = 0; i < sizeof(length); i++)
		length |= (uint32_t)s->header.data[i] << (8 * i);
	return length < 2 || length > SYNC_HEADER_MAX ? -EINVAL : (ssize_t)(sizeof(length) + length);
}

/* Target: what has come of the header, and never one byte of rsync's own. 1 when it was whole and rsync has started. */
static int read_header(struct sync *s, struct error *err)
{
	uint8_t chunk[SYNC_HEADER_MAX];
	struct sync_header h;
	int r;

	for (;;) {
		ssize_t size = header_size(s), n;

		if (size < 0)
			return error_set(err, EINVAL, "the source sent a file stream that does not begin as one");
		if ((size_t)size == s->header.length)
			break;
		n = recv(s->stream_fd, chunk, MIN((size_t)size - s->header.length, sizeof(chunk)), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (n < 0)
			return error_errno(err, errno, "cannot read the file stream of %s", s->path);
		if (!n)
			return error_set(err, EPIPE, "the source closed the file stream of %s before it began",
					 s->path);
		if (buffer_append(&s->header, chunk, (size_t)n) < 0)
			return error_set(err, ENOMEM, "no memory to synchronise %s", s->path);
	}
	r = sync_header_decode(s->header.data + sizeof(uint32_t), s->header.length - sizeof(uint32_t), &h, err);
	if (!r && s->stay_apart)
		r = apart_begin(start_server_of, &(struct server_start){ s, &h, err }, &s->apart, err);
	else if (!r)
		r = start_server(s, &h, err);
	return r < 0 ? r : 1;
}

/* Keeps the words of a pipe, the first WORDS_MAX of them; closes it at its end. */
static void read_words(int *fd, struct buffer *words)
{
	char chunk[4096];
	ssize_t n = read(*fd, chunk, sizeof(chunk));

	if (n == 0 || (n < 0 && errno != EINTR))
		close_fd(fd);
	else if (n > 0 && words->length < WORDS_MAX)
		buffer_append(words, chunk, (size_t)n);
}

/* As much of the list as the pipe takes. An rsync that is gone needs none: its status says why. */
static void write_list(struct sync *s)
{
	while (s->list_done < s->list.length) {
		ssize_t n = write(s->list_fd, s->list.data + s->list_done, s->list.length - s->list_done);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0)
			break;
		s->list_done += (size_t)n;
	}
	close_fd(&s->list_fd);
}

/* Runs until rsync has ended and said all: 0, -ECANCELED, -ETIMEDOUT, or what stopped it from starting. */
static int wait_end(struct sync *s, int cancel_fd, uint64_t deadline_ns, struct error *err)
{
	while (!s->started || s->out_fd >= 0 || s->err_fd >= 0) {
		struct pollfd p[5] = {
			{ .fd = cancel_fd, .events = POLLIN },
			{ .fd = s->out_fd, .events = POLLIN },
			{ .fd = s->err_fd, .events = POLLIN },
			{ .fd = s->started ? -1 : s->stream_fd, .events = POLLIN },
			{ .fd = s->list_fd, .events = POLLOUT },
		};
		int r = poll(p, ARRAY_SIZE(p), deadline_poll_ms(deadline_ns));

		if (r < 0 && errno != EINTR)
			return error_errno(err, errno, "cannot wait for rsync");
		if (p[0].revents && r > 0)
			return error_set(err, ECANCELED, "synchronising the files was canceled");
		if (r == 0 && clock_now_ns() >= deadline_ns)
			return error_set(err, ETIMEDOUT, "synchronising the files took too long");
		if (r <= 0)
			continue;
		if (p[1].revents)
			read_words(&s->out_fd, &s->out);
		if (p[2].revents)
			read_words(&s->err_fd, &s->errors);
		if (p[4].revents)
			write_list(s);
		if (p[3].revents) {
			r = read_header(s, err);
			if (r < 0)
				return r;
		}
	}
	if (process_wait(&s->process, deadline_ns) == 0)
		return error_set(err, ETIMEDOUT, "rsync does not end");
	return 0;
}

/* The line that names the cause: rsync's first "rsync: ...", else its first word at all. */
static void first_words(struct buffer *words, char *text, size_t size)
{
	const char *start, *cause;

	snprintf(text, size, "it said nothing");
	if (!words->length || buffer_printf(words, "%s", "") < 0)
		return;
	start = (const char *)words->data;
	cause = strstr(start, "rsync: ");
	if (cause)
		start = cause;
	snprintf(text, size, "%.*s", (int)strcspn(start, "\n"), start);
}

/* "NAME: 1234 bytes" of rsync's --stats, which has no grouping without -h. */
static uint64_t statistic(const struct buffer *words, const char *name)
{
	const char *at = words->length ? strstr((const char *)words->data, name) : NULL;

	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static void fill_stats(struct sync *s, struct sync_stats *ret)
{
	*ret = (struct sync_stats){ .ms = (clock_now_ns() - s->start_ns) / NS_PER_MS };
	if (buffer_printf(&s->out, "%s", "") < 0)
		return;
	ret->files = statistic(&s->out, "Number of regular files transferred: ");
	ret->bytes_total = statistic(&s->out, "Total file size: ");
	ret->bytes_sent = statistic(&s->out, "Total bytes sent: ");
}

int sync_finish(struct sync *s, int cancel_fd, uint64_t deadline_ns, struct sync_stats *ret, struct error *err)
{
	char words[512];
	int status, r = wait_end(s, cancel_fd, deadline_ns, err);

	if (r < 0) {
		process_kill(&s->process);
		shutdown(s->stream_fd, SHUT_RDWR);
		return r;
	}
	status = s->process.status;
	if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == VANISHED)) {
		/* The source's helper passes rsync's last bytes on, and ends the stream then. */
		if (!s->client)
			shutdown(s->stream_fd, SHUT_RDWR);
		if (ret)
			fill_stats(s, ret);
		return 0;
	}
	shutdown(s->stream_fd, SHUT_RDWR);
	first_words(&s->errors, words, sizeof(words));
	if (WIFSIGNALED(status))
		return error_set(err, EIO, "rsync of %s was killed by signal %d: %s", s->path, WTERMSIG(status), words);
	return error_set(err, EIO, "rsync of %s failed with status %d: %s", s->path, WEXITSTATUS(status), words);
}

int sync_check(struct error *err)
{
	static const char *const argv[] = { "rsync", "--version", NULL };
	int r = process_run(argv, NULL, deadline_in_ms(10000), err);

	if (r == -ENOENT)
		return error_set(err, ENOENT,
				 "rsync is not installed on this host: install the package rsync, or keep the files on "
				 "storage that both hosts see");
	return r > 0 ? -EIO : r;
}
