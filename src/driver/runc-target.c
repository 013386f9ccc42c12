/*
 * The runc driver at the target: the bundle is made (its root file system comes with the file passes), `runc restore` brings the container
 * back.
 *
 * Invariants: what is made here for a migration is marked with its id (MARK in the bundle; CLAIM in the work directory for the container itself, which
 * was not there when it was written), so that forget() removes nothing else, also where --force went past a name that is taken. The
 * spec comes from the peer: every path of it is checked before it is used. The standard output of the container goes to a file in the bundle, through a
 * child of this program that reads the pipe (runc hands CRIU pipes only, and a file of this host could not be dumped at the next move).
 * No state besides the workload; any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "driver/helper.h"
#include "driver/oci.h"
#include "driver/pid.h"
#include "driver/runc-conf.h"
#include "driver/runc-internal.h"
#include "driver/search-path.h"

#define MARK ".phaul-migration"
#define CLAIM "runc-claim"
#define OUTPUT "output.log"

struct spec {
	json_t *json;
	const json_t *config, *descriptors;
	char bundle[4096], rootfs[4096], id[256];
};

#define _cleanup_spec_ _cleanup_(spec_free)

static void spec_free(struct spec *s)
{
	json_decref(s->json);
	s->json = NULL;
}

/* Absolute, and without a part that leads elsewhere. */
static bool path_plain(const char *path)
{
	size_t n = path ? strlen(path) : 0;

	return n > 1 && n < 4000 && path[0] == '/' && !strstr(path, "/../") && !strstr(path, "//") &&
	       (n < 3 || strcmp(path + n - 3, "/..") != 0);
}

/* Where the root file system is here: relative to the bundle it moves with it. */
static int place_rootfs(struct spec *s, const char *source_bundle, const char *source_rootfs)
{
	const char *root = json_string_value(json_object_get(json_object_get(s->config, "root"), "path"));
	size_t n = strlen(source_bundle);
	int length;

	if (!root || !root[0])
		return -EPROTO;
	if (!strncmp(source_rootfs, source_bundle, n) && source_rootfs[n] == '/')
		length = snprintf(s->rootfs, sizeof(s->rootfs), "%s%s", s->bundle, source_rootfs + n);
	else
		length = snprintf(s->rootfs, sizeof(s->rootfs), "%s", source_rootfs);
	return length > 0 && (size_t)length < sizeof(s->rootfs) && path_plain(s->rootfs) ? 0 : -EPROTO;
}

static int spec_read(const struct workload *w, const struct driver_options *options, struct spec *ret,
		     struct error *err)
{
	struct spec s = { .json = w->spec ? json_loads(w->spec, 0, NULL) : NULL };
	const char *bundle = json_string_value(json_object_get(s.json, "bundle"));
	const char *rootfs = json_string_value(json_object_get(s.json, "rootfs"));

	s.config = json_object_get(s.json, "config");
	s.descriptors = json_object_get(s.json, "descriptors");
	snprintf(s.id, sizeof(s.id), "%s", options->target_id ? options->target_id : w->id);
	if (!json_is_object(s.config) || !json_is_array(s.descriptors) || !path_plain(bundle) || !path_plain(rootfs) ||
	    !oci_id_valid(s.id)) {
		spec_free(&s);
		return error_set(err, EPROTO, "the peer's description of container %.64s makes no sense", w->id);
	}
	snprintf(s.bundle, sizeof(s.bundle), "%s", options->target_bundle ? options->target_bundle : bundle);
	if (place_rootfs(&s, bundle, rootfs) < 0) {
		spec_free(&s);
		return error_set(err, EPROTO, "the peer's description of container %.64s names no root file system",
				 w->id);
	}
	*ret = s;
	return 0;
}

static int check_bundle(const struct spec *s, struct obstacles *o)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[4200];
	json_t *here;
	bool same;

	snprintf(path, sizeof(path), "%s/config.json", s->bundle);
	if (fd_read_file(AT_FDCWD, path, WORKLOAD_SPEC_MAX, &text) < 0)
		return 0;
	here = json_loadb((const char *)text.data, text.length, 0, NULL);
	same = here && json_equal(here, s->config);
	json_decref(here);
	if (same)
		return 0;
	return obstacles_add(o, OBSTACLE_REFUSES, true,
			     "remove that bundle, or name another place with --target-bundle",
			     "at the target %.256s is the bundle of another container", s->bundle);
}

static bool synced(const struct driver_options *options, const char *path)
{
	for (size_t i = 0; i < options->n_synced_paths; i++) {
		size_t n = strlen(options->synced_paths[i]);

		if (!strncmp(path, options->synced_paths[i], n) && (!path[n] || path[n] == '/'))
			return true;
	}
	return false;
}

