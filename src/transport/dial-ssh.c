/*
 * Channels over ssh: one `ssh ... phaul receive` per channel, its standard input and output as the link.
 *
 * ssh runs with BatchMode, so it never asks anybody, and in a session of its own, so that an interrupt at the terminal
 * leaves the link to us. Its stdin and stdout are socketpairs of their own (each ends
 * for itself, and shutdown(2) reaches them); its stderr goes to a memory file, which never blocks it and whose last
 * line explains an end that came too early. The remote side says PHAUL_GREETING first, so that a failed login
 * or a missing phaul shows in the dial.
 * Threads: those of the channel.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "transport/endpoint-internal.h"

#define ARGUMENTS_MAX 48
#define EXIT_WAIT_MS 1000 /* for ssh to be gone after its end of the link has closed */
#define STDERR_TAIL 1024
#define SSH_FAILED 255 /* ssh(1): its own errors; anything else is the remote command's status */
#define NOT_FOUND 127

/* The last line that ssh or the remote side wrote to stderr. */
static const char *last_words(struct ssh_child *s, char text[STDERR_TAIL])
{
	off_t end = lseek(s->stderr_fd, 0, SEEK_END);
	ssize_t n = end < 0 ? 0 : pread(s->stderr_fd, text, STDERR_TAIL - 1, MAX(end - (STDERR_TAIL - 1), 0));
	char *newline;

	n = MAX(n, 0);
	while (n > 0 && strchr("\r\n\t ", text[n - 1]))
		n--;
	text[n] = 0;
	newline = strrchr(text, '\n');
	if (!n)
		return "it said nothing";
	return newline ? newline + 1 : text;
}

static int number_of_words(const char *words)
{
	static const struct {
		const char *part;
		int number;
	} known[] = {
		{ "Permission denied", EACCES },
		{ "Host key verification failed", EACCES },
		{ "Connection refused", ECONNREFUSED },
		{ "timed out", ETIMEDOUT },
		{ "No route to host", EHOSTUNREACH },
		{ "Could not resolve", EHOSTUNREACH },
		{ "Network is unreachable", EHOSTUNREACH },
		{ "Too many authentication failures", EACCES },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strstr(words, known[i].part))
			return known[i].number;
	return ECONNRESET;
}

/* The link has ended: if ssh has too, say why. 0 when it ended without complaint or still runs. */
static int explain_end(struct channel *c, struct error *err)
{
	struct ssh_child *s = c->ssh;
	char text[STDERR_TAIL];
	const char *words;
	int status, number;

	if (process_wait(&s->process, deadline_in_ms(EXIT_WAIT_MS)) != 1 || s->process.status == 0)
		return 0;
	words = last_words(s, text);
	if (WIFSIGNALED(s->process.status))
		return error_set(err, ECONNRESET, "ssh to %s was ended by signal %d", s->host,
				 WTERMSIG(s->process.status));
	status = WEXITSTATUS(s->process.status);
	number = s->greeted ? ECONNRESET : status == SSH_FAILED ? number_of_words(words) : ECONNRESET;
	if (status == SSH_FAILED)
		return error_set(err, number, "ssh to %s failed: %s", s->host, words);
	if (status == NOT_FOUND)
		return error_set(err, ENOENT, "%s cannot be run at %s: install it there or name its path (%s)",
				 s->program, s->host, words);
	return error_set(err, number, "%s at %s ended with status %d: %s", s->program, s->host, status, words);
}

static ssize_t ssh_read(struct channel *c, void *data, size_t length, struct error *err)
{
	ssize_t n = channel_plain_read(c, data, length, err);
	int r;

	if (n > 0 || n == -EAGAIN)
		return n;
	r = explain_end(c, err);
	return r < 0 ? r : n;
}

static int ssh_write(struct channel *c, const struct iovec *iov, int n_iov, struct error *err)
{
	int r = channel_plain_write(c, iov, n_iov, err);
	int why = r == -ECONNRESET ? explain_end(c, err) : 0;

	return why < 0 ? why : r;
}

static void ssh_release(struct channel *c)
{
	struct ssh_child *s = TAKE_PTR(c->ssh);

	process_free(&s->process);
	close_fd(&s->stderr_fd);
	free(s);
}

static const struct channel_ops ssh_ops = {
	.read = ssh_read,
	.write = ssh_write,
	.pending = channel_plain_pending,
	.finish = channel_plain_finish,
	.release = ssh_release,
};

/* One word for the remote user's shell, which ssh cannot avoid: quoted unless it is plainly harmless. */
static int quote_word(const char *word, char *text, size_t size)
{
	static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+";
	size_t n = 0;

	if (*word && strspn(word, safe) == strlen(word))
		return (size_t)snprintf(text, size, "%s", word) < size ? 0 : -ENAMETOOLONG;
	text[n++] = '\'';
	for (const char *p = word; *p; p++) {
		int w = snprintf(text + n, size - n, *p == '\'' ? "'\\''" : "%c", *p);

		if (w < 0 || (size_t)w + 2 >= size - n)
			return -ENAMETOOLONG;
		n += (size_t)w;
	}
	text[n++] = '\'';
	text[n] = 0;
	return 0;
}

struct ssh_command {
	const char *argv[ARGUMENTS_MAX];
	size_t n;
	char program[1024]; /* PHAUL_SSH, cut at its spaces */
	char port[8];
	char destination[330];
	char remote[512];
	char route[ROUTE_HEX_BYTES + 1];
};

static void add_argument(struct ssh_command *k, const char *text)
{
	if (k->n < ARGUMENTS_MAX - 1)
		k->argv[k->n++] = text;
}

