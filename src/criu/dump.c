/*
 * A dump that holds at its end, and its two ways out.
 *
 * With lazy pages CRIU writes everything but memory, runs the "post-dump" notification (here we hold), and then serves pages
 * until its client closes the session, whether post-dump succeeded or not; only after that are the tasks
 * killed (success) or released (failure). phaul has the pages already, so the page server gets one end of a socket
 * pair as its client (`ps-socket`, which RPC cannot say together with lazy pages, hence the configuration file): nothing
 * ever listens on the network. Over our end goes one header, "close".
 *
 * Invariants: every failure leaves the tasks running. When our process dies, both sockets end, CRIU takes that for a failed
 * post-dump and a closed session, and releases the tasks. When CRIU dies, ptrace does.
 * Threads: the job's. Source: criu/cr-dump.c (cr_dump_finish, cr_lazy_mem_dump), criu/page-xfer.c (page_server_serve).
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "criu/job.h"

#define FINISH_MS 60000 /* killing or releasing a tree */
#define PAGES_CLOSE 0x1023

/* One header of CRIU's page server protocol. */
struct pages_header {
	uint32_t command;
	uint32_t pad;
	uint64_t n_pages, address, destination;
};

static int dump_request(struct criu_job *job, pid_t pid, struct error *err)
{
	CriuRpc__Request request = CRIU_RPC__REQUEST__INIT;
	CriuRpc__Options options = CRIU_RPC__OPTIONS__INIT;
	char config[64], path[PATH_MAX];
	int r;

	snprintf(job->log_name, sizeof(job->log_name), DUMP_LOG);
	job_fill_options(job, &options);
	options.has_pid = true;
	options.pid = pid;
	snprintf(config, sizeof(config), "ps-socket %d\n", PAGES_CHILD_FD);
	r = job_write_config(job, config, path, sizeof(path), err);
	if (r < 0)
		return r;
	options.config_file = path;
	request.type = CRIU_RPC__TYPE__DUMP;
	request.options = &options;
	r = rpc_send(&job->rpc, &request);
	return r < 0 ? error_errno(err, -r, "cannot ask CRIU to dump process %d", pid) : 0;
}

/* Ends CRIU after a failure of ours or its own; its death releases the tasks. */
static int dump_give_up(struct criu_job *job, int number, struct error *err)
{
	close_fd(&job->pages_fd);
	rpc_finish(&job->rpc, number == ETIMEDOUT ? clock_now_ns() : deadline_in_ms(CANCEL_MS));
	if (WIFSIGNALED(job->rpc.process.status))
		criu_end_tcp_repair(job->pid);
	job->state = JOB_FAILED;
	if (number == ETIMEDOUT) /* there is no deadline but that of a cancel */
		number = ECANCELED;
	if (number == ECANCELED)
		return error_set(err, ECANCELED, "the dump of process %d was cancelled; its tasks run on", job->pid);
	return job_failed(job, number, "dump the tree", err);
}

/* After a cancel at the very end the page server comes next: let it find the session closed. */
static void dump_seen(struct criu_job *job, const CriuRpc__Response *response, bool is_refused_end)
{
	(void)response;
	if (is_refused_end)
		close_fd(&job->pages_fd);
}

static int dump_follow(struct criu_job *job, const char *const *before, int cancel_fd, struct error *err)
{
	int r = job_follow(job, before, "post-dump", cancel_fd, dump_seen);

	if (r <= 0)
		return dump_give_up(job, r < 0 && r != -ECONNRESET && r != -EPIPE ? -r : EIO, err);
	job->state = r == 1 ? JOB_DUMP_HELD : JOB_DUMP_STOPPED;
	return 0;
}

/* Once it has stopped all tasks, CRIU says that it is about to lock their network namespace, if it is their own (criu/net.c, network_lock), or else asks
 * for external files, before it locks the first connection (criu/cr-dump.c). One that says neither goes on to the end. */
