/*
 * The client's side of the pager: see pager.h. One thread at a time per struct pager.
 *
 * Everything there is to know stands in the shared state; the control socket wakes either side, and its end
 * tells that the other one is gone.
 */
#include "memory/pager.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/process.h"
#include "memory/pager-internal.h"
#include "memory/pager-state.h"
#include "memory/space.h"

#define START_TIMEOUT_MS 10000
#define END_TIMEOUT_MS 5000
#define ADOPTED_LOOK_MS 20

/* Binds in the directory by descriptor, because a socket's path is limited to 107 bytes and a work directory's is not. */
static int listen_at(struct pager *p, const char *path, struct error *err)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	_cleanup_free_ char *directory = slash ? strndup(path, MAX((size_t)(slash - path), 1)) : strdup(".");
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (!directory || fd < 0)
		return error_errno(err, directory ? errno : ENOMEM, "cannot make the socket %s", path);
	p->directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (p->directory_fd < 0)
		return error_errno(err, errno, "cannot open %s for the pager's socket", directory);
	if (!*name || strlen(name) >= sizeof(p->socket_name) ||
	    (size_t)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", p->directory_fd,
			     name) >= sizeof(address.sun_path))
		return error_set(err, EINVAL, "%s cannot be the name of the pager's socket", path);
	memcpy(p->socket_name, name, strlen(name) + 1);
	unlinkat(p->directory_fd, name, 0);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4) < 0)
		return error_errno(err, errno, "cannot listen on %s", path);
	p->listen_fd = TAKE_FD(fd);
	return 0;
}

/* Where they are then; 0: no room. */
static uint64_t put_ranges(struct pager_state *s, const struct range_set *set)
{
	size_t bytes = set->n_ranges * sizeof(struct range);
	uint64_t at = pager_state_alloc(s, bytes);

	if (at && bytes)
		memcpy(state_at(s, at), set->ranges, bytes);
	return at;
}

/* What the client knows, written down for the pager. */
static int describe(struct pager_state *s, const struct pager_space *spaces, size_t n_spaces, struct error *err)
{
	s->n_spaces = (uint32_t)n_spaces;
	s->spaces_offset = pager_state_alloc(s, n_spaces * sizeof(struct pager_space_state));
	for (size_t i = 0; i < n_spaces && s->spaces_offset; i++) {
		const struct range_set *present = spaces[i].present;
		uint64_t at = put_ranges(s, present);

		if (!range_array_valid(present->ranges, present->n_ranges, PAGE_BYTES) ||
		    (present->n_ranges && (present->ranges[present->n_ranges - 1].end > SPACE_ADDRESS_MAX)))
			return error_set(err, EINVAL, "the present map of space %u is malformed", spaces[i].space);
		if (!at)
			return error_set(err, ENOMEM, "too many ranges of memory for the pager");
		*state_space(s, (uint32_t)i) = (struct pager_space_state){
			.space = spaces[i].space,
			.image_pid = spaces[i].image_pid,
			.store_fd = spaces[i].store_fd < 0 ? -1 : 0,
			.present_offset = at,
			.n_present = present->n_ranges,
		};
		if (spaces[i].busy)
			pager_urgent_describe(s, state_space(s, (uint32_t)i), present, spaces[i].busy);
		if (spaces[i].missing && pager_missing_describe(s, state_space(s, (uint32_t)i), spaces[i].missing) < 0)
			return error_set(err, ENOMEM, "too many ranges of memory are still at the source");
	}
	return s->spaces_offset ? 0 : error_set(err, ENOMEM, "too many processes for the pager");
}