/* Directories of the host that are bound into the container. */
static int check_mounts(const struct spec *s, const struct driver_options *options, struct obstacles *o)
{
	const json_t *mounts = json_object_get(s->config, "mounts");
	json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (mounts, i, one) {
		const char *type = json_string_value(json_object_get(one, "type"));
		const char *source = json_string_value(json_object_get(one, "source"));

		if (r < 0 || !type || strcmp(type, "bind") != 0 || !source || source[0] != '/' ||
		    access(source, F_OK) == 0 || synced(options, source))
			continue;
		r = obstacles_add(o, OBSTACLE_REFUSES, true, "make it there, or bring it along with --sync",
				  "the container mounts %.256s of its host, which the target does not have", source);
	}
	return r;
}

static const char *network_path(const json_t *config)
{
	const json_t *list = json_object_get(json_object_get(config, "linux"), "namespaces");
	json_t *one;
	size_t i;

	json_array_foreach (list, i, one) {
		const char *type = json_string_value(json_object_get(one, "type"));

		if (type && !strcmp(type, "network"))
			return json_string_value(json_object_get(one, "path"));
	}
	return NULL;
}

int runc_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
		      struct error *err)
{
	_cleanup_oci_ struct oci_state taken = { 0 };
	_cleanup_spec_ struct spec s = { 0 };
	struct error ignored = { 0 };
	const char *netns;
	int r = spec_read(w, options, &s, err);

	if (r < 0)
		return r;
	r = oci_check_runtime(runc_program(options), true, ret);
	if (r >= 0 && oci_state_read(runc_root(options->engine), s.id, &taken, &ignored) != -ESRCH)
		r = obstacles_add(ret, OBSTACLE_REFUSES, true, "delete it there, or give another name with --dst-id",
				  "the target already has a container %.64s", s.id);
	if (r >= 0)
		r = check_bundle(&s, ret);
	if (r >= 0)
		r = check_mounts(&s, options, ret);
	netns = network_path(s.config);
	if (r >= 0 && netns && access(netns, F_OK) < 0)
		r = obstacles_add(ret, OBSTACLE_REFUSES, true, "make it there (ip netns add), with the same addresses",
				  "the container's network namespace %.256s is not at the target", netns);
	return r < 0 ? error_set(err, ENOMEM, "no memory for the list of obstacles") : pid_check_room(w, ret, err);
}

/* The bundle and its mark, if it is not there already. */
static int make_bundle(const struct spec *s, const struct driver_place *place, struct error *err)
{
	_cleanup_free_ char *text = json_dumps(s->config, JSON_INDENT(1));
	char path[4200];
	int r = 0;

	if (!text)
		return error_set(err, ENOMEM, "no memory for the bundle");
	if (access(s->bundle, F_OK) == 0)
		return 0;
	r = dir_make(s->bundle, 0711);
	snprintf(path, sizeof(path), "%s/" MARK, s->bundle);
	if (!r)
		r = fd_write_file(AT_FDCWD, path, place->id_text, strlen(place->id_text), 0600);
	snprintf(path, sizeof(path), "%s/config.json", s->bundle);
	if (!r)
		r = fd_write_file(AT_FDCWD, path, text, strlen(text), 0644);
	return r < 0 ? error_errno(err, -r, "cannot make the bundle %s", s->bundle) : 0;
}

int runc_prepare(struct workload *w, const struct driver_place *place, struct error *err)
{
	struct workload_tree *tree = workload_tree_find(w, "rootfs");
	_cleanup_spec_ struct spec s = { 0 };
	int r = spec_read(w, place->options, &s, err);

	if (!r)
		r = make_bundle(&s, place, err);
	if (!r)
		r = dir_make(s.rootfs, 0755) < 0 ? error_set(err, EIO, "cannot make %s", s.rootfs) : 0;
	if (!r)
		r = oci_write_descriptors(s.descriptors, place->images_directory, err);
	if (r < 0 || !tree)
		return r;
	tree->target_path = strdup(s.rootfs);
	return tree->target_path ? 0 : error_set(err, ENOMEM, "no memory for a path");
}

/* A pipe whose other end a child of ours empties into a file: it lives as long as the container writes. */
static int start_output(const struct spec *s, int *ret_fd, struct error *err)
{
	char path[4200], self[64];
	const char *argv[] = { self, DRIVER_HELPER, "drain-pipe", path, NULL };
	struct process_options options = { .argv = argv, .stdout_fd = -1, .stderr_fd = -1, .new_session = true };
	struct process drain = PROCESS_NONE;
	_cleanup_close_ int fd = -1;
	int pair[2], r;

	snprintf(self, sizeof(self), "/proc/%d/exe", getpid());
	snprintf(path, sizeof(path), "%s/" OUTPUT, s->bundle);
	if (pipe2(pair, O_CLOEXEC) < 0)
		return error_errno(err, errno, "cannot make a pipe for the container's output");
	fd = pair[0];
	options.stdin_fd = fd;
	r = process_start(&options, &drain, err);
	if (r < 0) {
		close(pair[1]);
		return r;
	}
	/* It forked; what we started has ended. */
	(void)process_wait(&drain, deadline_in_ms(10000));
	process_free(&drain);
	*ret_fd = pair[1];
	return 0;
}

static bool has_pipes(const struct spec *s)
{
	json_t *one;
	size_t i;

	json_array_foreach (s->descriptors, i, one)
		if (json_string_value(one) && !strncmp(json_string_value(one), "pipe:", strlen("pipe:")))
			return true;
	return false;
}

