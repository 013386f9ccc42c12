/*
 * What of a Docker container cannot move: judged at the source by its configuration and its processes. See docker.h. No state; any thread.
 */
#include "driver/docker.h"

#include <errno.h>
#include <string.h>

#include "driver/oci.h"

#define ADD(o, kind, cure, ...) obstacles_add(o, kind, false, cure, __VA_ARGS__)

static bool is_filled(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);

	return json_is_true(value) || json_array_size(value) || json_object_size(value) || json_string_length(value);
}

/* Namespaces that are somebody else's stay where they are. */
static int check_namespaces(const json_t *host, struct obstacles *o)
{
	static const struct {
		const char *member, *what;
	} modes[] = { { "PidMode", "process numbers" }, { "IpcMode", "shared memory" }, { "NetworkMode", "network" } };
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(modes) && !r; i++) {
		const char *mode = docker_json_text(host, modes[i].member);

		if (!strncmp(mode, "container:", 10))
			r = ADD(o, OBSTACLE_REFUSES, "start it with its own, or stop it here and start both there",
				"the container shares the %s of another container (%s)", modes[i].what, mode);
		else if (!strcmp(mode, "shareable"))
			r = ADD(o, OBSTACLE_REFUSES, "start it with --ipc private",
				"the container's /dev/shm may be shared with others (--ipc shareable), and is kept by "
				"the daemon outside of it");
	}
	return r;
}

static int check_devices(const json_t *host, struct obstacles *o)
{
	if (is_filled(host, "DeviceRequests"))
		return ADD(o, OBSTACLE_REFUSES, "start it without --gpus",
			   "the container was given devices of this host, whose state cannot move");
	if (json_is_true(json_object_get(host, "Privileged")))
		return ADD(o, OBSTACLE_REFUSES, "start it with the capabilities that it needs (--cap-add) instead",
			   "the container is privileged: all devices of this host are its own");
	return 0;
}

static int check_others(const json_t *spec, const json_t *host, struct obstacles *o)
{
	const json_t *labels = docker_json_at(spec, "config.Labels");
	int r = 0;

	if (is_filled(host, "VolumesFrom") || is_filled(host, "Links"))
		r = ADD(o, OBSTACLE_REFUSES, "name the volumes (-v), or use a network instead of links",
			"the container takes volumes from another container or is linked to one");
	if (!r &&
	    (json_object_get(labels, "com.docker.swarm.task") || json_object_get(labels, "io.kubernetes.pod.name")))
		r = ADD(o, OBSTACLE_REFUSES, "let the orchestrator move it",
			"the container belongs to an orchestrator (%s), which would start another one",
			json_object_get(labels, "com.docker.swarm.task") ? "a swarm" : "a pod of Kubernetes");
	if (!r && json_array_size(json_object_get(spec, "execs")))
		r = ADD(o, OBSTACLE_WARNS, NULL,
			"what was started in the container by docker exec (%zu sessions) ends with the move",
			json_array_size(json_object_get(spec, "execs")));
	return r;
}

static int check_daemon(const json_t *spec, struct obstacles *o)
{
	json_t *one;
	size_t i;

	json_array_foreach (json_object_get(spec, "security"), i, one) {
		const char *text = json_string_value(one);

		if (text && (!strncmp(text, "name=userns", 11) || !strncmp(text, "name=rootless", 13)))
			return ADD(o, OBSTACLE_REFUSES, "use a daemon without user namespaces",
				   "the Docker daemon runs its containers in user namespaces (%s), which CRIU cannot "
				   "restore through it",
				   text);
	}
	if (strcmp(docker_json_text(spec, "storage"), "overlay2") != 0)
		return ADD(o, OBSTACLE_REFUSES, "use the storage driver overlay2",
			   "Docker's storage driver here is %.32s: phaul knows where overlay2 keeps what a container "
			   "wrote",
			   docker_json_text(spec, "storage"));
	return 0;
}

static int check_files(const json_t *spec, const json_t *host, struct obstacles *o)
{
	const char *log = docker_json_text(json_object_get(host, "LogConfig"), "Type"),
		   *rule = docker_json_text(spec, "bind_rule");
	size_t i;
	json_t *one;
	int r = 0;

	if (!json_is_true(json_object_get(spec, "log")) && strcmp(log, "none") != 0)
		r = ADD(o, OBSTACLE_WARNS, NULL,
			"what the container has logged so far stays here: its log driver (%.32s) keeps no file of its "
			"own",
			log);
	json_array_foreach (json_object_get(spec, "binds"), i, one) {
		if (!r && !strcmp(rule, "refuse"))
			r = ADD(o, OBSTACLE_REFUSES,
				"let it be expected there (--bind present) or bring it along (--bind bring)",
				"the container has the directory %.200s of this host mounted",
				docker_json_text(one, "source"));
	}
	json_array_foreach (json_object_get(spec, "volumes"), i, one) {
		if (!r && !json_is_true(json_object_get(one, "brought")))
			r = ADD(o, OBSTACLE_WARNS, NULL,
				"the volume %.100s is made again there with the same driver and options; its content "
				"is not copied",
				docker_json_text(one, "name"));
	}
	return r;
}

static int check_network(const json_t *spec, struct obstacles *o)
{
	if (json_is_true(json_object_get(spec, "connections")))
		return 0;
	return ADD(o, OBSTACLE_WARNS,
		   "for connections that go on, use a network of your own (docker network create --subnet) or "
		   "--network host",
		   "the container is in Docker's default network \"bridge\", where it may get another address at the "
		   "target: its "
		   "TCP connections end");
}

static int check_all(const json_t *spec, struct obstacles *o)
{
	const json_t *host = json_object_get(spec, "host_config");
	int r = check_namespaces(host, o);

	if (!r)
		r = check_devices(host, o);
	if (!r)
		r = check_others(spec, host, o);
	if (!r)
		r = check_daemon(spec, o);
	if (!r)
		r = check_files(spec, host, o);
	return r ? r : check_network(spec, o);
}

int docker_check_source(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
			struct error *err)
{
	_cleanup_oci_ struct oci_state state = { 0 };
	_cleanup_json_ json_t *spec = NULL;
	int r = docker_spec_read(w, &spec, err);

	if (!r)
		r = docker_read_state(spec, &state, err);
	if (r < 0)
		return r;
	if (check_all(spec, ret) < 0)
		return error_set(err, ENOMEM, "no memory for the list of obstacles");
	return oci_check_source(&state, w, options, ret, err);
}
