/*
 * The Podman driver at the target: the container is made with the command line that made it at the source, and `podman container restore`
 * brings it back.
 *
 * Podman restores only what has run before: `podman init` makes the runtime's configuration, without running anything, and `podman stop` ends that;
 * then a checkpoint directory with an inventory that podman only looks for makes it start the restore, whose CRIU reads its images elsewhere.
 * Invariants: what is made bears the label of the migration, and volumes that were made are listed in the work directory, so that forget()
 * removes nothing else. The spec comes from the peer. No state besides the workload; any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "driver/oci.h"
#include "driver/pid.h"
#include "driver/podman.h"
#include "driver/runc-conf.h"
#include "driver/search-path.h"

#define CONFIG_PLACE "podman-config" /* in the work directory: the path of the runtime's configuration */
#define CREATE_MAX 56		     /* words of a command line, without ours */

int podman_spec_read(const struct workload *w, json_t **ret, struct error *err)
{
	json_t *spec = w->spec ? json_loads(w->spec, 0, NULL) : NULL;

	if (!oci_id_valid(podman_text(spec, "id")) || !oci_id_valid(podman_text(spec, "name")) ||
	    !*podman_text(spec, "image") || !*podman_text(spec, "image_name") ||
	    podman_text(spec, "image_name")[0] == '-' || !json_is_array(json_object_get(spec, "descriptors"))) {
		json_decref(spec);
		return error_set(err, EPROTO, "the peer's description of container %.64s makes no sense", w->id);
	}
	*ret = spec;
	return 0;
}

static const char *target_name(const json_t *spec, const struct driver_options *options)
{
	return options->target_id ? options->target_id : podman_text(spec, "name");
}

static int check_binds(const json_t *spec, struct obstacles *o)
{
	json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (json_object_get(spec, "binds"), i, one) {
		const char *path = json_string_value(one);

		if (r >= 0 && path && access(path, F_OK) < 0)
			r = obstacles_add(o, OBSTACLE_REFUSES, true, "make it there; --sync brings what is in it",
					  "the container mounts %.256s of its host, which the target does not have",
					  path);
	}
	return r;
}

int podman_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
			struct error *err)
{
	json_t *spec = NULL, *taken = NULL;
	struct error why = { 0 };
	int r = podman_spec_read(w, &spec, err), found;

	if (r < 0)
		return r;
	found = podman_inspect(options->engine, target_name(spec, options), &taken, &why);
	if (found == -ENOENT)
		r = obstacles_add(ret, OBSTACLE_REFUSES, true, "install podman there", "the target has no podman");
	else if (found != -ESRCH)
		r = obstacles_add(ret, OBSTACLE_REFUSES, true, "remove it there, or give another name with --dst-id",
				  found ? "at the target: %.200s" : "the target already has a container %.64s",
				  found ? why.text : target_name(spec, options));
	if (r >= 0 && found != -ENOENT)
		r = podman_image_check(spec, options, ret);
	if (r >= 0)
		r = check_binds(spec, ret);
	if (r >= 0 && !options->restart)
		r = oci_check_runtime("runc", true, ret);
	json_decref(taken);
	json_decref(spec);
	return r < 0 ? error_set(err, ENOMEM, "no memory for the list of obstacles") : pid_check_room(w, ret, err);
}

/* Whether a word of the command line is this option; *with_value: its value is the next word. */
static bool is_option(const char *word, const char *name, bool *with_value)
{
	size_t n = strlen(name);

	*with_value = !word[n];
	return !strncmp(word, name, n) && (!word[n] || word[n] == '=');
}

/* What would make another container than the one that is wanted, or run it: left out, the name and the label are ours. */
static bool left_out(const char *word, bool *ret_value_too)
{
	static const char *const valued[] = { "--name",	   "--cidfile",	    "--pull",	     "--conmon-pidfile",
					      "--pidfile", "--detach-keys", "--preserve-fds" };
	static const char *const plain[] = { "-d", "--detach", "--replace", "--sig-proxy", "--rmi" };
	bool with_value;

	*ret_value_too = false;
	for (size_t i = 0; i < ARRAY_SIZE(valued); i++)
		if (is_option(word, valued[i], &with_value)) {
			*ret_value_too = with_value;
			return true;
		}
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		if (is_option(word, plain[i], &with_value))
			return true;
	return false;
}