/* From here on a container of that name is ours. */
static int claim(const struct spec *s, const struct driver_place *place, struct error *err)
{
	_cleanup_oci_ struct oci_state taken = { 0 };
	struct error ignored = { 0 };
	char path[600];
	int r;

	if (oci_state_read(runc_root(place->options->engine), s->id, &taken, &ignored) != -ESRCH)
		return error_set(err, EEXIST, "the target already has a container %.64s", s->id);
	snprintf(path, sizeof(path), "%s/" CLAIM, place->work_directory);
	r = fd_write_file(AT_FDCWD, path, s->id, strlen(s->id), 0600);
	return r < 0 ? error_errno(err, -r, "cannot write %s", path) : 0;
}

static bool claimed(const struct driver_place *place)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/" CLAIM, place->work_directory);
	return access(path, F_OK) == 0;
}

int runc_restore(const struct workload *w, struct driver_place *place, int stderr_fd, struct process *ret,
		 struct error *err)
{
	_cleanup_spec_ struct spec s = { 0 };
	_cleanup_close_ int output = -1;
	char log[600];
	int r = spec_read(w, place->options, &s, err);
	const char *argv[] = { runc_program(place->options),
			       "--root",
			       runc_root(place->options->engine),
			       "--log",
			       log,
			       "restore",
			       "--detach",
			       "--image-path",
			       place->images_directory,
			       "--work-path",
			       place->work_directory,
			       "--bundle",
			       s.bundle,
			       s.id,
			       NULL };
	char path[SEARCH_PATH_MAX];
	const char *environment[DRIVER_ENVIRONMENT_MAX + 2] = { path };
	struct process_options options = {
		.argv = argv, .environment = environment, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = stderr_fd
	};

	if (!r)
		r = search_path_make(place, path, sizeof(path), err);
	if (!r)
		r = claim(&s, place, err);
	if (r < 0)
		return r;
	/* runc hands its own environment on. */
	for (size_t i = 0; place->criu_environment[i]; i++)
		environment[1 + i] = place->criu_environment[i];
	snprintf(log, sizeof(log), "%s/engine.log", place->work_directory);
	if (has_pipes(&s)) {
		r = start_output(&s, &output, err);
		options.stdout_fd = options.stderr_fd = output;
	}
	if (!r)
		r = runc_conf_take(place->criu_config, &place->lock, err);
	return r < 0 ? r : process_start(&options, ret, err);
}

int runc_target_start(const struct workload *w, const struct driver_place *place, struct error *err)
{
	_cleanup_spec_ struct spec s = { 0 };
	_cleanup_close_ int output = -1;
	int r = spec_read(w, place->options, &s, err);

	if (!r)
		r = claim(&s, place, err);
	if (!r && has_pipes(&s))
		r = start_output(&s, &output, err);
	if (!r)
		r = runc_run(place->options, s.bundle, s.id, output, err);
	return r < 0 ? r : runc_restored(w, place, err);
}

void runc_restore_begun(struct driver_place *place)
{
	runc_conf_give_back(&place->lock);
}

int runc_restored(const struct workload *w, const struct driver_place *place, struct error *err)
{
	_cleanup_spec_ struct spec s = { 0 };
	char path[4200];
	int r = spec_read(w, place->options, &s, err);

	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/" MARK, s.bundle);
	return unlink(path) < 0 && errno != ENOENT ? error_errno(err, errno, "cannot remove %s", path) : 0;
}

/* Whether the bundle was made by this migration. */
static bool ours(const struct spec *s, const struct driver_place *place)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[4200];

	snprintf(path, sizeof(path), "%s/" MARK, s->bundle);
	return fd_read_file(AT_FDCWD, path, 256, &text) == 0 && text.length == strlen(place->id_text) &&
	       !memcmp(text.data, place->id_text, text.length);
}

int runc_forget(const struct workload *w, const struct driver_place *place, struct error *err)
{
	_cleanup_spec_ struct spec s = { 0 };
	int r = spec_read(w, place->options, &s, err), result = 0;

	runc_conf_mend();
	if (r < 0)
		return r;
	if (claimed(place))
		result = oci_clear_left(
			runc_program(place->options), runc_root(place->options->engine), s.id,
			json_string_value(json_object_get(json_object_get(s.config, "linux"), "cgroupsPath")), err);
	if (ours(&s, place) && (r = dir_remove(s.bundle)) < 0)
		result = error_errno(err, -r, "cannot remove the bundle %s", s.bundle);
	return result;
}

int runc_target_network(const struct workload *w, int *ret_fd, struct error *err)
{
	json_t *spec = w->spec ? json_loads(w->spec, 0, NULL) : NULL;
	const char *path = network_path(json_object_get(spec, "config"));
	int r = path && path_plain(path) ? 0 : -ENOENT;

	if (!r) {
		*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
		if (*ret_fd < 0)
			r = error_errno(err, errno, "cannot open the network namespace %s", path);
	}
	json_decref(spec);
	return r;
}
