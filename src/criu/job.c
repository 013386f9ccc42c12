/*
 * A job: one CRIU child for one dump or restore, from its start to its end.
 *
 * Invariants: the two directories stay open while CRIU may look them up through /proc; a job in JOB_*_HELD has a live
 * CRIU or one whose death has undone the hold; criu_free() from any state leaves no child and no held task.
 * Threads: one per job.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/log.h"
#include "criu/breakpoints.h"
#include "criu/job.h"
#include "criu/preload/protocol.h"

#define START_MS 10000

/* What the child says to VERSION: proves that it is up, linked and new enough. */
static int job_handshake(struct criu_job *job, const char *program, struct error *err)
{
	CriuRpc__Request request = CRIU_RPC__REQUEST__INIT;
	CriuRpc__Response *response;
	int r, version;

	request.type = CRIU_RPC__TYPE__VERSION;
	request.has_keep_open = true;
	request.keep_open = true;
	r = rpc_send(&job->rpc, &request);
	if (!r)
		r = rpc_receive(&job->rpc, -1, deadline_in_ms(START_MS), &response);
	if (r)
		return error_errno(err, -r, "%s does not answer (its messages are in %s)", program, job->errors_path);
	version = response->version ? response->version->major * 10000 + response->version->minor * 100 +
					      response->version->sublevel
				    : 0;
	criu_rpc__response__free_unpacked(response, NULL);
	if (version < CRIU_VERSION_MINIMUM)
		return error_set(err, EPROTONOSUPPORT, "%s is version %d.%d, but 4.1 or newer is needed", program,
				 version / 10000, version / 100 % 100);
	return 0;
}

static int open_directory(const char *path, char *ret_path, const char *what, struct error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char link[64];
	ssize_t n;

	if (fd < 0)
		return error_errno(err, errno, "cannot open CRIU's %s directory %s", what, path);
	/* Absolute, because CRIU and its preloaded library change their directory. */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret_path, PATH_MAX - 64);
	if (n <= 0 || n >= PATH_MAX - 64) {
		close(fd);
		return error_set(err, ENAMETOOLONG, "the path of CRIU's %s directory %s is too long", what, path);
	}
	ret_path[n] = 0;
	return fd;
}

static int copy_options(struct criu_job *job, const struct criu_options *options)
{
	size_t n = 0;

	job->options = *options;
	job->options.hidden_ranges = NULL; /* used at the start only */
	if (options->root && !(job->root = strdup(options->root)))
		return -ENOMEM;
	job->options.root = job->root;
	while (options->external && options->external[n])
		n++;
	job->external = calloc(n + 1, sizeof(*job->external));
	if (!job->external)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (!(job->external[i] = strdup(options->external[i])))
			return -ENOMEM;
	job->options.external = (const char *const *)job->external;
	return 0;
}

static int job_spawn(struct criu_job *job, const char *hidden_ranges, struct error *err)
{
	struct criu_options wanted = job->options;
	_cleanup_free_ struct preload *preload = calloc(1, sizeof(*preload));
	_cleanup_close_ int errors_fd = -1;
	char program[PATH_MAX];
	bool limits;
	int pair[2] = { -1, -1 }, version = 0, r;
	struct rpc_start start = { .program = program, .pages_fd = -1 };

	if (!preload)
		return error_errno(err, ENOMEM, "cannot start CRIU");
	r = criu_find(program, sizeof(program), err);
	if (r < 0)
		return r;
	wanted.hidden_ranges = hidden_ranges;
	if (preload_wanted(&wanted, &limits)) {
		r = criu_version(&version, err);
		if (r < 0)
			return r;
		preload_environment(hidden_ranges, job->preload_status, version, limits, preload);
		job->terse = preload->environment[1] != NULL; /* the library tells the one thing of it that is needed */
	} else {
		preload_environment(NULL, NULL, 0, false, preload);
	}
	start.environment = preload->environment;
	errors_fd = open(job->errors_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (errors_fd < 0)
		return error_errno(err, errno, "cannot create %s", job->errors_path);
	start.stderr_fd = errors_fd;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, errno, "cannot make a socket for CRIU");
	start.pages_fd = pair[1];
	job->pages_fd = pair[0];
	r = rpc_start(&start, &job->rpc, err);
	close(pair[1]);
	if (r < 0)
		return r;
	job->started_ticks = process_start_ticks(job->rpc.process.pid); /* every task it makes is younger */
	return job_handshake(job, program, err);
}

