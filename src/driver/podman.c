/*
 * The Podman driver, the source's half and the table. See podman.h; the target's half is podman-target.c.
 *
 * Podman keeps the command line that made a container; the target makes it with the same one. No state besides the workload; any thread.
 */
#include "driver/podman.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "driver/oci.h"
#include "driver/pid.h"

#define RUN_MS 120000
#define WORDS_MAX 64
#define NAME_MAX_BYTES 200
#define SHM "/dev/shm"

int podman_run(const char *engine, const char *const *words, struct buffer *output, struct error *err)
{
	const char *argv[WORDS_MAX + 4] = { "podman" };
	size_t n = 1;
	int r;

	if (engine) {
		argv[n++] = "--root";
		argv[n++] = engine;
	}
	for (size_t i = 0; i < WORDS_MAX && words[i]; i++)
		argv[n++] = words[i];
	r = process_run(argv, output, deadline_in_ms(RUN_MS), err);
	if (r == -ENOENT)
		return error_set(err, ENOENT, "podman is not installed on this host");
	return r > 0 ? -EIO : r;
}

int podman_inspect(const char *engine, const char *name, json_t **ret, struct error *err)
{
	const char *words[] = { "container", "inspect", "--", name, NULL };
	_cleanup_buffer_ struct buffer output = { 0 };
	struct error why = { 0 };
	json_t *list;
	int r = podman_run(engine, words, &output, &why);

	if (r == -ENOENT)
		return error_set(err, ENOENT, "%s", why.text);
	if (r < 0)
		return strstr(why.text, "no such container") || strstr(why.text, "no container with")
			       ? error_set(err, ESRCH, "there is no Podman container %.64s here", name)
			       : error_set(err, EIO, "podman does not describe container %.64s: %s", name, why.text);
	list = json_loadb((const char *)output.data, output.length, 0, NULL);
	*ret = json_incref(json_array_get(list, 0));
	json_decref(list);
	return *ret ? 0 : error_set(err, EPROTO, "podman's description of container %.64s makes no sense", name);
}

const char *podman_text(const json_t *object, const char *path)
{
	const char *text;

	while (object && strchr(path, '.')) {
		char member[64];

		snprintf(member, sizeof(member), "%.*s", (int)strcspn(path, "."), path);
		object = json_object_get(object, member);
		path = strchr(path, '.') + 1;
	}
	text = json_string_value(json_object_get(object, path));
	return text ? text : "";
}

/* Named volumes go along, directories of the host must be at the target. */
static int add_mounts(const json_t *inspected, json_t *spec, struct workload *w)
{
	json_t *volumes = json_array(), *binds = json_array(), *one;
	size_t i;
	int r = 0;

	json_array_foreach (json_object_get(inspected, "Mounts"), i, one) {
		const char *name = podman_text(one, "Name"), *source = podman_text(one, "Source");
		char tree[256];

		if (!strcmp(podman_text(one, "Type"), "bind")) {
			json_array_append_new(binds, json_string(source));
			continue;
		}
		if (strcmp(podman_text(one, "Type"), "volume") != 0 || r)
			continue;
		/* By its place in the container: an anonymous one has another name there. */
		json_array_append_new(
			volumes, json_pack("{s:s, s:s}", "name", name, "destination", podman_text(one, "Destination")));
		snprintf(tree, sizeof(tree), "volume:%.200s", podman_text(one, "Destination"));
		r = workload_add_tree(w, tree, source);
	}
	json_object_set_new(spec, "volumes", volumes);
	json_object_set_new(spec, "binds", binds);
	return r;
}

/* Whether a word of the command line names the container's image: in full, by its last part, or by its id. */
static bool names_image(const char *word, const char *image_name, const char *image)
{
	size_t n = strlen(word), total = strlen(image_name);
	const char *tail = n && n < total ? strstr(image_name, word) : NULL;

	if (!n || word[0] == '-')
		return false;
	if (!strcmp(word, image_name) || (n >= 6 && !strncmp(word, image, n)))
		return true;
	return tail && tail[-(tail != image_name)] == '/' && (!tail[n] || tail[n] == ':' || tail[n] == '@');
}

/* Which word is the image: behind it stands the container's command, or nothing. -1: none that is sure. */
static json_int_t find_image(const json_t *inspected, const json_t *create)
{
	const json_t *command = json_object_get(json_object_get(inspected, "Config"), "Cmd");
	size_t n = json_array_size(create);

	for (size_t i = 2; i < n; i++) {
		const char *word = json_string_value(json_array_get(create, i));
		bool same = true;

		if (!word || !names_image(word, podman_text(inspected, "ImageName"), podman_text(inspected, "Image")))
			continue;
		for (size_t k = i + 1; k < n && same; k++)
			same = json_equal(json_array_get(create, k), json_array_get(command, k - i - 1));
		if (same)
			return (json_int_t)i;
	}
	return -1;
}

