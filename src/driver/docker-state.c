/*
 * What only files and processes of this host tell of a Docker daemon: runc's state, the container's directory, the CRIU on its PATH.
 *
 * Docker names none of these over its API, so they are derived: the state directory of the daemon from the path of the container's network
 * sandbox, the container's directory from the data root. No state; any thread.
 */
#include "driver/docker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/process.h"

#define CRIU_LOWEST 401 /* 4.1 */
#define CRIU_RUN_MS 10000

/* "/var/run/docker/netns/default" is below the directory that --exec-root names. */
static void exec_root_of(const json_t *inspected, char *ret, size_t size)
{
	const char *key = docker_json_text(json_object_get(inspected, "NetworkSettings"), "SandboxKey");
	const char *end = strstr(key, "/netns/");

	if (end)
		snprintf(ret, size, "%.*s", (int)(end - key), key);
	else
		snprintf(ret, size, "/run/docker");
}

int docker_state_root(const json_t *inspected, char *ret, size_t size)
{
	const char *runtime = docker_json_text(json_object_get(inspected, "HostConfig"), "Runtime");
	const char *const names[] = { *runtime ? runtime : "runc", "runc" };
	char root[1024], path[1300];

	/* Some versions name it by the runtime, others (20.10) have one for all that are like runc. */
	exec_root_of(inspected, root, sizeof(root));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (snprintf(ret, size, "%s/runtime-%s/moby", root, names[i]) >= (int)size)
			return -ENAMETOOLONG;
		snprintf(path, sizeof(path), "%.1100s/%.128s", ret, docker_json_text(inspected, "Id"));
		if (access(path, F_OK) == 0)
			break;
	}
	return 0;
}

int docker_container_directory(struct docker_api *api, const char *id, char *ret, size_t size, struct error *err)
{
	_cleanup_json_ json_t *info = NULL;
	int r = docker_api_call(api, "GET", NULL, &info, err, "/info");

	if (r < 0)
		return r;
	if (!docker_id_valid(id))
		return error_set(err, EPROTO, "Docker calls a container by an id that is none");
	snprintf(ret, size, "%s/containers/%s", docker_json_text(info, "DockerRootDir"), id);
	if (access(ret, F_OK) < 0)
		return error_errno(err, errno,
				   "cannot find the container's directory %s; is Docker's data root seen from here?",
				   ret);
	return 0;
}

/* The PATH of a process, as it was started. */
static int path_of(int pid, char *ret, size_t size)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char name[64];
	int r;

	snprintf(name, sizeof(name), "/proc/%d/environ", pid);
	r = fd_read_file(AT_FDCWD, name, 1U << 20, &text);
	if (r < 0)
		return r;
	for (size_t i = 0; i < text.length; i += strnlen((char *)text.data + i, text.length - i) + 1)
		if (text.length - i > 5 && !strncmp((char *)text.data + i, "PATH=", 5)) {
			snprintf(ret, size, "%.*s", (int)strnlen((char *)text.data + i + 5, text.length - i - 5),
				 text.data + i + 5);
			return 0;
		}
	return -ENOENT;
}

static bool is_named(int pid, const char *name)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	return fd_read_file(AT_FDCWD, path, 64, &text) == 0 && text.length == strlen(name) + 1 &&
	       !memcmp(text.data, name, strlen(name));
}

/* containerd starts the shims, they start runc, that starts CRIU: one PATH for all. It is dockerd's child or the system's own. */
int docker_find_containerd(const struct docker_daemon *daemon)
{
	_cleanup_closedir_ DIR *d = opendir("/proc");
	struct dirent *e;
	int found = 0;

	while (d && (e = readdir(d))) {
		int pid = atoi(e->d_name), parent = 0;
		char path[64], line[512];

		if (pid <= 0 || !is_named(pid, "containerd"))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		_cleanup_fclose_ FILE *f = fopen(path, "re");
		if (f && fgets(line, sizeof(line), f) && strrchr(line, ')'))
			(void)sscanf(strrchr(line, ')'), ") %*c %d", &parent);
		if (parent == daemon->pid)
			return pid;
		found = pid;
	}
	return found;
}

static bool find_program(const char *path, const char *name, char *ret, size_t size)
{
	while (*path) {
		size_t n = strcspn(path, ":");

		snprintf(ret, size, "%.*s/%s", (int)n, path, name);
		if (n && access(ret, X_OK) == 0)
			return true;
		path += n + (path[n] == ':');
	}
	return false;
}

static int check_version(const char *program, struct obstacles *ret, struct error *err)
{
	const char *const argv[] = { program, "--version", NULL };
	_cleanup_buffer_ struct buffer output = { 0 };
	unsigned int major = 0, minor = 0;
	int r = process_run(argv, &output, deadline_in_ms(CRIU_RUN_MS), err);

	if (!r && buffer_append(&output, "", 1) == 0)
		(void)sscanf((char *)output.data, "Version: %3u.%2u", &major, &minor);
	if (major * 100 + minor >= CRIU_LOWEST)
		return 0;
	return obstacles_add(ret, OBSTACLE_REFUSES, true,
			     "put CRIU 4.1 or later first on the PATH of containerd and dockerd",
			     "the CRIU that Docker finds at the target, %s, is not 4.1 or later", program);
}

int docker_check_criu(const struct docker_daemon *daemon, struct obstacles *ret, struct error *err)
{
	int pid = docker_find_containerd(daemon);
	char path[4096], program[4200];

	if (!pid)
		pid = daemon->pid;
	if (!pid || path_of(pid, path, sizeof(path)) < 0)
		return obstacles_add(ret, OBSTACLE_WARNS, true, NULL,
				     "cannot see whether Docker finds CRIU at the target");
	if (find_program(path, "criu", program, sizeof(program)))
		return check_version(program, ret, err);
	return obstacles_add(
		ret, OBSTACLE_REFUSES, true,
		"install CRIU 4.1 or later in one of these directories, or start the daemon with a PATH that has it",
		"Docker finds no CRIU at the target: the PATH of its containerd (process %d) is %.200s", pid, path);
}
