/*
 * The target's half: makes the container, has the daemon restore it, gives it its name, or takes it all away again. See docker.h.
 *
 * Until it runs, the container is called phaul-MIGRATION: by that name, which nobody else uses, a later process finds what this one made, and
 * nobody starts it by its own name before its time. No state; any thread.
 */
#include "driver/docker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "driver/helper.h"
#include "driver/oci.h"
#include "driver/runc-conf.h"

#define VOLUMES_FILE "docker-volumes" /* in the work directory: names of the volumes that were made */

static void working_name(const struct driver_place *place, char *ret, size_t size)
{
	snprintf(ret, size, DOCKER_NAME_PREFIX "%s", place->id_text);
}

int docker_find_ours(struct docker_api *api, const struct driver_place *place, json_t **ret, struct error *err)
{
	char name[80];

	working_name(place, name, sizeof(name));
	return docker_api_call(api, "GET", NULL, ret, err, "/containers/%s/json", docker_api_escape(api, name));
}

static int note_volume(const struct driver_place *place, const char *name, struct error *err)
{
	_cleanup_close_ int fd = -1;
	char path[600], line[300];
	int n = snprintf(line, sizeof(line), "%s\n", name);

	snprintf(path, sizeof(path), "%s/" VOLUMES_FILE, place->work_directory);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || n >= (int)sizeof(line) || fd_write_full(fd, line, (size_t)n) < 0)
		return error_errno(err, errno, "cannot note the volume %.100s in %s", name, path);
	return 0;
}

/* One that is there may be used: check_target has judged it. */
static int make_volume(struct docker_api *api, const json_t *volume, const struct driver_place *place,
		       struct error *err)
{
	const char *name = docker_json_text(volume, "name");
	_cleanup_json_ json_t *body = NULL;
	int r;

	if (!json_is_true(json_object_get(volume, "named")))
		return 0; /* Docker makes it with the container */
	r = docker_api_call(api, "GET", NULL, NULL, err, "/volumes/%s", docker_api_escape(api, name));
	if (r != -ENOENT)
		return r;
	r = note_volume(place, name, err);
	if (r < 0)
		return r;
	body = json_pack("{s:s, s:s, s:O?, s:O?}", "Name", name, "Driver", docker_json_text(volume, "driver"),
			 "DriverOpts", json_object_get(volume, "options"), "Labels", json_object_get(volume, "labels"));
	return docker_api_call(api, "POST", body, NULL, err, "/volumes/create");
}

/* The name that the container uses, where that means the same image there; else its id. */
static int choose_image(struct docker_api *api, const json_t *spec, const char **ret, struct error *err)
{
	const char *name = docker_json_text(spec, "image_name"), *id = docker_json_text(spec, "image");
	_cleanup_json_ json_t *image = NULL;
	int r = docker_api_call(api, "GET", NULL, &image, err, "/images/%s/json", docker_api_escape(api, name));

	if (r < 0 && r != -ENOENT && r != -EINVAL)
		return r;
	*ret = image && !strcmp(docker_json_text(image, "Id"), id) ? name : id;
	return 0;
}

static int connect_networks(struct docker_api *api, const json_t *spec, const char *id, struct error *err)
{
	json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (json_object_get(spec, "networks"), i, one) {
		_cleanup_json_ json_t *body = NULL;

		if (!i || r < 0)
			continue;
		body = json_pack("{s:s, s:O}", "Container", id, "EndpointConfig", json_object_get(one, "config"));
		r = docker_api_call(api, "POST", body, NULL, err, "/networks/%s/connect",
				    docker_api_escape(api, docker_json_text(one, "name")));
	}
	return r;
}

static int create(struct docker_api *api, const json_t *spec, const struct driver_place *place, json_t **ret,
		  struct error *err)
{
	_cleanup_json_ json_t *body = NULL, *answer = NULL;
	const char *image = NULL;
	char name[80];
	int r = choose_image(api, spec, &image, err);

	if (!r)
		r = docker_spec_body(api, spec, image, &body, err);
	working_name(place, name, sizeof(name));
	if (!r)
		r = docker_api_call(api, "POST", body, &answer, err, "/containers/create?name=%s",
				    docker_api_escape(api, name));
	if (!r)
		r = connect_networks(api, spec, docker_json_text(answer, "Id"), err);
	return r < 0 ? r : docker_find_ours(api, place, ret, err);
}