/* What was logged is in a file of the container's own, or not to be had. */
static const char *log_file(const json_t *inspected)
{
	const char *path = podman_text(inspected, "HostConfig.LogConfig.Path");

	return !strcmp(podman_text(inspected, "HostConfig.LogConfig.Type"), "k8s-file") && access(path, R_OK) == 0
		       ? path
		       : "";
}

static int make_spec(const json_t *inspected, const struct driver_options *options, const struct oci_state *s,
		     struct workload *w, struct error *err)
{
	json_t *create = json_object_get(json_object_get(inspected, "Config"), "CreateCommand");
	const char *upper = podman_text(inspected, "GraphDriver.Data.UpperDir");
	json_t *spec = json_pack("{s:s, s:s, s:s, s:s, s:o, s:O*, s:I}", "id", podman_text(inspected, "Id"), "name",
				 podman_text(inspected, "Name"), "image", podman_text(inspected, "Image"), "image_name",
				 podman_text(inspected, "ImageName"), "descriptors", oci_descriptors(s), "create",
				 create, "image_word", find_image(inspected, create));
	int r = spec ? add_mounts(inspected, spec, w) : -ENOMEM;

	if (!r && *upper)
		r = workload_add_tree(w, "layer", upper);
	if (!r && *log_file(inspected))
		r = workload_add_tree(w, "log", log_file(inspected));
	if (!r)
		podman_image_describe(options->engine, spec);
	w->spec = r ? NULL : json_dumps(spec, JSON_COMPACT);
	json_decref(spec);
	return w->spec ? 0 : error_set(err, ENOMEM, "no memory to describe container %.64s", w->id);
}

/* The same container as its runtime knows it. */
static int read_state(const json_t *inspected, struct oci_state *ret, struct error *err)
{
	const char *runtime = podman_text(inspected, "OCIRuntime");
	int r = oci_state_read(OCI_ROOT_DEFAULT, podman_text(inspected, "Id"), ret, err);

	if (r == -ESRCH)
		return error_set(err, ENOTSUP,
				 "container %.64s is run by %.64s, whose state phaul cannot read: run it with podman "
				 "--runtime runc",
				 podman_text(inspected, "Name"), runtime);
	return r;
}

static int describe_container(const json_t *inspected, const char *id, const struct driver_options *options,
			      struct workload *ret, struct error *err)
{
	_cleanup_oci_ struct oci_state s = { 0 };
	struct workload w = { 0 };
	int r;

	if (!json_is_true(json_object_get(json_object_get(inspected, "State"), "Running")))
		return error_set(err, ESRCH, "the Podman container %.64s does not run: there is nothing to move live",
				 id);
	r = read_state(inspected, &s, err);
	if (!r)
		r = oci_describe(&s, &w, err);
	snprintf(w.type, sizeof(w.type), "%s", driver_podman.name);
	snprintf(w.id, sizeof(w.id), "%s", id);
	if (!r)
		r = make_spec(inspected, options, &s, &w, err);
	if (r < 0) {
		workload_free(&w);
		return r;
	}
	*ret = w;
	return 0;
}

static int describe(const char *id, const struct driver_options *options, struct workload *ret, struct error *err)
{
	json_t *inspected = NULL;
	int r = podman_inspect(options->engine, id, &inspected, err);

	if (!r)
		r = describe_container(inspected, id, options, ret, err);
	json_decref(inspected);
	return r;
}

static bool has_word(const json_t *words, const char *begin)
{
	json_t *one;
	size_t i;

	json_array_foreach (words, i, one)
		if (!strncmp(json_string_value(one) ?: "", begin, strlen(begin)))
			return true;
	return false;
}

/* Podman gives a bridge's next free address to a container that asks for none. */
static int check_address(const json_t *inspected, const char *id, struct obstacles *o)
{
	const char *mode = podman_text(inspected, "HostConfig.NetworkMode");
	const json_t *create = json_object_get(json_object_get(inspected, "Config"), "CreateCommand");

	if (!strcmp(mode, "host") || !strcmp(mode, "none") || has_word(create, "--ip"))
		return 0;
	return obstacles_add(
		o, OBSTACLE_WARNS, false, "make it with --ip and --mac-address, in a network that both hosts have",
		"container %.64s has no address of its own choice: it may get another one at the target, and a "
		"container with open connections could not be restored there then",
		id);
}

