/*
 * The source's half: what a Docker container is, and what of it cannot move. See docker.h.
 *
 * The daemon is only asked; it learns of the move when the tasks have ended. No state; any thread.
 */
#include "driver/docker.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "driver/oci.h"

/* 0, with the container as inspect shows it; -ESRCH, -EINVAL. */
static int inspect_running(struct docker_api *api, const char *id, json_t **ret, struct error *err)
{
	_cleanup_json_ json_t *inspected = NULL;
	const json_t *state;
	int r;

	if (!*id)
		return error_set(err, EINVAL, "a Docker container is named by its name or id");
	r = docker_api_call(api, "GET", NULL, &inspected, err, "/containers/%s/json", docker_api_escape(api, id));
	if (r == -ENOENT)
		return error_set(err, ESRCH, "there is no Docker container \"%.64s\"", id);
	if (r < 0)
		return r;
	state = json_object_get(inspected, "State");
	if (json_is_true(json_object_get(state, "Paused")))
		return error_set(err, EINVAL, "the container %.64s is paused: docker unpause it first", id);
	if (!json_is_true(json_object_get(state, "Running")) || json_integer_value(json_object_get(state, "Pid")) <= 0)
		return error_set(err, EINVAL, "the container %.64s is not running (%s)", id,
				 docker_json_text(state, "Status"));
	if (!docker_id_valid(docker_json_text(inspected, "Id")))
		return error_set(err, EPROTO, "Docker did not say the id of the container %.64s", id);
	*ret = TAKE_PTR(inspected);
	return 0;
}

/* What the runtime below the daemon knows. */
static int describe_state(const json_t *inspected, json_t *spec, struct workload *w, struct error *err)
{
	_cleanup_oci_ struct oci_state state = { 0 };
	char root[1200];
	int r = docker_state_root(inspected, root, sizeof(root));

	if (r < 0)
		return error_errno(err, -r, "cannot name the runtime's state of the container");
	r = oci_state_read(root, docker_json_text(inspected, "Id"), &state, err);
	if (r < 0)
		return error_wrap(err, "only what runc runs, and runtimes that keep its state alike, can be moved");
	json_object_set_new(spec, "state_root", json_string(root));
	json_object_set_new(spec, "stdio", oci_descriptors(&state));
	return oci_describe(&state, w, err);
}

int docker_read_state(const json_t *spec, struct oci_state *ret, struct error *err)
{
	return oci_state_read(docker_json_text(spec, "state_root"), docker_json_text(spec, "id"), ret, err);
}

int docker_way(const struct workload *w, const struct driver_options *options, struct checkpoint_way *ret,
	       struct error *err)
{
	_cleanup_oci_ struct oci_state state = { 0 };
	_cleanup_json_ json_t *spec = NULL;
	int r = docker_spec_read(w, &spec, err);

	(void)options;
	if (!r)
		r = docker_read_state(spec, &state, err);
	if (!r)
		r = oci_way(&state, ret, err);
	/* The namespace is there before the restore, always. */
	return r < 0 || !docker_netns_wanted(spec) ? r : oci_way_network(&state, ret, err);
}

static int add_tree(struct workload *w, const char *kind, const char *of, const char *path, struct error *err)
{
	char name[300];
	int r;

	if (snprintf(name, sizeof(name), "%s%s", kind, of) >= (int)sizeof(name))
		return error_set(err, ENAMETOOLONG, "the name of %s is too long", of);
	r = workload_add_tree(w, name, path);
	return r < 0 ? error_errno(err, -r, "cannot bring %s along", path) : 0;
}

static int add_trees(const json_t *inspected, json_t *spec, struct workload *w, struct error *err)
{
	const char *upper = docker_json_text(docker_json_at(inspected, "GraphDriver.Data"), "UpperDir");
	const char *log = docker_json_text(inspected, "LogPath");
	bool bring = !strcmp(docker_json_text(spec, "bind_rule"), "bring");
	json_t *one;
	size_t i;
	int r = *upper ? add_tree(w, "layer", "", upper, err) : 0;

	json_array_foreach (json_object_get(spec, "volumes"), i, one) {
		if (!r && json_is_true(json_object_get(one, "brought")))
			r = add_tree(w, "volume:", docker_json_text(one, "destination"),
				     docker_json_text(one, "source"), err);
	}
	json_array_foreach (json_object_get(spec, "binds"), i, one) {
		if (!r && bring)
			r = add_tree(w, "bind:", docker_json_text(one, "destination"), docker_json_text(one, "source"),
				     err);
	}
	json_object_set_new(spec, "log", json_boolean(*log && access(log, R_OK) == 0));
	if (!r && json_is_true(json_object_get(spec, "log")))
		r = add_tree(w, "log", "", log, err);
	return r;
}

/* The daemon's ways that both sides must share. */
static int add_daemon(struct docker_api *api, json_t *spec, struct error *err)
{
	_cleanup_json_ json_t *info = NULL;
	int r = docker_api_call(api, "GET", NULL, &info, err, "/info");

	if (r < 0)
		return r;
	json_object_set_new(spec, "storage", json_string(docker_json_text(info, "Driver")));
	json_object_set_new(spec, "cgroup_version", json_string(docker_json_text(info, "CgroupVersion")));
	json_object_set(spec, "security", json_object_get(info, "SecurityOptions"));
	return 0;
}

static int fill(struct docker_api *api, const json_t *inspected, const char *rule, struct workload *w,
		struct error *err)
{
	_cleanup_json_ json_t *spec = NULL;
	int r = docker_spec_make(api, inspected, rule, &spec, err);

	if (!r)
		r = add_daemon(api, spec, err);
	if (!r)
		r = describe_state(inspected, spec, w, err);
	if (!r)
		r = add_trees(inspected, spec, w, err);
	if (r < 0)
		return r;
	json_object_set(spec, "execs", json_object_get(inspected, "ExecIDs"));
	w->spec = json_dumps(spec, JSON_COMPACT);
	if (!w->spec)
		return error_set(err, ENOMEM, "no memory to describe the container");
	if (strlen(w->spec) > WORKLOAD_SPEC_MAX)
		return error_set(err, E2BIG, "the container's configuration is larger than %u bytes",
				 WORKLOAD_SPEC_MAX);
	return 0;
}

int docker_describe(const char *id, const struct driver_options *options, struct workload *ret, struct error *err)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	_cleanup_json_ json_t *inspected = NULL;
	struct workload w = { 0 };
	int r = docker_api_open(options->engine, &api, err);

	if (!r)
		r = inspect_running(api, id, &inspected, err);
	if (!r)
		r = fill(api, inspected, options->bind_rule ? options->bind_rule : "present", &w, err);
	if (r < 0) {
		workload_free(&w);
		return r;
	}
	snprintf(w.type, sizeof(w.type), "%s", driver_docker.name);
	snprintf(w.id, sizeof(w.id), "%s", id);
	*ret = w;
	return 0;
}

int docker_network(const struct workload *w, const struct driver_place *place, int *ret_fd, struct error *err)
{
	_cleanup_json_ json_t *spec = NULL;
	int r = docker_spec_read(w, &spec, err);

	if (r < 0)
		return r;
	if (!docker_netns_wanted(spec))
		return -ENOENT;
	return place ? docker_netns_open(spec, place, ret_fd, err) : oci_network(w->root_pid, ret_fd, err);
}