/* podman create OPTIONS-OF-THE-SOURCE IMAGE COMMAND. Options are looked at up to the image. */
static int create(const json_t *spec, const struct driver_place *place, struct error *err)
{
	const json_t *command = json_object_get(spec, "create");
	const char *words[CREATE_MAX + 12];
	char label[80];
	size_t n = 0, count = json_array_size(command), i = 1;
	json_int_t image_word = json_integer_value(json_object_get(spec, "image_word"));

	snprintf(label, sizeof(label), PODMAN_LABEL "=%s", place->id_text);
	/* Global options of that podman stand before the verb and are not those of this one. */
	while (i < count && strcmp(json_string_value(json_array_get(command, i)) ?: "", "run") != 0 &&
	       strcmp(json_string_value(json_array_get(command, i)) ?: "", "create") != 0)
		i++;
	if (i >= count || count - i > CREATE_MAX || image_word <= (json_int_t)i || image_word >= (json_int_t)count)
		return error_set(err, EPROTO,
				 "the command line that made the container is not one that can be used again");
	words[n++] = "create";
	words[n++] = "--name";
	words[n++] = target_name(spec, place->options);
	words[n++] = "--label";
	words[n++] = label;
	words[n++] = "--pull=never";
	for (i++; i < count; i++) {
		const char *word = json_string_value(json_array_get(command, i));
		bool value_too, options = (json_int_t)i < image_word;

		if (!word)
			return error_set(err, EPROTO, "the command line that made the container is not one");
		if (options && !strcmp(word, "-di"))
			word = "-i";
		if (options && left_out(word, &value_too)) {
			i += value_too;
			continue;
		}
		/* Of a move before this one. */
		if (options && !strcmp(word, "--label") &&
		    !strncmp(json_string_value(json_array_get(command, i + 1)) ?: "", PODMAN_LABEL "=",
			     sizeof(PODMAN_LABEL))) {
			i++;
			continue;
		}
		words[n++] = word;
	}
	words[n] = NULL;
	return podman_run(place->options->engine, words, NULL, err);
}

/* Ours, by its label: a new object; -ESRCH. */
static int find_ours(const struct driver_place *place, json_t **ret, struct error *err)
{
	char filter[96];
	const char *words[] = { "ps", "--all", "--quiet", "--no-trunc", "--filter", filter, NULL };
	_cleanup_buffer_ struct buffer output = { 0 };
	char *id;
	int r;

	snprintf(filter, sizeof(filter), "label=" PODMAN_LABEL "=%s", place->id_text);
	r = podman_run(place->options->engine, words, &output, err);
	if (!r && buffer_append(&output, "", 1) < 0)
		r = -ENOMEM;
	if (r < 0)
		return r;
	id = (char *)output.data;
	id[strcspn(id, "\n")] = 0;
	if (!*id)
		return error_set(err, ESRCH, "the container of this migration is not there");
	return podman_inspect(place->options->engine, id, ret, err);
}

/* The volumes that are not here yet, listed before they are made. */
static int note_volumes(const json_t *spec, const struct driver_place *place, struct error *err)
{
	_cleanup_buffer_ struct buffer list = { 0 };
	char path[600];
	json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (json_object_get(spec, "volumes"), i, one) {
		const char *name = podman_text(one, "name");
		const char *words[] = { "volume", "exists", name, NULL };
		struct error ignored = { 0 };

		if (!oci_id_valid(name))
			return error_set(err, EPROTO, "the peer names a volume that cannot be");
		/* An anonymous one gets another name here, and goes with its container. */
		if (strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64)
			continue;
		if (!r && podman_run(place->options->engine, words, NULL, &ignored) < 0)
			r = buffer_printf(&list, "%s\n", name);
	}
	snprintf(path, sizeof(path), "%s/volumes", place->work_directory);
	if (!r && list.length)
		r = fd_write_file(AT_FDCWD, path, list.data, list.length, 0600);
	return r < 0 ? error_errno(err, -r, "cannot note the container's volumes") : 0;
}