/* The supervisor's stderr: pager.log beside the socket, for it outlives us. */
static int open_log(const struct pager *p)
{
	return openat(p->directory_fd, "pager.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static int start_supervisor(struct pager *p, struct error *err)
{
	static const char *const argv[] = { "/proc/self/exe", "pager", "3", NULL };
	_cleanup_close_ int log_fd = open_log(p), theirs = -1;
	struct process_options o = { .argv = argv,
				     .stdin_fd = -1,
				     .stdout_fd = -1,
				     .stderr_fd = log_fd,
				     .child_fds = { 3 },
				     .n_fds = 1,
				     .new_session = true };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, errno, "cannot make the pager's control socket");
	p->control_fd = pair[0];
	theirs = pair[1];
	o.source_fds[0] = theirs;
	return process_start(&o, &p->supervisor, err);
}

static int send_all(struct pager *p, const struct pager_space *spaces, size_t n_spaces)
{
	int fds[PAGER_FDS_PER_MESSAGE] = { p->state_fd, p->listen_fd, p->request_fd, p->arrival_fd };
	size_t n = 0;
	int r = fd_send_fds(p->control_fd, "s", 1, fds, 4);

	for (size_t i = 0; i < n_spaces && !r; i++) {
		if (spaces[i].store_fd >= 0)
			fds[n++] = spaces[i].store_fd;
		if (n == PAGER_FDS_PER_MESSAGE) {
			r = fd_send_fds(p->control_fd, "f", 1, fds, n);
			n = 0;
		}
	}
	if (!r && n)
		r = fd_send_fds(p->control_fd, "f", 1, fds, n);
	return r;
}

static int await_supervisor(struct pager *p)
{
	int r = fd_wait(p->control_fd, POLLIN, deadline_in_ms(START_TIMEOUT_MS));
	char byte;

	if (r <= 0)
		return r ? r : -ETIMEDOUT;
	return fd_read_full(p->control_fd, &byte, 1);
}

int pager_prepare(const char *socket_path, struct pager **ret, struct error *err)
{
	struct pager *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return error_set(err, ENOMEM, "no memory for the pager");
	p->supervisor = PROCESS_NONE;
	p->control_fd = p->state_fd = p->directory_fd = p->listen_fd = -1;
	p->request_fd = p->arrival_fd = -1;
	r = pager_state_new(&p->state_fd, &p->state, err);
	if (!r)
		r = listen_at(p, socket_path, err);
	if (!r)
		r = start_supervisor(p, err);
	if (r < 0) {
		pager_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

int pager_start(struct pager *p, const struct pager_space *spaces, size_t n_spaces, struct error *err)
{
	int r = n_spaces > SPACES_MAX ? error_set(err, EINVAL, "%zu processes are too many for the pager", n_spaces)
				      : describe(p->state, spaces, n_spaces, err);

	if (!r)
		r = pager_remote_open(p, spaces, n_spaces, err);
	if (r < 0)
		return r;
	r = send_all(p, spaces, n_spaces);
	if (!r)
		r = await_supervisor(p);
	close_fd(&p->listen_fd);
	return r < 0 ? error_errno(err, -r, "the pager did not start; pager.log beside %s may say why", p->socket_name)
		     : 0;
}

static int wake_pager(struct pager *p)
{
	return send(p->control_fd, "!", 1, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

void pager_fill(struct pager *p)
{
	p->state->filling = 1;
	wake_pager(p);
}

void pager_keep(struct pager *p)
{
	p->state->kept = 1;
}

int pager_release(struct pager *p, struct error *err)
{
	int r;

	p->state->filling = p->state->released = 1;
	r = wake_pager(p);
	return r < 0 && !p->state->finished ? error_errno(err, -r, "the pager is gone") : 0;
}

/* Takes what the supervisor said off the socket; notices its end. */
static void hear_supervisor(struct pager *p)
{
	char bytes[64];
	ssize_t n;

	if (p->adopted) {
		p->gone = pager_processes_gone(p);
		return;
	}
	do {
		n = recv(p->control_fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	} while (n > 0 || (n < 0 && errno == EINTR));
	if (!n || (n < 0 && errno != EAGAIN))
		p->gone = true;
}

/* 1 finished, 0 at work, negative: failed. */
static int pager_outcome(struct pager *p, struct error *err)
{
	hear_supervisor(p);
	if (p->state->finished)
		return 1;
	if (p->state->failed)
		return error_set(err, p->state->failed, "%s", p->state->failure);
	if (p->gone)
		return error_set(err, EPIPE, "the pager ended before its work was done");
	return 0;
}

int pager_status(struct pager *p, struct pager_status *ret, struct error *err)
{
	const struct pager_state *s = p->state;
	int r = pager_outcome(p, NULL);

	(void)err;
	*ret = (struct pager_status){
		.connected = s->connected,
		.finished = s->finished,
		.faults = s->faults,
		.pages_copied = s->pages_copied,
		.pages_zero = s->pages_zero,
		.pages_left = s->pages_left,
		.replaced = s->replaced,
		.fault_ns_max = s->fault_ns_max,
		.fault_ns_p50 = pager_latency_quantile(s->latencies[0], 0.5),
		.fault_ns_p99 = pager_latency_quantile(s->latencies[0], 0.99),
		.faults_remote = s->faults_remote,
		.remote_ns_p50 = pager_latency_quantile(s->latencies[1], 0.5),
		.remote_ns_p99 = pager_latency_quantile(s->latencies[1], 0.99),
		.failed = r < 0 ? -r : 0,
	};
	return 0;
}

int pager_wait(struct pager *p, uint64_t deadline_ns, struct error *err)
{
	for (;;) {
		int r = pager_outcome(p, err);

		if (r)
			return r;
		r = p->adopted ? fd_wait(-1, 0, MIN(deadline_ns, deadline_in_ms(ADOPTED_LOOK_MS)))
			       : fd_wait(p->control_fd, POLLIN, deadline_ns);
		if (r < 0)
			return error_errno(err, -r, "cannot wait for the pager");
		if (!r && clock_now_ns() >= deadline_ns)
			return 0;
	}
}

/* The end of the socket tells both to end; what does not listen is killed. */
static void pager_end(struct pager *p)
{
	pid_t pager = p->state ? p->state->pager_pid : 0;

	if (p->state)
		p->state->kept = 0;
	close_fd(&p->control_fd);
	if (p->supervisor.pid && process_wait(&p->supervisor, deadline_in_ms(END_TIMEOUT_MS)) == 1)
		return;
	process_kill(&p->supervisor);
	if (pager > 0)
		kill(pager, SIGKILL);
}

static void release_handle(struct pager *p)
{
	/* What runs on for the sake of the workload is nobody's child to kill. */
	p->supervisor.pid = 0;
	process_free(&p->supervisor);
	close_fd(&p->control_fd);
	close_fd(&p->directory_fd);
	close_fd(&p->listen_fd);
	close_fd(&p->state_fd);
	pager_remote_close(p);
	pager_state_unmap(p->state);
	free(p);
}

void pager_leave(struct pager *p)
{
	if (p)
		release_handle(p);
}

void pager_free(struct pager *p)
{
	if (!p)
		return;
	if (!p->state || !p->state->released) {
		pager_end(p);
	} else if (p->state->finished && p->supervisor.pid) {
		process_wait(&p->supervisor, deadline_in_ms(END_TIMEOUT_MS));
	}
	if (p->socket_name[0])
		unlinkat(p->directory_fd, p->socket_name, 0);
	release_handle(p);
}

pid_t pager_pid(struct pager *p)
{
	return p->state->pager_pid;
}