int criu_start(const struct criu_options *options, struct criu_job **ret, struct error *err)
{
	struct criu_job *job = calloc(1, sizeof(*job));
	int r;

	if (!job)
		return error_errno(err, ENOMEM, "cannot start CRIU");
	job->rpc = RPC_NONE;
	job->breakpoints_fd = job->images_fd = job->work_fd = job->pages_fd = job->root_pidfd = -1;
	job->state = JOB_FAILED; /* until the child answers there is nothing to undo */
	r = copy_options(job, options);
	if (r < 0) {
		r = error_errno(err, -r, "cannot start CRIU");
		goto fail;
	}
	r = job->images_fd = open_directory(options->images_directory, job->images_directory, "image", err);
	if (r < 0)
		goto fail;
	r = job->work_fd = open_directory(options->work_directory, job->work_directory, "work", err);
	if (r < 0)
		goto fail;
	snprintf(job->errors_path, sizeof(job->errors_path), "%.*s/criu.stderr", PATH_MAX - 64, job->work_directory);
	snprintf(job->preload_status, sizeof(job->preload_status), "%.*s/" PRELOAD_STATUS_NAME, PATH_MAX - 64,
		 job->work_directory);
	unlink(job->preload_status);
	job->breakpoints_fd = breakpoints_prepare();
	r = job_spawn(job, options->hidden_ranges, err);
	if (r < 0)
		goto fail;
	job->state = JOB_STARTED;
	*ret = job;
	return 0;
fail:
	criu_free(job);
	return r;
}

void job_fill_options(struct criu_job *job, CriuRpc__Options *o)
{
	const struct criu_options *from = &job->options;
	size_t n = 0;

#define SET(field, value)                                                                                              \
	do {                                                                                                           \
		o->has_##field = true;                                                                                 \
		o->field = (value);                                                                                    \
	} while (0)
	o->images_dir_fd = job->images_fd;
	SET(work_dir_fd, job->work_fd);
	SET(log_level, job->terse && !log_in_detail() ? CRIU_LOG_WARNING : CRIU_LOG_DEBUG);
	o->log_file = job->log_name;
	SET(notify_scripts, true);
	SET(shell_job, from->shell_job);
	SET(tcp_established, from->tcp_established);
	SET(file_locks, from->file_locks);
	SET(link_remap, from->link_remap);
	SET(force_irmap, from->force_irmap);
	SET(ext_unix_sk, from->ext_unix_sk);
	if (from->empty_network)
		SET(empty_ns, CLONE_NEWNET);
	SET(lazy_pages, !from->full_memory);
	SET(manage_cgroups_mode, from->manage_cgroups);
	SET(network_lock, CRIU_RPC__NETWORK_LOCK__NFTABLES);
	if (from->ghost_limit_bytes)
		SET(ghost_limit, (uint32_t)MIN(from->ghost_limit_bytes, UINT32_MAX));
	if (from->timeout_s)
		SET(timeout, from->timeout_s);
#undef SET
	while (job->external[n])
		n++;
	o->external = job->external;
	o->n_external = n;
	snprintf(job->log_path, sizeof(job->log_path), "%.*s/%s", PATH_MAX - 64, job->work_directory, job->log_name);
	unlink(job->log_path); /* an older log must not be quoted */
}

int job_write_config(struct criu_job *job, const char *text, char *ret_path, size_t size, struct error *err)
{
	int r = fd_write_file(job->work_fd, "criu.conf", text, strlen(text), 0600);

	if (r < 0)
		return error_errno(err, -r, "cannot write %s/criu.conf", job->work_directory);
	snprintf(ret_path, size, "%.*s/criu.conf", PATH_MAX - 64, job->work_directory);
	return 0;
}

/* The last line of CRIU's stderr: a loader's complaint, an assertion. */
static void last_stderr_line(const struct criu_job *job, char *text, size_t size)
{
	_cleanup_fclose_ FILE *f = fopen(job->errors_path, "re");
	char line[512];

	text[0] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (line[0])
			snprintf(text, size, "%s", line);
	}
}

static bool is_script(const CriuRpc__Response *response, const char *name)
{
	return response->type == CRIU_RPC__TYPE__NOTIFY && response->notify && response->notify->script &&
	       strcmp(response->notify->script, name) == 0;
}