/* What podman would do by itself when the tasks end, and what cannot be made again. */
static int check_settings(const json_t *inspected, const char *id, struct obstacles *o)
{
	const char *policy = podman_text(inspected, "HostConfig.RestartPolicy.Name");
	const char *log = podman_text(inspected, "HostConfig.LogConfig.Type");
	const json_t *host = json_object_get(inspected, "HostConfig");
	int r = 0;

	if (*podman_text(inspected, "Pod"))
		r = obstacles_add(o, OBSTACLE_REFUSES, false, "move containers that are in no pod",
				  "container %.64s belongs to a pod, and pods cannot be moved yet", id);
	if (r >= 0)
		r = check_address(inspected, id, o);
	if (r >= 0 && json_is_true(json_object_get(host, "AutoRemove")))
		r = obstacles_add(o, OBSTACLE_REFUSES, false, "make it without --rm",
				  "container %.64s removes itself when its processes end (--rm)", id);
	if (r >= 0 && !*log_file(inspected) && strcmp(log, "none") != 0 && strcmp(log, "passthrough") != 0)
		r = obstacles_add(
			o, OBSTACLE_WARNS, false, "make it with --log-driver k8s-file",
			"what container %.64s has logged so far stays here: its log driver (%.32s) keeps no file "
			"of its own",
			id, log);
	if (r >= 0 && *policy && strcmp(policy, "no") != 0)
		r = obstacles_add(o, OBSTACLE_REFUSES, false,
				  "make it without --restart; let a service manager start it",
				  "podman would start container %.64s again here after the move (--restart %.32s), and "
				  "the policy "
				  "of a container cannot be changed",
				  id, policy);
	if (r >= 0 && json_is_true(json_object_get(host, "Privileged")))
		r = obstacles_add(o, OBSTACLE_REFUSES, false, "make it without --privileged",
				  "container %.64s is privileged: it has this host's devices", id);
	if (r >= 0 && !json_array_size(json_object_get(json_object_get(inspected, "Config"), "CreateCommand")))
		r = obstacles_add(o, OBSTACLE_REFUSES, false, "make it with podman run or podman create",
				  "container %.64s was not made by podman's command line, so it cannot be made again",
				  id);
	else if (r >= 0 &&
		 find_image(inspected, json_object_get(json_object_get(inspected, "Config"), "CreateCommand")) < 0)
		r = obstacles_add(
			o, OBSTACLE_REFUSES, false, "make it with podman run IMAGE, the image by its name",
			"it is not clear which word of the command line that made container %.64s is its image", id);
	if (r >= 0 && !*podman_text(inspected, "GraphDriver.Data.UpperDir"))
		r = obstacles_add(o, OBSTACLE_REFUSES, false, "use podman's overlay storage",
				  "container %.64s has no overlay layer of its own (storage driver %.32s)", id,
				  podman_text(inspected, "GraphDriver.Name"));
	return r;
}

static int check_source(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
			struct error *err)
{
	_cleanup_oci_ struct oci_state s = { 0 };
	json_t *inspected = NULL;
	int r = podman_inspect(options->engine, w->id, &inspected, err);

	if (!r && check_settings(inspected, w->id, ret) < 0)
		r = error_set(err, ENOMEM, "no memory for the list of obstacles");
	if (!r)
		r = read_state(inspected, &s, err);
	json_decref(inspected);
	return r < 0 ? r : oci_check_source(&s, w, options, ret, err);
}

/* Container ids do not change: no need to ask podman within the freeze. */
static int own_id(const struct workload *w, char *ret, size_t size)
{
	json_t *spec = w->spec ? json_loads(w->spec, 0, NULL) : NULL;

	snprintf(ret, size, "%s", podman_text(spec, "id"));
	json_decref(spec);
	return oci_id_valid(ret) ? 0 : -EBADMSG;
}

/* /dev/shm is a file system that podman makes beside the container for it alone, and binds into it: its content is memory, which goes along in the
 * images as if the container had mounted it by itself. */
static bool has_own_shm(const struct oci_state *s, const char *id)
{
	const json_t *mounts = json_object_get(json_object_get(s->json, "config"), "mounts");
	char own[300];
	json_t *one;
	size_t i;

	snprintf(own, sizeof(own), "/%.250s/userdata/shm", id);
	json_array_foreach (mounts, i, one) {
		const char *source = podman_text(one, "source"), *destination = podman_text(one, "destination");
		size_t n = strlen(source), d = strlen(destination);

		if (n >= strlen(own) && !strcmp(source + n - strlen(own), own) && d >= strlen(SHM) &&
		    !strcmp(destination + d - strlen(SHM), SHM))
			return true;
	}
	return false;
}