static int place_trees(struct workload *w, const json_t *inspected, struct error *err)
{
	struct workload_tree *layer = workload_tree_find(w, "layer"), *log = workload_tree_find(w, "log");
	json_t *one;
	size_t i;

	if (layer)
		layer->target_path = strdup(podman_text(inspected, "GraphDriver.Data.UpperDir"));
	if (log)
		log->target_path = strdup(podman_text(inspected, "HostConfig.LogConfig.Path"));
	json_array_foreach (json_object_get(inspected, "Mounts"), i, one) {
		struct workload_tree *tree;
		char name[256];

		snprintf(name, sizeof(name), "volume:%.200s", podman_text(one, "Destination"));
		tree = workload_tree_find(w, name);
		if (tree && !tree->target_path)
			tree->target_path = strdup(podman_text(one, "Source"));
	}
	for (i = 0; i < w->n_trees; i++)
		if (!w->trees[i].target_path || w->trees[i].target_path[0] != '/')
			return error_set(err, EIO, "podman made no place for the container's %.128s", w->trees[i].name);
	return 0;
}

static int note_config(const json_t *inspected, const struct driver_place *place, struct error *err)
{
	char path[600], config[544];
	int r;

	snprintf(path, sizeof(path), "%s/" CONFIG_PLACE, place->work_directory);
	snprintf(config, sizeof(config), "%.500s/config.json", podman_text(inspected, "StaticDir"));
	r = fd_write_file(AT_FDCWD, path, config, strlen(config), 0600);
	return r < 0 ? error_errno(err, -r, "cannot write %s", path) : 0;
}

/* As if it had been checkpointed: podman looks for the inventory, runc reads the descriptors. */
static int make_checkpoint(const json_t *spec, const json_t *inspected, struct error *err)
{
	char directory[512], path[544];
	int r;

	snprintf(directory, sizeof(directory), "%.480s/checkpoint", podman_text(inspected, "StaticDir"));
	snprintf(path, sizeof(path), "%s/inventory.img", directory);
	r = dir_make(directory, 0700);
	if (!r)
		r = fd_write_file(AT_FDCWD, path, "", 0, 0600);
	if (r < 0)
		return error_errno(err, -r, "cannot make %s", path);
	return oci_write_descriptors(json_object_get(spec, "descriptors"), directory, err);
}

int podman_prepare(struct workload *w, const struct driver_place *place, struct error *err)
{
	json_t *spec = NULL, *inspected = NULL;
	int r = podman_spec_read(w, &spec, err);

	if (!r)
		r = podman_image_arrived(spec, place, err);
	if (!r)
		r = note_volumes(spec, place, err);
	if (!r && (r = create(spec, place, err)) < 0)
		error_wrap(err, "podman cannot make the container at the target");
	if (!r)
		r = find_ours(place, &inspected, err);
	if (!r && !place->options->restart) {
		const char *init[] = { "init", podman_text(inspected, "Id"), NULL };
		const char *stop[] = { "stop", "--time", "0", podman_text(inspected, "Id"), NULL };

		r = podman_run(place->options->engine, init, NULL, err);
		if (!r)
			r = podman_run(place->options->engine, stop, NULL, err);
		if (!r)
			r = make_checkpoint(spec, inspected, err);
		if (!r)
			r = note_config(inspected, place, err);
	}
	if (!r)
		r = place_trees(w, inspected, err);
	json_decref(inspected);
	json_decref(spec);
	return r;
}

int podman_restore(const struct workload *w, struct driver_place *place, int stderr_fd, struct process *ret,
		   struct error *err)
{
	const char *engine = place->options->engine;
	const char *argv[] = { "podman", "container", "restore", "--tcp-established", "--file-locks", NULL,
			       NULL,	 NULL,	      NULL };
	char path[SEARCH_PATH_MAX];
	const char *environment[] = { path, NULL };
	struct process_options options = {
		.argv = argv, .environment = environment, .stdin_fd = -1, .stdout_fd = stderr_fd, .stderr_fd = stderr_fd
	};
	json_t *inspected = NULL;
	int r = search_path_make(place, path, sizeof(path), err);
	size_t n = 5;

	(void)w;
	if (!r)
		r = find_ours(place, &inspected, err);
	if (r < 0)
		return r;
	if (engine) {
		memmove(argv + 3, argv + 1, 4 * sizeof(*argv));
		argv[1] = "--root";
		argv[2] = engine;
		n = 7;
	}
	argv[n] = podman_text(inspected, "Id");
	r = runc_conf_take(place->criu_config, &place->lock, err);
	if (!r)
		r = process_start(&options, ret, err);
	json_decref(inspected);
	return r;
}

