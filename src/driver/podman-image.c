/*
 * The image of a Podman container at a target that lacks it: `podman save` there, `podman load` here, all of it. See podman.h. No state; any
 * thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "driver/podman.h"

#define NOTE "podman-image" /* in the work directory: the image that was not there before this migration */
#define ID_DIGITS 64

/* The id that the name means here. 1: there is none. */
static int resolve(const char *engine, const char *name, char ret[ID_DIGITS + 1], struct error *err)
{
	const char *exists[] = { "image", "exists", name, NULL };
	const char *inspect[] = { "image", "inspect", "--format", "{{.Id}}", name, NULL };
	_cleanup_buffer_ struct buffer output = { 0 };
	struct error ignored = { 0 };
	int r = podman_run(engine, exists, NULL, &ignored);

	if (r < 0)
		return r == -EIO ? 1 : error_set(err, -r, "%s", ignored.text);
	r = podman_run(engine, inspect, &output, err);
	if (r < 0)
		return r;
	snprintf(ret, ID_DIGITS + 1, "%.*s", (int)MIN(output.length, (size_t)ID_DIGITS), (const char *)output.data);
	return 0;
}

/* Nothing is said where the name is no longer that image's here: it could not be brought. */
void podman_image_describe(const char *engine, json_t *spec)
{
	const char *words[] = {
		"image", "inspect", "--format", "{{.Id}} {{.Size}} {{.ManifestType}}", podman_text(spec, "image_name"),
		NULL
	};
	_cleanup_buffer_ struct buffer output = { 0 };
	struct error ignored = { 0 };
	char id[ID_DIGITS + 1] = "";
	long long bytes = 0;

	if (podman_run(engine, words, &output, &ignored) < 0 || buffer_append(&output, "", 1) < 0 ||
	    sscanf((const char *)output.data, "%64s %lld", id, &bytes) != 2 ||
	    strcmp(id, podman_text(spec, "image")) != 0)
		return;
	json_object_set_new(spec, "image_bytes", json_integer(bytes));
	/* In another format it would have another id. */
	json_object_set_new(spec, "image_format",
			    json_string(strstr((const char *)output.data, ".oci.") ? "oci-archive" : "docker-archive"));
}

int podman_image_check(const json_t *spec, const struct driver_options *options, struct obstacles *o)
{
	const char *name = podman_text(spec, "image_name"), *format = podman_text(spec, "image_format");
	json_int_t bytes = json_integer_value(json_object_get(spec, "image_bytes"));
	char id[ID_DIGITS + 1] = "";
	struct error why = { 0 };
	int r = resolve(options->engine, name, id, &why);

	if (r < 0)
		return obstacles_add(o, OBSTACLE_REFUSES, true, NULL, "at the target: %.300s", why.text);
	if (!r && !strcmp(id, podman_text(spec, "image")))
		return 0;
	if (r && options->can_bring && *format)
		return obstacles_add(o, OBSTACLE_WARNS, true, NULL,
				     "the target lacks the container's image %.128s: it is brought along, %lld.%lld MB",
				     name, (long long)(bytes / 1000000), (long long)(bytes / 100000 % 10));
	return obstacles_add(
		o, OBSTACLE_REFUSES, true, "bring it: podman save IMAGE | ssh HOST podman load",
		!r	  ? "the target's image %.128s is another one than the container's"
		: *format ? "the target does not have the container's image %.128s"
			  : "the target does not have the container's image %.128s, and the source no longer "
			    "has it under that name",
		name);
}

int podman_lacks(const struct workload *w, const struct driver_place *place, char **ret, struct error *err)
{
	char id[ID_DIGITS + 1] = "", path[600];
	json_t *spec = NULL;
	int r = podman_spec_read(w, &spec, err);

	if (!r)
		r = resolve(place->options->engine, podman_text(spec, "image_name"), id, err);
	if (r <= 0) {
		json_decref(spec);
		return r;
	}
	/* forget() removes what this migration brought, and nothing else. */
	snprintf(path, sizeof(path), "%s/" NOTE, place->work_directory);
	r = fd_write_file(AT_FDCWD, path, podman_text(spec, "image"), strlen(podman_text(spec, "image")), 0600);
	json_decref(spec);
	if (r < 0)
		return error_errno(err, -r, "cannot write %s", path);
	*ret = strdup("{}");
	return *ret ? 0 : error_set(err, ENOMEM, "no memory to ask for the image");
}

static int start(const char *engine, const char *const *words, int in_fd, int out_fd, int stderr_fd,
		 struct process *ret, struct error *err)
{
	const char *argv[10] = { "podman" };
	struct process_options options = {
		.argv = argv, .stdin_fd = in_fd, .stdout_fd = out_fd, .stderr_fd = stderr_fd, .new_session = true
	};
	size_t n = 1;

	if (engine) {
		argv[n++] = "--root";
		argv[n++] = engine;
	}
	while (*words)
		argv[n++] = *words++;
	return process_start(&options, ret, err);
}

int podman_give(const struct workload *w, const struct driver_options *options, const char *wish, int fd, int stderr_fd,
		struct process *ret, struct error *err)
{
	json_t *spec = NULL;
	int r = podman_spec_read(w, &spec, err);
	const char *words[] = {
		"save", "--quiet", "--format", podman_text(spec, "image_format"), podman_text(spec, "image_name"), NULL
	};

	(void)wish;
	if (!r && !*podman_text(spec, "image_format"))
		r = error_set(err, ENOENT, "the image %.128s is not here any more", podman_text(spec, "image_name"));
	if (!r)
		r = start(options->engine, words, -1, fd, stderr_fd, ret, err);
	json_decref(spec);
	return r;
}

int podman_take(const struct workload *w, const struct driver_place *place, const char *wish, int fd, int stderr_fd,
		struct process *ret, struct error *err)
{
	static const char *const words[] = { "load", "--quiet", NULL };

	(void)w;
	(void)wish;
	return start(place->options->engine, words, fd, -1, stderr_fd, ret, err);
}

int podman_image_arrived(const json_t *spec, const struct driver_place *place, struct error *err)
{
	const char *name = podman_text(spec, "image_name");
	char id[ID_DIGITS + 1] = "";
	int r = resolve(place->options->engine, name, id, err);

	if (r < 0 || (!r && !strcmp(id, podman_text(spec, "image"))))
		return r;
	return error_set(err, EPROTO, "the image %.128s that was brought to the target is %s there", name,
			 r ? "not" : "another one");
}

void podman_image_forget(const struct driver_place *place)
{
	_cleanup_buffer_ struct buffer id = { 0 };
	struct error err = { 0 };
	const char *words[] = { "image", "rm", "--ignore", NULL, NULL };
	char path[600];

	snprintf(path, sizeof(path), "%s/" NOTE, place->work_directory);
	if (fd_read_file(AT_FDCWD, path, ID_DIGITS + 1, &id) < 0 || buffer_append(&id, "", 1) < 0)
		return;
	words[3] = (const char *)id.data;
	if (podman_run(place->options->engine, words, NULL, &err) < 0)
		log_warning("the image %s stays behind: %s", words[3], err.text);
}
