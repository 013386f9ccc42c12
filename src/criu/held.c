/*
 * A CRIU that an engine starts, held by its configuration: see held.h.
 *
 * Invariants: CRIU gets the inventory only after every other image lies beside it; it gets the byte that lets the tasks run at most once, and only
 * from criu_held_resume(). `engine` is our child and always waited for.
 * Threads: the caller's.
 */
#include "criu/held.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/log.h"
#include "criu/breakpoints.h"
#include "criu/job.h"
#include "criu/preload/protocol.h"

#define INVENTORY "inventory.img"
#define INVENTORY_MAX 65536 /* fits into a pipe, so that writing never waits; real ones have some hundred bytes */
#define RESUME_MS 60000
#define ABORT_MS 30000
#define BEREFT_MS 3000 /* for what a CRIU without tasks still has to undo */
#define CLEAR_MS                                                                                                       \
	10000 /* for what an engine does after its CRIU has failed; one that lost a part of itself waits for ever */
#define WORD_MAX 128
#define SETTINGS_MAX 65536

struct criu_held {
	char images[PATH_MAX], work[PATH_MAX], directory[PATH_MAX], view[PATH_MAX], config[PATH_MAX], words[PATH_MAX];
	char log[PATH_MAX], preload_status[PATH_MAX];
	char preload[PRELOAD_HELD_MAX][PATH_MAX + 64];
	const char *environment[PRELOAD_HELD_MAX + 1];
	struct process engine;
	int listen_fd, pipe_fd, watch_fd, hook_fd, criu_pidfd, root_pidfd;
	int breakpoints_fd; /* see breakpoints.h */
	pid_t criu_pid;
	bool held, released, running, over;
};

const char *criu_held_config(const struct criu_held *h)
{
	return h->config;
}

const char *criu_held_view(const struct criu_held *h)
{
	return h->view;
}

const char *const *criu_held_environment(const struct criu_held *h)
{
	return h->environment;
}

static int write_config(struct criu_held *h, const struct criu_options *o, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	int r = buffer_printf(&text,
			      "# phaul: a restore that is held\nimages-dir %s\nwork-dir %s\nlog-file restore.log\n"
			      "verbosity=%d\naction-script %s/hook\n",
			      h->view, h->work, log_in_detail() ? CRIU_LOG_DEBUG : CRIU_LOG_WARNING, h->directory);

#define FLAG(wanted, name) (r ? r : (wanted) ? buffer_printf(&text, "%s\n", name) : 0)
	r = FLAG(!o->full_memory, "lazy-pages");
	r = FLAG(o->tcp_established, "tcp-established");
	r = FLAG(o->file_locks, "file-locks");
	r = FLAG(o->shell_job, "shell-job");
	r = FLAG(o->link_remap, "link-remap");
	r = FLAG(o->ext_unix_sk, "ext-unix-sk");
	r = FLAG(!o->manage_cgroups, "manage-cgroups=ignore");
#undef FLAG
	if (!r && o->ghost_limit_bytes)
		r = buffer_printf(&text, "ghost-limit %llu\n", (unsigned long long)o->ghost_limit_bytes);
	if (!r)
		r = fd_write_file(AT_FDCWD, h->config, text.data, text.length, 0600);
	return r < 0 ? error_errno(err, -r, "cannot write %s", h->config) : 0;
}

static int write_settings(struct criu_held *h, const struct criu_options *o, struct error *err)
{
	char path[PATH_MAX + 32];
	int r;

	snprintf(path, sizeof(path), "%s/" HOOK_SETTINGS, h->directory);
	r = fd_write_file(AT_FDCWD, path, o->net_settings, o->net_settings_length, 0600);
	return r < 0 ? error_errno(err, -r, "cannot write %s", path) : 0;
}

