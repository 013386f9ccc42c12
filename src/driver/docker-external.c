/*
 * How CRIU is to be run for a Docker container: as runc would, whose restore at the other side expects that. See docker.h.
 *
 * External mounts are named as runc names them: bind mounts by their place in the container; version 1 control groups likewise, one by one; masked
 * files as /dev/null. Source of the facts: runc's libcontainer/container_linux.go (1.1), docs/checkpoint-restore.md. No state; any thread.
 */
#include "driver/docker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "driver/pid.h"

#define MOUNTINFO_MAX (8U << 20)

static void add(json_t *list, const char *place, const char *name)
{
	_cleanup_free_ char *text = NULL;

	if (asprintf(&text, "mnt[%s]:%s", place, name) >= 0)
		json_array_append_new(list, json_string(text));
}

/* The hierarchies of version 1 that lie below `destination` in the container. Fields as in proc(5), mountinfo. */
static int add_cgroups(pid_t pid, const char *destination, json_t *list)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[64], *line, *next;
	size_t n = strlen(destination);
	int r;

	snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
	r = fd_read_file(AT_FDCWD, path, MOUNTINFO_MAX, &text);
	if (!r)
		r = buffer_append(&text, "", 1);
	if (r < 0)
		return r;
	for (line = (char *)text.data; line && *line; line = next) {
		char place[4096];

		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (sscanf(line, "%*d %*d %*s %*s %4095s", place) == 1 && !strncmp(place, destination, n) && place[n] == '/' &&
		    strstr(line, " - cgroup "))
			add(list, place, place);
	}
	return 0;
}

static bool is_file_in(pid_t pid, const char *place)
{
	char path[4200];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/root%s", pid, place);
	return stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

int docker_external(const json_t *state, pid_t pid, json_t *list)
{
	json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (docker_json_at(state, "config.mounts"), i, one) {
		const char *device = docker_json_text(one, "device"), *destination = docker_json_text(one, "destination");

		if (!strcmp(device, "bind"))
			add(list, destination, destination);
		else if (!strcmp(device, "cgroup") && !r)
			r = add_cgroups(pid, destination, list);
	}
	json_array_foreach (docker_json_at(state, "config.mask_paths"), i, one) {
		const char *place = json_string_value(one);

		if (place && is_file_in(pid, place))
			add(list, place, "/dev/null");
	}
	return r;
}

int docker_external_network(const json_t *state, pid_t pid, json_t *list)
{
	json_t *one;
	size_t i;

	json_array_foreach (docker_json_at(state, "config.namespaces"), i, one) {
		_cleanup_free_ char *text = NULL;

		if (strcmp(docker_json_text(one, "type"), "NEWNET") != 0 || !*docker_json_text(one, "path"))
			continue;
		if (asprintf(&text, "net[%llu]:extRootNetNS", (unsigned long long)tree_namespace(pid, "net")) < 0)
			return -ENOMEM;
		json_array_append_new(list, json_string(text));
	}
	return 0;
}

int docker_way(const struct workload *w, const struct driver_options *options, struct checkpoint_way *ret, struct error *err)
{
	_cleanup_json_ json_t *spec = NULL;
	const json_t *list;
	size_t n;
	int r = docker_spec_read(w, &spec, err);

	(void)options;
	if (r < 0)
		return r;
	list = json_object_get(spec, "external");
	n = json_array_size(list);
	*ret = (struct checkpoint_way){ .root_pid = w->root_pid,
					.tcp_established = true,
					.file_locks = true,
					.ghost_limit_bytes = PID_GHOST_LIMIT_BYTES,
					.ext_unix_sk = true,
					.link_remap = true,
					.empty_network = true,
					.external = calloc(n + 1, sizeof(char *)) };
	for (size_t i = 0; ret->external && i < n; i++) {
		const char *text = json_string_value(json_array_get(list, i));

		ret->external[i] = strdup(text ? text : "");
		if (!ret->external[i])
			break;
	}
	if (!ret->external || (n && !ret->external[n - 1])) {
		checkpoint_way_free(ret);
		return error_set(err, ENOMEM, "no memory for the container's mounts");
	}
	return 0;
}
