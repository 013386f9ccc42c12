/*
 * Starting a container from a checkpoint through the daemon, with runc.conf borrowed until CRIU has read it: see docker-start.h.
 *
 * Threads: one that waits for the daemon's answer, one that gives runc.conf back as soon as CRIU has opened its log, which it does right after
 * reading its configuration; from then on other restores of this host go on undisturbed.
 */
#include "driver/docker-start.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>

#include "base/clock.h"
#include "base/fd.h"
#include "driver/docker.h"
#include "driver/runc-conf.h"

#define BORROW_MS 30000 /* for another restore's CRIU to begin */

struct watch {
	struct runc_conf conf;
	int inotify_fd, end_fd;
	char log[256]; /* the log's name in its directory */
};

/* The value of a line "NAME VALUE" of a CRIU configuration. */
static bool config_value(const struct buffer *text, const char *name, char *ret, size_t size)
{
	const char *line = (const char *)text->data;
	size_t n = strlen(name);

	while (line && *line) {
		if (!strncmp(line, name, n) && line[n] == ' ') {
			snprintf(ret, size, "%.*s", (int)strcspn(line + n + 1, "\n"), line + n + 1);
			return true;
		}
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return false;
}

static int watch_log(const char *config, struct watch *w, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char directory[4096];
	int r = fd_read_file(AT_FDCWD, config, 1U << 20, &text);

	if (!r)
		r = buffer_append(&text, "", 1);
	if (r < 0)
		return error_errno(err, -r, "cannot read %s", config);
	if (!config_value(&text, "work-dir", directory, sizeof(directory)) ||
	    !config_value(&text, "log-file", w->log, sizeof(w->log)))
		return error_set(err, EINVAL, "%s does not say where CRIU logs", config);
	w->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	w->end_fd = eventfd(0, EFD_CLOEXEC);
	if (w->inotify_fd < 0 || w->end_fd < 0 || inotify_add_watch(w->inotify_fd, directory, IN_CREATE | IN_OPEN) < 0)
		return error_errno(err, errno, "cannot watch %s", directory);
	return 0;
}

static bool log_seen(struct watch *w)
{
	char bytes[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(w->inotify_fd, bytes, sizeof(bytes));

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *e = (const struct inotify_event *)(bytes + at);

		if (e->len && !strcmp(e->name, w->log))
			return true;
		at += (ssize_t)(sizeof(*e) + e->len);
	}
	return false;
}

static void *watch_main(void *context)
{
	struct watch *w = context;
	struct error err = { 0 };

	for (;;) {
		struct pollfd p[2] = { { .fd = w->inotify_fd, .events = POLLIN }, { .fd = w->end_fd, .events = POLLIN } };

		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents || (p[0].revents && log_seen(w)))
			break;
	}
	if (runc_conf_give_back(&w->conf, &err) < 0)
		fprintf(stderr, "%s\n", err.text);
	return NULL;
}

static int start(struct docker_api *api, const char *id, const char *checkpoint, struct error *err)
{
	docker_api_patience(api, 0);
	return docker_api_call(api, "POST", NULL, NULL, err, "/containers/%s/start?checkpoint=%s", docker_api_escape(api, id),
			       docker_api_escape(api, checkpoint));
}

static int run(char **argv, struct error *err)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	struct watch w = { .conf = RUNC_CONF_NONE, .inotify_fd = -1, .end_fd = -1 };
	struct error ignored = { 0 };
	const uint64_t one = 1;
	pthread_t thread;
	int r = docker_api_open(*argv[2] ? argv[2] : NULL, &api, err);

	if (!r)
		r = watch_log(argv[5], &w, err);
	if (!r)
		r = runc_conf_borrow(NULL, argv[5], deadline_in_ms(BORROW_MS), &w.conf, err);
	if (!r && (r = -pthread_create(&thread, NULL, watch_main, &w)) < 0)
		error_errno(err, -r, "cannot start a thread");
	if (r < 0) {
		(void)runc_conf_give_back(&w.conf, &ignored);
		return r;
	}
	r = start(api, argv[3], argv[4], err);
	(void)fd_write_full(w.end_fd, &one, sizeof(one));
	pthread_join(thread, NULL);
	return r;
}

int docker_start_main(int argc, char **argv)
{
	struct error err = { 0 };

	if (argc != 6) {
		fprintf(stderr, "docker-start: it is started by phaul, not by hand\n");
		return 2;
	}
	if (run(argv, &err) == 0)
		return 0;
	error_tidy(err.text);
	fprintf(stderr, "%s\n", err.text);
	return 1;
}
