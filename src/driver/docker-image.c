/*
 * The image of a Docker container at a target that lacks it: which layers are missing, how large they are, who brings them. See docker.h.
 *
 * A layer is the target's when one of its images begins with the same layers up to it (diff ids, by digest): Docker's load takes those from
 * its own store. No state; any thread.
 */
#include "driver/docker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "driver/helper.h"

#define NOTE "docker-image" /* in the work directory: the image that was not there before this migration */
#define SPOOL 2		    /* Docker keeps the archive while it unpacks it */

/* Sizes are those of the history's entries that have one; where they do not match the layers one by one, only the sum is known. */
static void add_sizes(struct docker_api *api, const char *id, json_t *layers)
{
	_cleanup_json_ json_t *history = NULL, *sizes = json_array();
	struct error ignored = { 0 };
	json_t *one;
	size_t i;

	if (docker_api_call(api, "GET", NULL, &history, &ignored, "/images/%s/history", docker_api_escape(api, id)) < 0)
		return;
	json_array_foreach (history, i, one) {
		if (json_integer_value(json_object_get(one, "Size")) > 0)
			json_array_insert(sizes, 0, json_object_get(one, "Size"));
	}
	if (json_array_size(sizes) != json_array_size(layers))
		return;
	json_array_foreach (layers, i, one) {
		json_object_set(one, "bytes", json_array_get(sizes, i));
	}
}

int docker_image_describe(struct docker_api *api, json_t *spec, struct error *err)
{
	const char *id = docker_json_text(spec, "image");
	_cleanup_json_ json_t *image = NULL;
	json_t *layers = json_array(), *one;
	size_t i;
	int r = docker_api_call(api, "GET", NULL, &image, err, "/images/%s/json", docker_api_escape(api, id));

	json_object_set_new(spec, "layers", layers);
	/* An image that was removed under its container: whoever lacks it cannot get it. */
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	json_object_set(spec, "image_bytes", json_object_get(image, "Size"));
	json_array_foreach (docker_json_at(image, "RootFS.Layers"), i, one) {
		json_array_append_new(layers, json_pack("{s:O}", "id", one));
	}
	add_sizes(api, id, layers);
	return 0;
}

/* How many of the first layers are the same. */
static size_t common_layers(const json_t *layers, const json_t *others)
{
	size_t n = 0;

	while (n < json_array_size(layers) && n < json_array_size(others)) {
		const char *mine = docker_json_text(json_array_get(layers, n), "id");

		if (!*mine || strcmp(mine, json_string_value(json_array_get(others, n)) ?: "") != 0)
			break;
		n++;
	}
	return n;
}

/* Of all images that this daemon has. */
static int count_layers(struct docker_api *api, const json_t *spec, size_t *ret, struct error *err)
{
	_cleanup_json_ json_t *images = NULL;
	json_t *one;
	size_t i, most = 0;
	int r = docker_api_call(api, "GET", NULL, &images, err, "/images/json");

	if (r < 0)
		return r;
	json_array_foreach (images, i, one) {
		_cleanup_json_ json_t *image = NULL;
		struct error ignored = { 0 }; /* it may be gone by now */
		size_t n;

		if (docker_api_call(api, "GET", NULL, &image, &ignored, "/images/%s/json",
				    docker_api_escape(api, docker_json_text(one, "Id"))) < 0)
			continue;
		n = common_layers(json_object_get(spec, "layers"), docker_json_at(image, "RootFS.Layers"));
		most = MAX(most, n);
	}
	*ret = most;
	return 0;
}

/* Bytes of the layers that are missing; of the whole image where that is not known. */
static uint64_t missing_bytes(const json_t *spec, size_t have)
{
	const json_t *layers = json_object_get(spec, "layers");
	json_int_t sum = 0, all = json_integer_value(json_object_get(spec, "image_bytes"));

	for (size_t i = have; i < json_array_size(layers); i++) {
		const json_t *bytes = json_object_get(json_array_get(layers, i), "bytes");

		if (!bytes)
			return (uint64_t)MAX(all, (json_int_t)0);
		sum += MAX(json_integer_value(bytes), (json_int_t)0);
	}
	return (uint64_t)sum;
}

