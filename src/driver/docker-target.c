/*
 * What would stop a Docker container at the target: asked of the daemon there, before anything is made. See docker.h.
 *
 * The spec comes from the peer. No state; any thread.
 */
#include "driver/docker.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "driver/pid.h"

#define ADD(o, kind, cure, ...) obstacles_add(o, kind, true, cure, __VA_ARGS__)

static int check_daemon(struct docker_api *api, const json_t *spec, bool restart, struct obstacles *o,
			struct error *err)
{
	const char *runtime = docker_json_text(json_object_get(spec, "host_config"), "Runtime");
	_cleanup_json_ json_t *info = NULL;
	int r = docker_api_call(api, "GET", NULL, &info, err, "/info");

	if (r < 0)
		return r;
	if (!restart && !json_is_true(json_object_get(info, "ExperimentalBuild")))
		r = ADD(o, OBSTACLE_REFUSES,
			"start the daemon with --experimental, or put \"experimental\": true into its daemon.json",
			"the Docker daemon at the target does not restore: checkpoints are an experimental feature");
	if (!r && strcmp(docker_json_text(info, "Driver"), "overlay2") != 0)
		r = ADD(o, OBSTACLE_REFUSES, "use the storage driver overlay2 there",
			"Docker's storage driver at the target is %.32s", docker_json_text(info, "Driver"));
	if (!r && *runtime && !json_object_get(json_object_get(info, "Runtimes"), runtime))
		r = ADD(o, OBSTACLE_REFUSES, "add it to the daemon's runtimes",
			"Docker at the target has no runtime %.64s", runtime);
	if (!r && !restart &&
	    strcmp(docker_json_text(info, "CgroupVersion"), docker_json_text(spec, "cgroup_version")) != 0)
		r = ADD(o, OBSTACLE_REFUSES, "boot both hosts with the same version",
			"control groups are of version %.8s here and %.8s there",
			docker_json_text(spec, "cgroup_version"), docker_json_text(info, "CgroupVersion"));
	return r;
}

/* Restart mode: what goes with the stop cannot be brought after it. */
static int check_kept(const json_t *spec, struct obstacles *o)
{
	if (!json_is_true(docker_json_at(spec, "host_config.AutoRemove")))
		return 0;
	return obstacles_add(o, OBSTACLE_REFUSES, false, "move it live (--mode live), or start it without --rm",
			     "the container is removed with all its files when it is stopped (--rm)");
}

static int check_name(struct docker_api *api, const char *name, struct obstacles *o, struct error *err)
{
	int r = docker_api_call(api, "GET", NULL, NULL, err, "/containers/%s/json", docker_api_escape(api, name));

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	return ADD(o, OBSTACLE_REFUSES, "remove or rename that one, or choose another name (--dst-id)",
		   "the target has a container called %.64s already", name);
}

/* Whether `address` lies in the network "10.0.0.0/24". */
static bool contains(const char *subnet, const char *address)
{
	unsigned char net[16], host[16];
	char text[64];
	const char *slash = strchr(subnet, '/');
	int family = strchr(address, ':') ? AF_INET6 : AF_INET, bits = slash ? atoi(slash + 1) : -1;

	if (bits < 0 || bits > (family == AF_INET ? 32 : 128))
		return false;
	snprintf(text, sizeof(text), "%.*s", (int)(slash - subnet), subnet);
	if (inet_pton(family, text, net) != 1 || inet_pton(family, address, host) != 1)
		return false;
	if (memcmp(net, host, (size_t)bits / 8) != 0)
		return false;
	return bits % 8 == 0 || (net[bits / 8] ^ host[bits / 8]) >> (8 - bits % 8) == 0;
}

static bool has_address(const json_t *network, const char *address)
{
	json_t *one;
	size_t i;

	json_array_foreach (docker_json_at(network, "IPAM.Config"), i, one) {
		if (contains(docker_json_text(one, "Subnet"), address))
			return true;
	}
	return false;
}

/* The name of who has that address there, or NULL. */
static const char *who_has(const json_t *network, const char *address)
{
	const char *id;
	json_t *one;

	json_object_foreach (json_object_get(network, "Containers"), id, one) {
		const char *his = docker_json_text(one, "IPv4Address");
		size_t n = strlen(address);

		if (!strncmp(his, address, n) && his[n] == '/')
			return docker_json_text(one, "Name");
	}
	return NULL;
}