int criu_dump_stop(struct criu_job *job, pid_t pid, int cancel_fd, struct error *err)
{
	static const char *const stopped[] = { "network-lock", "query-ext-files", NULL };
	int r;

	if (job->state != JOB_STARTED)
		return error_set(err, EINVAL, "this CRIU has been used already");
	job->pid = pid;
	if (pid <= 0 || kill(pid, 0) < 0)
		return error_set(err, ESRCH, "there is no process %d to dump", pid);
	r = dump_request(job, pid, err);
	if (r < 0)
		return r;
	return dump_follow(job, stopped, cancel_fd, err);
}

int criu_dump(struct criu_job *job, pid_t pid, int cancel_fd, struct error *err)
{
	int r = job->state == JOB_DUMP_STOPPED || job->state == JOB_DUMP_HELD
			? 0
			: criu_dump_stop(job, pid, cancel_fd, err);

	if (r < 0 || job->state == JOB_DUMP_HELD)
		return r;
	if (rpc_notify(&job->rpc, true) < 0)
		return dump_give_up(job, EIO, err);
	return dump_follow(job, NULL, cancel_fd, err);
}

/* Asks the page server that comes next to close its session; the socket keeps the words until then. */
static int pages_close(struct criu_job *job)
{
	struct pages_header header = { .command = PAGES_CLOSE };

	if (job->options.full_memory)
		return 0;
	return send(job->pages_fd, &header, sizeof(header), MSG_NOSIGNAL) == (ssize_t)sizeof(header) ? 0 : -EPIPE;
}

/* The verdict: post-dump answered, page server closed, CRIU's last word read (status-ready and network-unlock come
 * before it). 1: it says success, 0: it says failure, or a negative errno: it died. It has ended in any case. */
static int dump_finish(struct criu_job *job, bool success)
{
	uint64_t deadline_ns = deadline_in_ms(FINISH_MS);
	int r = pages_close(job), answer = -1;

	if (!r)
		r = rpc_notify(&job->rpc, success);
	while (!r && answer < 0) {
		CriuRpc__Response *response;

		r = rpc_receive(&job->rpc, -1, deadline_ns, &response);
		if (r < 0)
			break;
		if (response->type == CRIU_RPC__TYPE__NOTIFY)
			r = rpc_notify(&job->rpc, true);
		else
			answer = response->success;
		criu_rpc__response__free_unpacked(response, NULL);
	}
	close_fd(&job->pages_fd);
	rpc_finish(&job->rpc, deadline_ns);
	/* Tasks that are to be killed keep it: connections under repair end without a word to the peer. */
	if (WIFSIGNALED(job->rpc.process.status) && !success)
		criu_end_tcp_repair(job->pid);
	return r < 0 ? r : answer;
}

int criu_dump_rollback(struct criu_job *job, struct error *err)
{
	int r;

	if (job->state == JOB_DUMP_UNDONE || job->state == JOB_FAILED || job->state == JOB_STARTED)
		return 0;
	if (job->state == JOB_DUMP_STOPPED) {
		(void)dump_give_up(job, ECANCELED, NULL);
		return 0;
	}
	if (job->state != JOB_DUMP_HELD)
		return error_set(err, EINVAL, "the dump of process %d cannot be undone: it is not held", job->pid);
	r = dump_finish(job, false);
	job->state = JOB_DUMP_UNDONE;
	/* Whatever CRIU said, it has ended by now, and with it its hold on the tasks. */
	if (r == 1)
		return error_set(err, EPROTO, "CRIU took a refused dump of process %d for a good one", job->pid);
	return 0;
}

int criu_dump_commit(struct criu_job *job, struct error *err)
{
	int r;

	if (job->state == JOB_DUMP_COMMITTED)
		return 0;
	if (job->state != JOB_DUMP_HELD)
		return error_set(err, EINVAL, "the dump of process %d cannot be committed: it is not held", job->pid);
	r = dump_finish(job, true);
	if (r != 1) {
		job->state = JOB_DUMP_UNDONE;
		return job_failed(job, r < 0 ? -r : EIO, "end the dumped tasks, which may run again", err);
	}
	job->state = JOB_DUMP_COMMITTED;
	return 0;
}