void podman_restore_begun(struct driver_place *place)
{
	runc_conf_give_back(&place->lock);
}

int podman_restored(const struct workload *w, const struct driver_place *place, struct error *err)
{
	(void)w;
	(void)place;
	(void)err;
	return 0; /* it has its name, and no policy */
}

int podman_target_start(const struct workload *w, const struct driver_place *place, struct error *err)
{
	json_t *inspected = NULL;
	int r = find_ours(place, &inspected, err);
	const char *words[] = { "start", podman_text(inspected, "Id"), NULL };

	(void)w;
	if (!r)
		r = podman_run(place->options->engine, words, NULL, err);
	json_decref(inspected);
	return r < 0 ? error_wrap(err, "cannot start the container") : 0;
}

/* One line each. */
static int remove_volumes(const struct driver_place *place, struct error *err)
{
	_cleanup_buffer_ struct buffer list = { 0 };
	char path[600], *save = NULL;
	int r = 0;

	snprintf(path, sizeof(path), "%s/volumes", place->work_directory);
	if (fd_read_file(AT_FDCWD, path, 65536, &list) < 0 || buffer_append(&list, "", 1) < 0)
		return 0;
	for (char *name = strtok_r((char *)list.data, "\n", &save); name; name = strtok_r(NULL, "\n", &save)) {
		const char *words[] = { "volume", "rm", name, NULL };
		int one = podman_run(place->options->engine, words, NULL, r ? NULL : err);

		r = r ? r : one;
	}
	return r;
}

/* The runtime's configuration, which podman wrote; NULL: it did not. */
static json_t *runtime_config(const struct driver_place *place)
{
	_cleanup_buffer_ struct buffer where = { 0 }, text = { 0 };
	char path[600];

	snprintf(path, sizeof(path), "%s/" CONFIG_PLACE, place->work_directory);
	if (fd_read_file(AT_FDCWD, path, sizeof(path), &where) < 0 || buffer_append(&where, "", 1) < 0 ||
	    fd_read_file(AT_FDCWD, (const char *)where.data, WORKLOAD_SPEC_MAX, &text) < 0)
		return NULL;
	return json_loadb((const char *)text.data, text.length, 0, NULL);
}

/* Podman does not look for what its runtime left when one of both was killed. */
static int clear_runtime(const json_t *inspected, const struct driver_place *place, struct error *err)
{
	json_t *config = runtime_config(place);
	int r = 0;

	if (config)
		r = oci_clear_left("runc", OCI_ROOT_DEFAULT, podman_text(inspected, "Id"),
				   podman_text(config, "linux.cgroupsPath"), err);
	json_decref(config);
	return r;
}

int podman_forget(const struct workload *w, const struct driver_place *place, struct error *err)
{
	json_t *inspected = NULL;
	int r = find_ours(place, &inspected, err), v;
	const char *words[] = { "rm", "--force", "--time", "0", "--volumes", podman_text(inspected, "Id"), NULL };

	(void)w;
	runc_conf_mend();
	if (r == -ESRCH) {
		r = 0;
	} else if (!r) {
		r = clear_runtime(inspected, place, err);
		v = podman_run(place->options->engine, words, NULL, r ? NULL : err);
		r = r ? r : v;
	}
	json_decref(inspected);
	podman_image_forget(place);
	v = remove_volumes(place, r ? NULL : err);
	return r ? r : v;
}

/* Podman holds the container's lock while it restores, so it is not asked: the runtime's configuration names the namespace. */
int podman_target_network(const struct driver_place *place, int *ret_fd, struct error *err)
{
	json_t *config = runtime_config(place), *one;
	int r = -ENOENT;
	size_t i;

	json_array_foreach (json_object_get(json_object_get(config, "linux"), "namespaces"), i, one) {
		const char *netns = podman_text(one, "path");

		if (strcmp(podman_text(one, "type"), "network") != 0 || !*netns)
			continue;
		*ret_fd = open(netns, O_RDONLY | O_CLOEXEC);
		r = *ret_fd < 0 ? error_errno(err, errno, "cannot open the network namespace %s", netns) : 0;
	}
	json_decref(config);
	return r;
}
