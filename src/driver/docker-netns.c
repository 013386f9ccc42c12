/*
 * A Docker container's network namespace at the target, before the freeze. See docker.h.
 *
 * Docker gives a container its network by a hook of the runtime's, when the root task exists: in a restore that is in the middle of the
 * freeze, and takes 150-450 ms. So phaul makes the namespace, tells the runtime to use it (docker-bundle.h), and runs the hook itself, while the
 * runtime is being started. libnetwork takes any process's namespace for the container's.
 *
 *   network()   makes it, named; migration/ makes it silent and holds what will arrive
 *   restore()   the helper: starts the container, edits its bundle, runs the hook inside
 *   ready()     waits for the hook's end; libnetwork keeps the namespace from then on, and the name goes
 *   forget()    takes away what is left
 *
 * Threads: any; one of its own enters the new namespace.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/process.h"
#include "driver/docker-bundle.h"
#include "driver/docker.h"

#define NAMES "/run/netns"
#define ANSWER "docker-network" /* in the work directory: how the helper fared */
#define WELL "ready"
#define READY_MS 60000
#define HOOK_MS 30000
#define LOOK_NS 2000000

void docker_netns_name(const struct driver_place *place, char *ret, size_t size)
{
	snprintf(ret, size, NAMES "/" DOCKER_NAME_PREFIX "%s", place->id_text);
}

bool docker_netns_wanted(const json_t *spec)
{
	return strcmp(docker_json_text(json_object_get(spec, "host_config"), "NetworkMode"), "host") != 0;
}

struct maker {
	const char *name;
	const json_t *sysctls;
	int result;
};

/* Those of the network are its namespace's, and the runtime sets none when it restores. */
static int set_sysctls(const json_t *sysctls)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)sysctls, key, value) {
		const char *text = json_string_value(value) ?: "";
		char path[300] = "/proc/sys/";
		size_t n = strlen(path);
		_cleanup_close_ int fd = -1;

		if (strncmp(key, "net.", 4) != 0 || strstr(key, "..") || strchr(key, '/'))
			continue;
		snprintf(path + n, sizeof(path) - n, "%s", key);
		for (char *p = path + n; *p; p++)
			*p = *p == '.' ? '/' : *p;
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, text, strlen(text)) < 0)
			return -errno;
	}
	return 0;
}

static void *make_main(void *arg)
{
	struct maker *m = arg;

	if (unshare(CLONE_NEWNET) < 0)
		m->result = -errno;
	else if (!(m->result = set_sysctls(m->sysctls)) &&
		 mount("/proc/thread-self/ns/net", m->name, NULL, MS_BIND, NULL) < 0)
		m->result = -errno;
	return NULL;
}

static int make(const json_t *spec, const char *name, struct error *err)
{
	struct maker m = { .name = name, .sysctls = docker_json_at(spec, "host_config.Sysctls") };
	_cleanup_close_ int fd = -1;
	pthread_t thread;
	int r = dir_make(NAMES, 0755);

	if (!r && (fd = open(name, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444)) < 0)
		r = -errno;
	if (!r)
		r = -pthread_create(&thread, NULL, make_main, &m);
	if (!r) {
		pthread_join(thread, NULL);
		r = m.result;
	}
	if (r >= 0)
		return 0;
	if (fd >= 0)
		(void)unlink(name);
	/* Not to be taken for a container without one. */
	error_errno(err, -r, "cannot make the container's network namespace (%s)", name);
	return -(err->number = r == -ENOENT ? EIO : -r);
}

int docker_netns_open(const json_t *spec, const struct driver_place *place, int *ret_fd, struct error *err)
{
	char name[128];
	int r = 0;

	docker_netns_name(place, name, sizeof(name));
	if (access(name, F_OK) < 0)
		r = make(spec, name, err);
	if (r < 0)
		return r;
	*ret_fd = open(name, O_RDONLY | O_CLOEXEC);
	return *ret_fd < 0 ? error_errno(err, errno, "cannot open %s", name) : 0;
}

void docker_netns_remove(const struct driver_place *place)
{
	char name[128];

	docker_netns_name(place, name, sizeof(name));
	if (umount2(name, MNT_DETACH) == 0 || errno == EINVAL)
		(void)unlink(name);
}

void docker_netns_answer(const struct driver_place *place, char *ret, size_t size)
{
	snprintf(ret, size, "%s/" ANSWER, place->work_directory);
}