/* The namespace is there, the sockets are: a warning is all that is left. */
static void tell_settings_failed(const struct criu_held *h)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/" HOOK_SETTINGS_FAILED, h->directory);
	if (fd_read_file(AT_FDCWD, path, SETTINGS_MAX, &text) < 0 || !text.length)
		return;
	for (char *save = NULL, *line = strtok_r((char *)text.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		log_warning("the container's network cannot have its setting net/%s here", line);
}

static int make_pipe(struct criu_held *h, struct error *err)
{
	char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/" INVENTORY, h->view);
	if (mkfifo(path, 0600) < 0)
		return error_errno(err, errno, "cannot make the pipe %s", path);
	/* Both ways, so that neither our opening nor CRIU's waits for the other. */
	h->pipe_fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	h->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (h->pipe_fd < 0 || h->watch_fd < 0 || inotify_add_watch(h->watch_fd, path, IN_OPEN) < 0)
		return error_errno(err, errno, "cannot watch the pipe %s", path);
	return 0;
}

static int make_hook(struct criu_held *h, struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char program[PATH_MAX], link[PATH_MAX + 32];

	if (!installed_find("phaul-criu-hook", program, sizeof(program)))
		return error_set(err, ENOENT, "phaul-criu-hook, a part of phaul, is not installed (%s)",
				 PHAUL_LIBRARY_DIRECTORY);
	snprintf(link, sizeof(link), "%s/hook", h->directory);
	if (symlink(program, link) < 0)
		return error_errno(err, errno, "cannot make %s", link);
	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/" HOOK_SOCKET, h->directory) >=
	    (int)sizeof(address.sun_path))
		return error_set(err, ENAMETOOLONG, "the path %s is too long for a socket", h->directory);
	h->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (h->listen_fd < 0 || bind(h->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(h->listen_fd, 4) < 0)
		return error_errno(err, errno, "cannot listen on %s", address.sun_path);
	return 0;
}

int criu_held_new(const struct criu_options *options, struct criu_held **ret, struct error *err)
{
	struct criu_held *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return error_set(err, ENOMEM, "no memory to hold a restore");
	h->engine = PROCESS_NONE;
	h->listen_fd = h->pipe_fd = h->watch_fd = h->hook_fd = h->criu_pidfd = h->root_pidfd = -1;
	h->breakpoints_fd = breakpoints_prepare();
	snprintf(h->images, sizeof(h->images), "%s", options->images_directory);
	snprintf(h->work, sizeof(h->work), "%s", options->work_directory);
	snprintf(h->directory, sizeof(h->directory), "%.*s/engine", PATH_MAX - 64, options->work_directory);
	snprintf(h->view, sizeof(h->view), "%.*s.view", PATH_MAX - 32, options->images_directory);
	snprintf(h->config, sizeof(h->config), "%.*s/criu.conf", PATH_MAX - 32, h->directory);
	snprintf(h->log, sizeof(h->log), "%.*s/restore.log", PATH_MAX - 32, h->work);
	snprintf(h->preload_status, sizeof(h->preload_status), "%.*s/" PRELOAD_STATUS_NAME, PATH_MAX - 32, h->work);
	for (size_t i = 0, n = preload_held(h->preload_status, h->preload); i < n; i++)
		h->environment[i] = h->preload[i];
	r = dir_make(h->directory, 0700);
	if (!r)
		r = dir_make(h->view, 0700);
	if (r < 0)
		r = error_errno(err, -r, "cannot make %s", h->view);
	if (!r)
		r = make_pipe(h, err);
	if (!r)
		r = make_hook(h, err);
	if (!r)
		r = write_config(h, options, err);
	if (!r && options->net_settings)
		r = write_settings(h, options, err);
	if (r < 0) {
		criu_held_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

/* The first line that the engine said: what follows is what came of it. */
static void first_words(const struct criu_held *h, char *text, size_t size)
{
	_cleanup_fclose_ FILE *f = fopen(h->words, "re");
	char line[512];

	text[0] = 0;
	while (f && !text[0] && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		snprintf(text, size, "%s", line);
	}
}

/* The engine's restore ended too early, or CRIU's did. The log of CRIU says more than the engine. */
static int failed(struct criu_held *h, const char *what, struct error *err)
{
	char reason[ERROR_TEXT_MAX / 2] = "";

	criu_first_error(h->log, reason, sizeof(reason));
	if (!reason[0])
		first_words(h, reason, sizeof(reason));
	return error_set(err, ECHILD, "the engine could not %s: %s (logs: %.200s, %.200s)", what,
			 reason[0] ? reason : "it gave no reason", h->words, h->log);
}

/* Whether the engine's child has ended; waits for nothing. */
static bool engine_ended(struct criu_held *h)
{
	return !h->engine.pid || process_wait(&h->engine, clock_now_ns()) == 1;
}

int criu_held_await(struct criu_held *h, struct process *engine, const char *words, uint64_t deadline_ns, int cancel_fd,
		    struct error *err)
{
	h->engine = *engine;
	*engine = PROCESS_NONE;
	snprintf(h->words, sizeof(h->words), "%s", words);
	for (;;) {
		struct pollfd p[3] = { { .fd = h->watch_fd, .events = POLLIN },
				       { .fd = h->engine.pidfd, .events = POLLIN },
				       { .fd = cancel_fd, .events = POLLIN } };
		int n = poll(p, ARRAY_SIZE(p), deadline_poll_ms(deadline_ns));

		if (n < 0 && errno != EINTR)
			return error_errno(err, errno, "cannot wait for the engine");
		if (n == 0)
			return error_set(err, ETIMEDOUT,
					 "the engine did not come to the restore in time (its words: %s)", h->words);
		if (p[0].revents)
			return 0;
		if (p[1].revents && engine_ended(h))
			return failed(h, "begin the restore", err);
		if (p[2].revents)
			return error_set(err, ECANCELED, "canceled while the engine prepared the restore");
	}
}

/* Every image but the inventory, beside the pipe. Not by symbolic links: restored tasks open them too, from within other roots. */
static int link_images(struct criu_held *h, struct error *err)
{
	_cleanup_closedir_ DIR *d = opendir(h->images);
	struct dirent *e;

	if (!d)
		return error_errno(err, errno, "cannot read %s", h->images);
	while ((e = readdir(d))) {
		char from[PATH_MAX + 300], to[PATH_MAX + 300];

		if (e->d_name[0] == '.' || !strcmp(e->d_name, INVENTORY))
			continue;
		snprintf(from, sizeof(from), "%s/%s", h->images, e->d_name);
		snprintf(to, sizeof(to), "%s/%s", h->view, e->d_name);
		if (link(from, to) < 0 && errno != EEXIST)
			return error_errno(err, errno, "cannot link %s to %s", from, to);
	}
	return 0;
}

static int give_inventory(struct criu_held *h, struct error *err)
{
	_cleanup_buffer_ struct buffer inventory = { 0 };
	char path[PATH_MAX + 32];
	int r;

	snprintf(path, sizeof(path), "%s/" INVENTORY, h->images);
	r = fd_read_file(AT_FDCWD, path, INVENTORY_MAX, &inventory);
	if (!r)
		r = fd_write_full(h->pipe_fd, inventory.data, inventory.length);
	if (r < 0)
		return error_errno(err, -r, "cannot hand CRIU its inventory %s", path);
	close_fd(&h->pipe_fd);
	return 0;
}

/* One hook's word. 1: it came, 0: nothing yet. */
static int take_word(struct criu_held *h, char *stage, pid_t *ret_root)
{
	_cleanup_close_ int fd = accept4(h->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	char text[WORD_MAX];
	int criu = 0, root = 0;
	ssize_t n;

	if (fd < 0)
		return 0;
	/* The hook speaks as soon as it is connected. */
	if (fd_wait(fd, POLLIN, deadline_in_ms(5000)) <= 0)
		return 0;
	n = recv(fd, text, sizeof(text) - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = 0;
	if (sscanf(text, "%31s %d %d", stage, &root, &criu) != 3)
		return 0;
	log_debug("the engine's CRIU (%d) is at %s, root task %d", criu, stage, root);
	if (h->criu_pidfd < 0 && criu > 0) {
		h->criu_pid = criu;
		h->criu_pidfd = (int)syscall(SYS_pidfd_open, criu, 0);
	}
	*ret_root = root;
	if (!strcmp(stage, HOOK_STAGE_HELD))
		h->hook_fd = TAKE_FD(fd);
	return 1;
}

/* Until a hook names that stage. -ECHILD: the engine or CRIU ended. */
static int await_stage(struct criu_held *h, const char *wanted, uint64_t deadline_ns, int cancel_fd, pid_t *ret_root)
{
	for (;;) {
		struct pollfd p[4] = { { .fd = h->listen_fd, .events = POLLIN },
				       { .fd = h->engine.pidfd, .events = POLLIN },
				       { .fd = cancel_fd, .events = POLLIN },
				       { .fd = h->criu_pidfd, .events = POLLIN } };
		int n = poll(p, ARRAY_SIZE(p), deadline_poll_ms(deadline_ns));
		char stage[32] = "";

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -ETIMEDOUT;
		if (p[0].revents && take_word(h, stage, ret_root)) {
			h->released |= !strcmp(stage, HOOK_STAGE_RELEASED) || !strcmp(stage, HOOK_STAGE_RUNNING);
			if (!strcmp(stage, wanted))
				return 0;
		} else if (p[1].revents && engine_ended(h)) {
			return -ECHILD;
		} else if (p[3].revents && !p[0].revents) {
			return -ECHILD;
		} else if (p[2].revents) {
			return -ECANCELED;
		}
	}
}

int criu_held_restore(struct criu_held *h, int cancel_fd, pid_t *ret_pid, struct error *err)
{
	struct error ignored = { 0 };
	pid_t root = 0;
	int r;

	if (engine_ended(h))
		return failed(h, "wait for the images", err);
	r = link_images(h, err);
	if (!r)
		r = give_inventory(h, err);
	if (r < 0)
		return r;
	r = await_stage(h, HOOK_STAGE_HELD, DEADLINE_NEVER, cancel_fd, &root);
	if (r == -ECANCELED) {
		(void)criu_held_abort(h, &ignored);
		return error_set(err, ECANCELED, "the restore was canceled; nothing of it is left");
	}
	if (r == -ECHILD)
		process_wait(&h->engine, deadline_in_ms(ABORT_MS)); /* its last words */
	if (r < 0)
		return r == -ECHILD ? failed(h, "restore the container", err)
				    : error_errno(err, -r, "cannot wait for the engine's CRIU");
	if (root <= 0)
		return error_set(err, EPROTO, "the engine's CRIU did not say which task is the root");
	h->root_pidfd = (int)syscall(SYS_pidfd_open, root, 0);
	h->held = true;
	*ret_pid = root;
	return 0;
}

int criu_held_resume(struct criu_held *h, struct error *err)
{
	const char go = HOOK_GO;
	pid_t root;
	int r;

	if (h->running)
		return 0;
	if (!h->held || h->over)
		return error_set(err, EINVAL, "the restored container cannot be resumed: it is not held");
	if (send(h->hook_fd, &go, 1, MSG_NOSIGNAL) != 1)
		return error_errno(err, errno, "the engine's CRIU does not wait any more");
	close_fd(&h->hook_fd);
	r = await_stage(h, HOOK_STAGE_RUNNING, deadline_in_ms(RESUME_MS), -1, &root);
	/* A CRIU that ended after it let them go has done its work. */
	if (r < 0 && h->released && h->root_pidfd >= 0 && fd_wait(h->root_pidfd, POLLIN, 0) == 0) {
		log_warning("CRIU ended early, but the restored tasks run");
		r = 0;
	}
	if (r < 0)
		return failed(h, "resume the restored container", err);
	h->running = true;
	return 0;
}

int criu_held_finish(struct criu_held *h, struct error *err)
{
	char did[256];

	if (h->over)
		return 0;
	preload_actions(h->preload_status, did, sizeof(did));
	tell_settings_failed(h);
	log_info("the engine's CRIU was helped with: %s", did[0] ? did : "nothing");
	if (h->engine.pid && process_wait(&h->engine, deadline_in_ms(RESUME_MS)) == 0)
		return error_set(err, ETIMEDOUT, "the engine has not finished its restore after %d s (its words: %s)",
				 RESUME_MS / 1000, h->words);
	h->over = true;
	if (WIFEXITED(h->engine.status) && !WEXITSTATUS(h->engine.status))
		return 0;
	(void)failed(h, "finish the restore", err);
	if (h->root_pidfd < 0 || fd_wait(h->root_pidfd, POLLIN, 0) != 0)
		return -ECHILD;
	log_warning("the workload runs, but %s", err ? err->text : "the engine did not finish");
	return 0;
}

/* Until CRIU ends. Not for long once its root task has: after it stopped to look for tasks that die (ignore_kids() in cr-restore.c), and somebody else
 * kills them, it waits for them for ever. */
static bool criu_gives_up(const struct criu_held *h)
{
	struct pollfd p[2] = { { .fd = h->criu_pidfd, .events = POLLIN }, { .fd = h->root_pidfd, .events = POLLIN } };
	uint64_t deadline = deadline_in_ms(ABORT_MS);
	int n;

	do {
		n = poll(p, ARRAY_SIZE(p), deadline_poll_ms(deadline));
	} while (n < 0 && errno == EINTR);
	return p[0].revents || (n > 0 && fd_wait(h->criu_pidfd, POLLIN, deadline_in_ms(BEREFT_MS)) == 1);
}

int criu_held_abort(struct criu_held *h, struct error *err)
{
	int ms = h->criu_pidfd >= 0 ? CLEAR_MS : ABORT_MS;

	if (h->over)
		return 0;
	if (h->running)
		return error_set(err, EINVAL, "the restored container cannot be undone: it runs already");
	/* An empty inventory, and a hook that hears nothing, both make CRIU fail. */
	close_fd(&h->pipe_fd);
	close_fd(&h->hook_fd);
	close_fd(&h->listen_fd);
	if (h->criu_pidfd >= 0 && !criu_gives_up(h)) {
		log_warning("the engine's CRIU does not give up its restore and is killed");
		syscall(SYS_pidfd_send_signal, h->criu_pidfd, SIGKILL, NULL, 0);
	}
	if (h->engine.pid && process_wait(&h->engine, deadline_in_ms(ms)) == 0) {
		log_warning("the engine did not give up its restore within %d s and is killed", ms / 1000);
		process_kill(&h->engine);
	}
	/* A CRIU that was killed has undone nothing, and its hold is gone. A container's first process takes all others along. */
	if (h->root_pidfd >= 0 && !h->released) {
		syscall(SYS_pidfd_send_signal, h->root_pidfd, SIGKILL, NULL, 0);
		fd_wait(h->root_pidfd, POLLIN, deadline_in_ms(ABORT_MS));
	}
	h->over = true;
	h->held = false;
	(void)err;
	return 0;
}

bool criu_held_alive(const struct criu_held *h)
{
	return h->held && h->criu_pidfd >= 0 && fd_wait(h->criu_pidfd, POLLIN, 0) == 0 && h->engine.pid &&
	       fd_wait(h->engine.pidfd, POLLIN, 0) == 0;
}

bool criu_held_released(const struct criu_held *h)
{
	return h->released;
}

pid_t criu_held_program_pid(const struct criu_held *h)
{
	return h->criu_pid;
}

void criu_held_free(struct criu_held *h)
{
	struct error ignored = { 0 };

	if (!h)
		return;
	if (!h->running)
		(void)criu_held_abort(h, &ignored);
	close_fd(&h->listen_fd);
	close_fd(&h->pipe_fd);
	close_fd(&h->watch_fd);
	close_fd(&h->hook_fd);
	close_fd(&h->criu_pidfd);
	close_fd(&h->root_pidfd);
	close_fd(&h->breakpoints_fd);
	process_free(&h->engine);
	free(h);
}