static int check_room(struct docker_api *api, uint64_t bytes, struct obstacles *o, struct error *err)
{
	_cleanup_json_ json_t *info = NULL;
	uint64_t room;
	int r = docker_api_call(api, "GET", NULL, &info, err, "/info");

	if (r < 0 || dir_free_bytes(docker_json_text(info, "DockerRootDir"), &room) < 0 || room / SPOOL >= bytes)
		return r;
	return obstacles_add(
		o, OBSTACLE_REFUSES, true, "make room there",
		"only %llu MiB are free below %.200s at the target, and bringing the container's image takes %llu",
		(unsigned long long)(room >> 20), docker_json_text(info, "DockerRootDir"),
		(unsigned long long)(bytes * SPOOL >> 20));
}

int docker_image_check(struct docker_api *api, const json_t *spec, const struct driver_options *options,
		       struct obstacles *o, struct error *err)
{
	const char *id = docker_json_text(spec, "image"), *name = docker_json_text(spec, "image_name");
	size_t have = 0, n = json_array_size(json_object_get(spec, "layers"));
	int r = docker_api_call(api, "GET", NULL, NULL, err, "/images/%s/json", docker_api_escape(api, id));
	uint64_t bytes;

	if (r != -ENOENT)
		return r;
	if (!options->can_bring || !n)
		return obstacles_add(o, OBSTACLE_REFUSES, true,
				     "pull it there, or bring it: docker save ... | ssh ... docker load",
				     "the target lacks the container's image %.100s (%.19s)%s", name, id,
				     n ? "" : ", which the source no longer has either");
	r = count_layers(api, spec, &have, err);
	if (r < 0)
		return r;
	bytes = missing_bytes(spec, have);
	r = obstacles_add(
		o, OBSTACLE_WARNS, true, NULL,
		"the target lacks the container's image %.100s (%.19s): it is brought along, %zu of %zu layers, "
		"%llu.%llu MB",
		name, id, n - have, n, (unsigned long long)(bytes / 1000000),
		(unsigned long long)(bytes / 100000 % 10));
	return r < 0 ? r : check_room(api, bytes, o, err);
}

/* Whether the name may be the image's there too: it is nobody else's. */
static int name_is_free(struct docker_api *api, const char *name, struct error *err)
{
	int r = docker_api_call(api, "GET", NULL, NULL, err, "/images/%s/json", docker_api_escape(api, name));

	return r == -ENOENT ? 1 : r;
}

/* forget() removes what this migration brought, and nothing else. */
static int note(const struct driver_place *place, const char *id, struct error *err)
{
	char path[600];
	int r;

	snprintf(path, sizeof(path), "%s/" NOTE, place->work_directory);
	r = fd_write_file(AT_FDCWD, path, id, strlen(id), 0600);
	return r < 0 ? error_errno(err, -r, "cannot write %s", path) : 0;
}

int docker_lacks(const struct workload *w, const struct driver_place *place, char **ret, struct error *err)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	_cleanup_json_ json_t *spec = NULL, *words = NULL;
	const char *id;
	size_t have = 0;
	int r = docker_spec_read(w, &spec, err), free_name = 0;

	if (!r)
		r = docker_api_open(place->options->engine, &api, err);
	if (r < 0)
		return r;
	id = docker_json_text(spec, "image");
	r = docker_api_call(api, "GET", NULL, NULL, err, "/images/%s/json", docker_api_escape(api, id));
	if (r != -ENOENT)
		return r;
	r = count_layers(api, spec, &have, err);
	if (!r)
		r = free_name = name_is_free(api, docker_json_text(spec, "image_name"), err);
	if (r >= 0)
		r = note(place, id, err);
	if (r < 0)
		return r;
	words = json_pack("{s:I, s:b}", "have", (json_int_t)have, "name", free_name);
	*ret = words ? json_dumps(words, JSON_COMPACT) : NULL;
	return *ret ? 0 : error_set(err, ENOMEM, "no memory to ask for the image");
}