static int make_command(struct ssh_command *k, const struct endpoint *e, const struct dial_options *options,
			const uint8_t *route, struct error *err)
{
	const char *program = getenv("PHAUL_SSH");
	char *save = NULL;

	if ((size_t)snprintf(k->program, sizeof(k->program), "%s", program && *program ? program : "ssh") >=
	    sizeof(k->program))
		return error_set(err, EINVAL, "PHAUL_SSH is too long");
	for (char *word = strtok_r(k->program, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		if (k->n == ARGUMENTS_MAX - 20)
			return error_set(err, EINVAL, "PHAUL_SSH has too many words");
		add_argument(k, word);
	}
	if (!k->n)
		return error_set(err, EINVAL, "PHAUL_SSH names no program");
	if (quote_word(options->remote_phaul ? options->remote_phaul : "phaul", k->remote, sizeof(k->remote)) < 0)
		return error_set(err, EINVAL, "the path of phaul at %s is too long", e->host);
	/* No agent and no X11 for the target: it gets the migration and nothing else. */
	add_argument(k, "-T");
	add_argument(k, "-a");
	add_argument(k, "-x");
	add_argument(k, "-o");
	add_argument(k, "BatchMode=yes");
	if (e->port) {
		snprintf(k->port, sizeof(k->port), "%u", e->port);
		add_argument(k, "-p");
		add_argument(k, k->port);
	}
	snprintf(k->destination, sizeof(k->destination), "%s%s%s", e->user, e->user[0] ? "@" : "", e->host);
	add_argument(k, k->destination);
	add_argument(k, "--");
	add_argument(k, k->remote);
	add_argument(k, "receive");
	if (route) {
		route_format(route, k->route);
		add_argument(k, "--join");
		add_argument(k, k->route);
	}
	return 0;
}

static struct ssh_child *child_new(const struct endpoint *e, const struct dial_options *options)
{
	struct ssh_child *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->process = PROCESS_NONE;
	s->stderr_fd = memfd_create("ssh-stderr", MFD_CLOEXEC);
	snprintf(s->host, sizeof(s->host), "%s", e->host);
	snprintf(s->program, sizeof(s->program), "%s", options->remote_phaul ? options->remote_phaul : "phaul");
	if (s->stderr_fd >= 0)
		return s;
	free(s);
	return NULL;
}

/* Starts ssh between two socketpairs; the channel has the other ends and owns the process. */
static int start(const struct ssh_command *k, struct ssh_child *s, struct channel **ret, struct error *err)
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, r;
	struct process_options o = { .argv = k->argv, .stderr_fd = s->stderr_fd, .new_session = true };
	char name[340];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, out) < 0) {
		r = error_errno(err, errno, "cannot make the sockets for ssh");
		goto finish;
	}
	o.stdin_fd = in[1];
	o.stdout_fd = out[1];
	shutdown(in[1], SHUT_WR);
	shutdown(out[0], SHUT_WR);
	r = process_start(&o, &s->process, err);
	if (r < 0)
		goto finish;
	snprintf(name, sizeof(name), "%s (over ssh)", s->host);
	r = channel_new_plain(out[0], in[0], name, ret, err);
	out[0] = in[0] = -1;
finish:
	close_fd(&in[0]);
	close_fd(&in[1]);
	close_fd(&out[0]);
	close_fd(&out[1]);
	return r;
}

static int await_greeting(struct channel *c, const struct dial_options *options, struct error *err)
{
	char greeting[PHAUL_GREETING_BYTES + 1] = "", text[STDERR_TAIL];
	int r = channel_read(c, greeting, PHAUL_GREETING_BYTES, err);

	if (r == -ETIMEDOUT)
		return error_set(err, ETIMEDOUT, "%s did not start %s within %.1f s (ssh said: %s)", c->ssh->host,
				 c->ssh->program, (double)options->timeout_ms / 1000, last_words(c->ssh, text));
	if (r == -ECONNRESET && !c->ssh->process.pid && c->ssh->process.status == 0)
		return error_set(err, EPROTO, "%s at %s ended without a word: is it phaul?", c->ssh->program,
				 c->ssh->host);
	if (r < 0)
		return r;
	if (memcmp(greeting, PHAUL_GREETING, PHAUL_GREETING_BYTES) != 0)
		return error_set(err, EPROTO,
				 "%s answers '%s' in place of phaul's greeting: does a login script there print "
				 "something?",
				 c->ssh->host, greeting);
	c->ssh->greeted = true;
	return 0;
}

int dial_ssh(const struct endpoint *e, const struct dial_options *options, const uint8_t *route, struct channel **ret,
	     struct error *err)
{
	_cleanup_channel_ struct channel *c = NULL;
	uint64_t deadline = deadline_in_ms(options->timeout_ms);
	struct ssh_command k = { .n = 0 };
	struct ssh_child *s;
	int r = make_command(&k, e, options, route, err);

	if (r < 0)
		return r;
	s = child_new(e, options);
	if (!s)
		return error_set(err, ENOMEM, "no memory for ssh to %s", e->host);
	r = start(&k, s, &c, err);
	if (r < 0) {
		process_free(&s->process);
		close_fd(&s->stderr_fd);
		free(s);
		return r;
	}
	c->ssh = s;
	c->ops = &ssh_ops;
	c->deadline_ns = deadline;
	c->cancel_fd = options->cancel_fd;
	r = await_greeting(c, options, err);
	if (r < 0)
		return r;
	c->deadline_ns = DEADLINE_NEVER;
	c->cancel_fd = -1;
	*ret = TAKE_PTR(c);
	return 0;
}