/* Where Docker has put what is mounted there. */
static const char *mount_source(const json_t *inspected, const char *destination)
{
	json_t *one;
	size_t i;

	json_array_foreach (json_object_get(inspected, "Mounts"), i, one) {
		if (!strcmp(docker_json_text(one, "Destination"), destination))
			return docker_json_text(one, "Source");
	}
	return "";
}

static int place_tree(const json_t *inspected, const char *directory, struct workload_tree *tree, struct error *err)
{
	const char *name = tree->name, *path = "";
	char log[1200];

	if (!strcmp(name, "layer")) {
		path = docker_json_text(docker_json_at(inspected, "GraphDriver.Data"), "UpperDir");
	} else if (!strcmp(name, "log")) {
		snprintf(log, sizeof(log), "%s/%s-json.log", directory, docker_json_text(inspected, "Id"));
		path = log;
	} else if (!strncmp(name, "volume:", 7)) {
		path = mount_source(inspected, name + 7);
	} else if (!strncmp(name, "bind:", 5)) {
		path = mount_source(inspected, name + 5);
	}
	if (path[0] != '/')
		return error_set(err, EPROTO, "the target's container has no place for \"%.100s\"", name);
	free(tree->target_path);
	tree->target_path = strdup(path);
	return tree->target_path ? 0 : error_set(err, ENOMEM, "no memory to place what is brought along");
}

/* A bind mount that is brought along must be there when the container is made: Docker refuses it otherwise. */
static int make_binds(const json_t *spec, struct error *err)
{
	json_t *one;
	size_t i;

	if (strcmp(docker_json_text(spec, "bind_rule"), "bring") != 0)
		return 0;
	json_array_foreach (json_object_get(spec, "binds"), i, one) {
		const char *source = docker_json_text(one, "source");
		int r = source[0] == '/' ? 0 : -EINVAL;

		if (!r && access(source, F_OK) < 0)
			r = dir_make(source, 0755);
		if (r < 0)
			return error_errno(err, -r, "cannot make %.200s at the target", source);
	}
	return 0;
}

/* Docker checks that the directory of the checkpoint is there; runc looks into it for the names of the standard descriptors. */
static int write_checkpoint(const json_t *spec, const char *directory, struct error *err)
{
	char path[1300];
	int r;

	snprintf(path, sizeof(path), "%s/checkpoints/" DOCKER_CHECKPOINT, directory);
	r = dir_make(path, 0700);
	if (r < 0)
		return error_errno(err, -r, "cannot make %s", path);
	return oci_write_descriptors(json_object_get(spec, "stdio"), path, err);
}

int docker_prepare(struct workload *w, const struct driver_place *place, struct error *err)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	_cleanup_json_ json_t *spec = NULL, *inspected = NULL, *one;
	char directory[1100];
	size_t i;
	int r = docker_spec_read(w, &spec, err);

	if (!r)
		r = docker_api_open(place->options->engine, &api, err);
	if (!r)
		r = make_binds(spec, err);
	json_array_foreach (json_object_get(spec, "volumes"), i, one) {
		if (!r)
			r = make_volume(api, one, place, err);
	}
	one = NULL;
	if (!r)
		r = create(api, spec, place, &inspected, err);
	if (!r)
		r = docker_container_directory(api, docker_json_text(inspected, "Id"), directory, sizeof(directory),
					       err);
	if (!r)
		r = write_checkpoint(spec, directory, err);
	for (i = 0; i < w->n_trees && !r; i++)
		r = place_tree(inspected, directory, &w->trees[i], err);
	return r;
}

/* Its addresses may be others there: what was connected is restored as closed. The source's dump keeps the connections, for a rollback. */
static int end_connections(const char *config, struct error *err)
{
	static const char line[] = "tcp-close\n";
	_cleanup_close_ int fd = open(config, O_WRONLY | O_APPEND | O_CLOEXEC);
	int r = fd < 0 ? -errno : fd_write_full(fd, line, sizeof(line) - 1);

	return r < 0 ? error_errno(err, -r, "cannot write %s", config) : 0;
}