int job_follow(struct criu_job *job, const char *const *before, const char *last, int cancel_fd,
	       void (*seen)(struct criu_job *job, const CriuRpc__Response *response, bool is_refused_end))
{
	uint64_t deadline_ns = DEADLINE_NEVER;
	bool cancelled = false;

	for (;;) {
		CriuRpc__Response *response;
		bool is_notify, is_last, is_before;
		int r = rpc_receive(&job->rpc, cancelled ? -1 : cancel_fd, deadline_ns, &response);

		if (r == -ECANCELED) {
			cancelled = true;
			deadline_ns = deadline_in_ms(CANCEL_MS);
			continue;
		}
		if (r < 0)
			return cancelled && r != -ETIMEDOUT ? -ECANCELED : r;
		is_notify = response->type == CRIU_RPC__TYPE__NOTIFY;
		if (is_notify && response->notify && response->notify->script)
			log_debug("CRIU says %s", response->notify->script);
		is_last = is_script(response, last);
		is_before = false;
		for (const char *const *name = before; name && *name; name++)
			is_before = is_before || is_script(response, *name);
		seen(job, response, is_last && cancelled);
		criu_rpc__response__free_unpacked(response, NULL);
		if ((is_last || is_before) && !cancelled)
			return is_last ? 1 : 2;
		if (!is_notify)
			return cancelled ? -ECANCELED : 0;
		r = rpc_notify(&job->rpc, !cancelled);
		if (r < 0)
			return cancelled ? -ECANCELED : r;
	}
}

int job_failed(struct criu_job *job, int number, const char *what, struct error *err)
{
	char reason[ERROR_TEXT_MAX / 2] = "";
	int status = job->rpc.process.status;

	criu_first_error(job->log_path, reason, sizeof(reason));
	if (!reason[0])
		last_stderr_line(job, reason, sizeof(reason));
	if (!reason[0] && !job->rpc.process.pid && WIFSIGNALED(status))
		snprintf(reason, sizeof(reason), "CRIU was killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	if (!reason[0])
		snprintf(reason, sizeof(reason), "CRIU gave no reason");
	return error_set(err, number, "CRIU could not %s: %s (its log: %.300s)", what, reason, job->log_path);
}

pid_t criu_pid(const struct criu_job *job)
{
	return job->pid;
}

pid_t criu_program_pid(const struct criu_job *job)
{
	return job->rpc.process.pid;
}

const char *criu_log_path(const struct criu_job *job)
{
	return job->log_path;
}

bool criu_alive(struct criu_job *job)
{
	return job->rpc.process.pid && process_wait(&job->rpc.process, 0) == 0;
}

bool criu_restore_released(const struct criu_job *job)
{
	return job->released;
}

bool criu_preload_acted(const struct criu_job *job)
{
	struct stat st;

	return stat(job->preload_status, &st) == 0 && st.st_size > 0;
}

void criu_preload_actions(const struct criu_job *job, char *ret, size_t size)
{
	preload_actions(job->preload_status, ret, size);
}

/* Lets go of whatever the job still holds. */
static void job_undo(struct criu_job *job)
{
	struct error error = { 0 };
	int r = 0;

	switch (job->state) {
	case JOB_DUMP_STOPPED:
	case JOB_DUMP_HELD:
		r = criu_dump_rollback(job, &error);
		break;
	case JOB_RESTORE_HELD:
		r = criu_restore_abort(job, &error);
		break;
	case JOB_INVALID:
	case JOB_STARTED:
	case JOB_DUMP_COMMITTED:
	case JOB_DUMP_UNDONE:
	case JOB_RESTORE_RESUMED:
	case JOB_RESTORE_UNDONE:
	case JOB_FAILED:
	case JOB_STATE_MAX:
		break;
	}
	if (r < 0)
		log_warning("%s", error.text);
}

void criu_free(struct criu_job *job)
{
	if (!job)
		return;
	job_undo(job);
	close_fd(&job->pages_fd);
	rpc_free(&job->rpc);
	close_fd(&job->images_fd);
	close_fd(&job->work_fd);
	close_fd(&job->root_pidfd);
	close_fd(&job->breakpoints_fd);
	for (size_t i = 0; job->external && job->external[i]; i++)
		free(job->external[i]);
	free(job->external);
	free(job->root);
	free(job);
}