static void forget_external(struct checkpoint_way *way, const char *text)
{
	char **to = way->external;

	for (char **from = way->external; from && *from; from++) {
		if (!strcmp(*from, text)) {
			free(*from);
			continue;
		}
		*to++ = *from;
	}
	if (to)
		*to = NULL;
}

static int way(const struct workload *w, const struct driver_options *options, struct checkpoint_way *ret,
	       struct error *err)
{
	_cleanup_oci_ struct oci_state s = { 0 };
	char id[256];
	int r = own_id(w, id, sizeof(id));

	(void)options;
	if (r < 0)
		return error_errno(err, -r, "container %.64s has no id", w->id);
	r = oci_state_read(OCI_ROOT_DEFAULT, id, &s, err);
	if (!r)
		r = oci_way(&s, ret, err);
	if (!r && has_own_shm(&s, id))
		forget_external(ret, "mnt[" SHM "]:" SHM);
	return r;
}

/* Its conmon is dead, which would have told podman that the tasks are: podman takes it for running until it is told to stop it. */
static void settle_unwatched(const char *engine, const char *id)
{
	const char *words[] = { "stop", "--time", "0", id, NULL };
	struct error why = { 0 };

	if (podman_run(engine, words, NULL, &why) < 0 || oci_clear_left("runc", OCI_ROOT_DEFAULT, id, "", &why) < 0)
		log_warning("podman still takes container %.12s for running: %s", id, why.text);
}

static int moved(const struct workload *w, const struct driver_options *options, struct error *err)
{
	struct error ignored = { 0 };
	char id[256], name[NAME_MAX_BYTES + 32];
	const char *wait[] = { "wait", id, NULL },
		   *remove[] = { "rm", "--force", "--time", "0", "--volumes", id, NULL };
	const char *rename[] = { "rename", id, name, NULL };
	json_t *inspected = NULL;
	char suffix[32];
	bool done;
	int r = own_id(w, id, sizeof(id));

	if (!r)
		r = podman_inspect(options->engine, id, &inspected, err);
	if (r < 0)
		return r == -ESRCH ? 0 : r;
	snprintf(suffix, sizeof(suffix), "-moved-%.8s", id);
	snprintf(name, sizeof(name), "%.*s%s", NAME_MAX_BYTES, podman_text(inspected, "Name"), suffix);
	done = !options->remove_source && strstr(podman_text(inspected, "Name"), suffix);
	json_decref(inspected);
	if (done)
		return 0;
	if (podman_run(options->engine, wait, NULL, &ignored) < 0)
		settle_unwatched(options->engine, id);
	r = podman_run(options->engine, options->remove_source ? remove : rename, NULL, err);
	return r < 0 ? error_wrap(err, "cannot %s container %.64s", options->remove_source ? "remove" : "rename", w->id)
		     : 0;
}

static int network(const struct workload *w, const struct driver_place *place, int *ret_fd, struct error *err)
{
	return place ? podman_target_network(place, ret_fd, err) : oci_network(w->root_pid, ret_fd, err);
}

static int stop(const struct workload *w, const struct driver_options *options, struct error *err)
{
	char id[256];
	const char *words[] = { "stop", id, NULL };
	int r = own_id(w, id, sizeof(id));

	return r < 0 ? r : podman_run(options->engine, words, NULL, err);
}

static int start(const struct workload *w, const struct driver_options *options, const struct driver_place *place,
		 struct error *err)
{
	char id[256];
	const char *words[] = { "start", id, NULL };
	int r = own_id(w, id, sizeof(id));

	if (place)
		return podman_target_start(w, place, err);
	return r < 0 ? r : podman_run(options->engine, words, NULL, err);
}

const struct driver_ops driver_podman = {
	.name = "podman",
	.capabilities = DRIVER_HAS_ENGINE | DRIVER_OWN_NETWORK | DRIVER_STORAGE_REBOUND,
	.describe = describe,
	.check_source = check_source,
	.check_target = podman_check_target,
	.way = way,
	.processes = pid_processes,
	.stop_firmly = pid_stop_firmly,
	.unstop = pid_unstop,
	.moved = moved,
	.stop = stop,
	.start = start,
	.network = network,
	.lacks = podman_lacks,
	.give = podman_give,
	.take = podman_take,
	.prepare = podman_prepare,
	.restore = podman_restore,
	.restore_begun = podman_restore_begun,
	.restored = podman_restored,
	.forget = podman_forget,
};