int docker_restore(const struct workload *w, struct driver_place *place, int stderr_fd, struct process *ret,
		   struct error *err)
{
	const char *socket = place->options->engine ? place->options->engine : "";
	char name[80], netns[128] = "", answer[600] = "";
	const char *const argv[] = { "/proc/self/exe",	DRIVER_HELPER, DOCKER_START, socket, name,
				     DOCKER_CHECKPOINT, netns,	       answer,	     NULL };
	struct process_options options = {
		.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = stderr_fd, .new_session = true
	};
	_cleanup_json_ json_t *spec = NULL;
	_cleanup_close_ int netns_fd = -1;
	int r = docker_spec_read(w, &spec, err);

	working_name(place, name, sizeof(name));
	if (!r && !json_is_true(json_object_get(spec, "connections")))
		r = end_connections(place->criu_config, err);
	if (!r && docker_netns_wanted(spec)) {
		r = docker_netns_open(spec, place, &netns_fd, err);
		docker_netns_name(place, netns, sizeof(netns));
		docker_netns_answer(place, answer, sizeof(answer));
	}
	if (!r)
		r = runc_conf_take(place->criu_config, &place->lock, err);
	return r < 0 ? r : process_start(&options, ret, err);
}

void docker_restore_begun(struct driver_place *place)
{
	runc_conf_give_back(&place->lock);
}

static int set_policy(struct docker_api *api, const char *id, const json_t *policy, struct error *err)
{
	_cleanup_json_ json_t *body = NULL;

	if (!*docker_json_text(policy, "Name") || !strcmp(docker_json_text(policy, "Name"), "no"))
		return 0;
	body = json_pack("{s:O}", "RestartPolicy", policy);
	return docker_api_call(api, "POST", body, NULL, err, "/containers/%s/update", docker_api_escape(api, id));
}

/* The checkpoint has done its work, and `docker checkpoint ls` would show it. */
static void remove_checkpoint(struct docker_api *api, const char *id)
{
	struct error err = { 0 };
	char directory[1100], path[1300];

	if (docker_container_directory(api, id, directory, sizeof(directory), &err) < 0)
		return;
	snprintf(path, sizeof(path), "%s/checkpoints/" DOCKER_CHECKPOINT, directory);
	if (dir_remove(path) < 0)
		log_debug("cannot remove %s", path);
}

int docker_restored(const struct workload *w, const struct driver_place *place, struct error *err)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	_cleanup_json_ json_t *spec = NULL, *inspected = NULL;
	const char *id, *name;
	int r = docker_spec_read(w, &spec, err);

	if (!r)
		r = docker_api_open_again(place->options->engine, &api, err);
	if (!r)
		r = docker_find_ours(api, place, &inspected, err);
	if (r < 0)
		return r == -ENOENT && spec ? 0 : r; /* it has its name already */
	id = docker_json_text(inspected, "Id");
	name = docker_target_name(spec, place->options);
	remove_checkpoint(api, id);
	r = set_policy(api, id, docker_json_at(spec, "host_config.RestartPolicy"), err);
	if (r < 0)
		return error_wrap(err, "the container runs, but its restart policy is not set");
	r = docker_api_call(api, "POST", NULL, NULL, err, "/containers/%s/rename?name=%s", id,
			    docker_api_escape(api, name));
	return r < 0 ? error_wrap(err, "the container runs, but is still called " DOCKER_NAME_PREFIX "%s",
				  place->id_text)
		     : 0;
}

/* Those that this migration made, unless somebody uses them by now. */
static int forget_volumes(struct docker_api *api, const struct driver_place *place)
{
	_cleanup_fclose_ FILE *f = NULL;
	struct error err = { 0 };
	char path[600], line[300];

	snprintf(path, sizeof(path), "%s/" VOLUMES_FILE, place->work_directory);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (docker_api_call(api, "DELETE", NULL, NULL, &err, "/volumes/%s", docker_api_escape(api, line)) < 0 &&
		    err.number != ENOENT)
			log_warning("the volume %s stays behind: %s", line, err.text);
	}
	return 0;
}

int docker_forget(const struct workload *w, const struct driver_place *place, struct error *err)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	char name[80];
	int r;

	(void)w;
	runc_conf_mend();
	docker_netns_remove(place);
	r = docker_api_open_again(place->options->engine, &api, err);
	if (r < 0)
		return r;
	working_name(place, name, sizeof(name));
	r = docker_api_call(api, "DELETE", NULL, NULL, err, "/containers/%s?force=1&v=1", docker_api_escape(api, name));
	if (r < 0 && r != -ENOENT)
		return r;
	docker_image_forget(api, place);
	return forget_volumes(api, place);
}