/* The hook reads from its standard input of which container the process is: runtime-spec, "State". */
static int open_state(const char *id, const char *bundle)
{
	char text[PATH_MAX + 300];
	int n = snprintf(
		text, sizeof(text),
		"{\"ociVersion\":\"1.0.2\",\"id\":\"%s\",\"status\":\"creating\",\"pid\":%d,\"bundle\":\"%.*s\"}", id,
		getpid(), (int)(strrchr(bundle, '/') - bundle), bundle);
	int fd = memfd_create("state", MFD_CLOEXEC);

	if (fd >= 0 && (write(fd, text, (size_t)n) != n || lseek(fd, 0, SEEK_SET) < 0))
		close_fd(&fd);
	return fd;
}

/* Inside of the namespace: the hook names it by our pid. */
static int run_hook(const json_t *words, const char *id, const char *bundle, struct error *err)
{
	_cleanup_process_ struct process hook = PROCESS_NONE;
	_cleanup_close_ int state = open_state(id, bundle);
	size_t n = json_array_size(words);
	_cleanup_free_ const char **argv = calloc(n + 1, sizeof(*argv));
	struct process_options options = {
		.argv = argv, .stdin_fd = state, .stdout_fd = -1, .stderr_fd = STDERR_FILENO
	};
	int r;

	if (state < 0 || !argv || n < 2)
		return error_set(err, ENOMEM, "no memory for libnetwork's hook");
	/* Go looks at argv[0] to know what it is to be. */
	options.program = json_string_value(json_array_get(words, 0));
	for (size_t i = 1; i < n; i++)
		argv[i - 1] = json_string_value(json_array_get(words, i)) ?: "";
	r = process_start(&options, &hook, err);
	if (r < 0)
		return r;
	if (process_wait(&hook, deadline_in_ms(HOOK_MS)) != 1)
		return error_set(err, ETIMEDOUT, "Docker does not give the container its network");
	return hook.status
		       ? error_set(err, EIO, "Docker could not give the container its network (status %d)", hook.status)
		       : 0;
}

/* The helper's part, beside the start of the container. */
static int fill(const struct docker_daemon *daemon, const char *id, const char *netns, struct error *err)
{
	_cleanup_json_ json_t *hook = NULL;
	_cleanup_close_ int fd = open(netns, O_RDONLY | O_CLOEXEC);
	char path[PATH_MAX];
	int r = fd < 0 ? error_errno(err, errno, "cannot open %s", netns)
		       : docker_bundle_path(daemon, id, path, sizeof(path), err);

	if (!r)
		r = docker_bundle_take(path, id, netns, deadline_in_ms(READY_MS), &hook, err);
	if (!r && setns(fd, CLONE_NEWNET) < 0)
		r = error_errno(err, errno, "cannot enter %s", netns);
	return r < 0 ? r : run_hook(hook, id, path, err);
}

int docker_netns_fill(const struct docker_daemon *daemon, const char *id, const char *netns, const char *answer)
{
	struct error err = { 0 };
	int r = fill(daemon, id, netns, &err);
	char text[ERROR_TEXT_MAX];

	error_tidy(err.text);
	snprintf(text, sizeof(text), "%s", r < 0 ? err.text : WELL);
	return fd_write_file(AT_FDCWD, answer, text, strlen(text), 0600) < 0 || r < 0;
}

int docker_restore_ready(const struct workload *w, const struct driver_place *place, struct error *err)
{
	const struct timespec pause = { .tv_nsec = LOOK_NS };
	uint64_t deadline_ns = deadline_in_ms(READY_MS);
	_cleanup_buffer_ struct buffer text = { 0 };
	_cleanup_json_ json_t *spec = NULL;
	char path[600];
	int r = docker_spec_read(w, &spec, err);

	if (r < 0 || !docker_netns_wanted(spec))
		return r;
	docker_netns_answer(place, path, sizeof(path));
	while (fd_read_file(AT_FDCWD, path, ERROR_TEXT_MAX, &text) < 0) {
		if (clock_now_ns() >= deadline_ns)
			return error_set(err, ETIMEDOUT, "Docker does not give the container its network");
		nanosleep(&pause, NULL);
	}
	if (buffer_append(&text, "", 1) < 0 || strcmp((char *)text.data, WELL) != 0)
		return error_set(err, EIO, "%s", text.data);
	/* libnetwork has a name for it now, and the runtime has opened it. */
	docker_netns_remove(place);
	return 0;
}