static int check_network(struct docker_api *api, const json_t *wanted, struct obstacles *o, struct error *err)
{
	const char *name = docker_json_text(wanted, "name"), *address = docker_json_text(wanted, "address"), *holder;
	_cleanup_json_ json_t *network = NULL;
	int r;

	if (!strcmp(name, "bridge") || !strcmp(name, "host") || !strcmp(name, "none"))
		return 0;
	r = docker_api_call(api, "GET", NULL, &network, err, "/networks/%s", docker_api_escape(api, name));
	if (r == -ENOENT)
		return ADD(o, OBSTACLE_REFUSES,
			   "make it there with the same subnet: docker network create --subnet ...",
			   "the target has no Docker network called %.64s", name);
	if (r < 0 || !*address)
		return r;
	if (!has_address(network, address))
		return ADD(o, OBSTACLE_REFUSES, "give both networks the same subnet",
			   "the container's address %.46s does not belong to the network %.64s at the target", address,
			   name);
	holder = who_has(network, address);
	if (!holder)
		return 0;
	return ADD(o, OBSTACLE_REFUSES, "stop that container, or give it another address",
		   "the container's address %.46s is that of the container %.64s at the target", address, holder);
}

/* Whether a name is that of a container which phaul left behind: NAME-moved-SHORTID. */
static bool is_left_behind(const json_t *container)
{
	const char *name = json_string_value(json_array_get(json_object_get(container, "Names"), 0));
	const char *mark = name ? strstr(name, "-moved-") : NULL;

	return mark && strspn(mark + 7, "0123456789abcdef") == strlen(mark + 7) &&
	       strcmp(docker_json_text(container, "State"), "running") != 0;
}

/* A volume that is there already would be overwritten: only one that an earlier move left behind may be. */
static int check_volume(struct docker_api *api, const json_t *volume, struct obstacles *o, struct error *err)
{
	const char *name = docker_json_text(volume, "name");
	_cleanup_json_ json_t *users = NULL;
	_cleanup_free_ char *filter = NULL;
	json_t *user, *wanted;
	bool free_to_use;
	size_t i;
	int r;

	if (!json_is_true(json_object_get(volume, "named")) || !json_is_true(json_object_get(volume, "brought")))
		return 0;
	r = docker_api_call(api, "GET", NULL, NULL, err, "/volumes/%s", docker_api_escape(api, name));
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	wanted = json_pack("{s:[s]}", "volume", name);
	filter = json_dumps(wanted, JSON_COMPACT);
	json_decref(wanted);
	if (!filter)
		return error_set(err, ENOMEM, "no memory to ask Docker");
	r = docker_api_call(api, "GET", NULL, &users, err, "/containers/json?all=1&filters=%s",
			    docker_api_escape(api, filter));
	if (r < 0)
		return r;
	free_to_use = json_array_size(users) > 0;
	json_array_foreach (users, i, user)
		free_to_use = free_to_use && is_left_behind(user);
	if (free_to_use)
		return 0;
	return ADD(o, OBSTACLE_REFUSES, "remove that one if nobody needs it (docker volume rm)",
		   "the target has a volume called %.100s already, whose content would be replaced", name);
}

static int check_binds(const json_t *spec, struct obstacles *o)
{
	bool bring = !strcmp(docker_json_text(spec, "bind_rule"), "bring");
	json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (json_object_get(spec, "binds"), i, one) {
		const char *source = docker_json_text(one, "source");

		if (!r && !bring && (source[0] != '/' || access(source, F_OK) < 0))
			r = ADD(o, OBSTACLE_REFUSES, "make it there, or bring it along (--bind bring)",
				"%.200s, which the container has mounted at %.100s, is not there at the target", source,
				docker_json_text(one, "destination"));
	}
	return r;
}

int docker_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
			struct error *err)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	_cleanup_json_ json_t *spec = NULL;
	struct error why = { 0 };
	json_t *one;
	size_t i;
	int r = docker_spec_read(w, &spec, err);

	if (r < 0)
		return r;
	if (docker_api_open(options->engine, &api, &why) < 0)
		return ADD(ret, OBSTACLE_REFUSES, "start it, or name its socket (--target-engine)", "at the target: %s",
			   why.text);
	r = check_daemon(api, spec, options->restart, ret, err);
	if (!r && options->restart)
		r = check_kept(spec, ret);
	if (!r && !options->restart)
		r = docker_check_criu(docker_api_daemon(api), ret, err);
	if (!r)
		r = check_name(api, docker_target_name(spec, options), ret, err);
	if (!r)
		r = docker_image_check(api, spec, options, ret, err);
	json_array_foreach (json_object_get(spec, "networks"), i, one) {
		if (!r)
			r = check_network(api, one, ret, err);
	}
	json_array_foreach (json_object_get(spec, "volumes"), i, one) {
		if (!r)
			r = check_volume(api, one, ret, err);
	}
	if (!r)
		r = check_binds(spec, ret);
	return r < 0 ? r : pid_check_room(w, ret, err);
}