/* By name, which is then the image's there; or by id, without one. */
static int choose_reference(const json_t *spec, const struct driver_options *options, bool named, const char **ret,
			    struct error *err)
{
	const char *id = docker_json_text(spec, "image"), *name = docker_json_text(spec, "image_name");
	_cleanup_docker_api_ struct docker_api *api = NULL;
	_cleanup_json_ json_t *image = NULL;
	int r = docker_api_open(options->engine, &api, err);

	if (r < 0)
		return r;
	if (named)
		r = docker_api_call(api, "GET", NULL, &image, err, "/images/%s/json", docker_api_escape(api, name));
	if (r < 0 && r != -ENOENT && r != -EINVAL)
		return r;
	*ret = !strcmp(docker_json_text(image, "Id"), id) ? name : id;
	return 0;
}

int docker_give(const struct workload *w, const struct driver_options *options, const char *words, int fd,
		int stderr_fd, struct process *ret, struct error *err)
{
	_cleanup_json_ json_t *spec = NULL, *wish = json_loads(words, 0, NULL);
	json_int_t have = json_integer_value(json_object_get(wish, "have"));
	char count[32];
	const char *argv[] = {
		"/proc/self/exe", DRIVER_HELPER, DOCKER_GIVE, options->engine ? options->engine : "", "", count, NULL
	};
	struct process_options child = {
		.argv = argv, .stdin_fd = -1, .stdout_fd = fd, .stderr_fd = stderr_fd, .new_session = true
	};
	int r = docker_spec_read(w, &spec, err);

	if (!r && (have < 0 || (size_t)have > json_array_size(json_object_get(spec, "layers"))))
		r = error_set(err, EPROTO, "the target asks for layers of the image that it does not have");
	if (!r)
		r = choose_reference(spec, options, json_is_true(json_object_get(wish, "name")), &argv[4], err);
	snprintf(count, sizeof(count), "%lld", (long long)have);
	return r < 0 ? r : process_start(&child, ret, err);
}

int docker_take(const struct workload *w, const struct driver_place *place, const char *words, int fd, int stderr_fd,
		struct process *ret, struct error *err)
{
	_cleanup_json_ json_t *spec = NULL;
	int r = docker_spec_read(w, &spec, err);
	const char *const argv[] = { "/proc/self/exe",
				     DRIVER_HELPER,
				     DOCKER_TAKE,
				     place->options->engine ? place->options->engine : "",
				     docker_json_text(spec, "image"),
				     docker_json_text(spec, "image_name"),
				     NULL };
	struct process_options child = {
		.argv = argv, .stdin_fd = fd, .stdout_fd = -1, .stderr_fd = stderr_fd, .new_session = true
	};

	(void)words;
	return r < 0 ? r : process_start(&child, ret, err);
}

void docker_image_forget(struct docker_api *api, const struct driver_place *place)
{
	_cleanup_buffer_ struct buffer id = { 0 };
	struct error err = { 0 };
	char path[600];

	snprintf(path, sizeof(path), "%s/" NOTE, place->work_directory);
	if (fd_read_file(AT_FDCWD, path, 128, &id) < 0 || buffer_append(&id, "", 1) < 0)
		return;
	if (docker_api_call(api, "DELETE", NULL, NULL, &err, "/images/%s",
			    docker_api_escape(api, (const char *)id.data)) < 0 &&
	    err.number != ENOENT)
		log_warning("the image %s stays behind: %s", (const char *)id.data, err.text);
}
