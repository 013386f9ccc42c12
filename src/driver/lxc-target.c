/*
 * The target's half of the LXC driver: what would stop a restore here, the container made without tasks, and undone.
 *
 * What is made is named in a marker inside of the container's directory, .phaul-ID, before it is made; forget() removes nothing else, and the
 * marker goes when the container runs. Until then its configuration is guarded, so that a host that boots in between starts nothing.
 * The spec comes from a peer: its paths are plain and absolute (lxc-spec.c), and nothing that was here before is written to. No state; any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "driver/lxc-config.h"
#include "driver/lxc.h"
#include "driver/pid.h"

int lxc_target_place(const struct lxc_spec *s, const struct driver_options *options, struct lxc_target_place *ret,
		     struct error *err)
{
	struct lxc_library l;
	int r = lxc_library_load(&l, err);

	if (!r)
		r = lxc_library_place(&l,
				      s->place	? s->place
				      : options ? options->engine
						: NULL,
				      ret->place, sizeof(ret->place), err);
	if (!r)
		snprintf(ret->directory, sizeof(ret->directory), "%s/%s", ret->place, s->name);
	return r;
}

/* Where a layer of the root file system goes: what lies in the source's container directory comes to ours, the rest keeps its name. */
static int layer_path(const struct lxc_spec *s, const struct lxc_target_place *p, size_t i, char *ret, size_t size)
{
	char from[PATH_MAX];
	int r = lxc_spec_source_directory(s, from, sizeof(from));

	return r < 0 ? r : lxc_path_move(s->layers[i], from, p->directory, ret, size);
}

static int check_layers(const struct lxc_spec *s, const struct lxc_target_place *p, struct obstacles *o)
{
	char path[PATH_MAX], name[32];
	struct stat st;
	int r = 0;

	for (size_t i = 0; i < s->n_layers && !r; i++) {
		r = layer_path(s, p, i, path, sizeof(path));
		if (r < 0)
			return r;
		if (!lxc_spec_tree_name(s, i, name)) {
			if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
				r = obstacles_add(
					o, OBSTACLE_REFUSES, true, "bring it there first (rsync -aHAXS)",
					"the lower layer %s of the container's overlay is missing at the target", path);
		} else if (!lxc_path_below(path, p->directory) && lstat(path, &st) == 0) {
			r = obstacles_add(o, OBSTACLE_REFUSES, true, "move it away there, or remove it",
					  "%s, where the container's files would go, exists at the target", path);
		}
	}
	return r;
}

static int check_needs(const struct lxc_spec *s, struct obstacles *o)
{
	struct stat st;
	char path[64];
	int r = 0;

	for (size_t i = 0; i < s->n_needs && !r; i++)
		if (stat(s->needs[i], &st) < 0)
			r = obstacles_add(o, OBSTACLE_REFUSES, true, "make it there, as it is here",
					  "the container's configuration uses %s, which is missing at the target",
					  s->needs[i]);
	for (size_t i = 0; i < s->n_bridges && !r; i++) {
		snprintf(path, sizeof(path), "/sys/class/net/%s", s->bridges[i]);
		if (stat(path, &st) < 0)
			r = obstacles_add(o, OBSTACLE_REFUSES, true,
					  "make that bridge there, or name another one with --bridge SRC=DST",
					  "the bridge %s of the container's network is missing at the target",
					  s->bridges[i]);
	}
	return r;
}

static int check_place(const struct lxc_spec *s, const struct lxc_target_place *p, struct obstacles *o)
{
	struct stat st;

	if (stat(p->place, &st) < 0 || !S_ISDIR(st.st_mode))
		return obstacles_add(o, OBSTACLE_REFUSES, true,
				     "make it there, or name another one with --target-engine",
				     "the directory of LXC containers %s is missing at the target", p->place);
	if (lstat(p->directory, &st) == 0)
		return obstacles_add(o, OBSTACLE_REFUSES, true,
				     "remove or rename it there, or choose another name with --dst-id",
				     "the target has a container %s already (%s)", s->name, p->directory);
	if (lxc_group_in_use(s->name))
		return obstacles_add(o, OBSTACLE_REFUSES, true, "stop it there, or choose another name with --dst-id",
				     "a container %s runs at the target, in another directory of containers", s->name);
	return 0;
}

static int check_all(const struct lxc_spec *s, const struct lxc_target_place *p, struct obstacles *o)
{
	int r = lxc_check_config(s, true, o);

	if (!r)
		r = check_place(s, p, o);
	if (!r)
		r = check_layers(s, p, o);
	return r ? r : check_needs(s, o);
}

int lxc_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
		     struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	struct lxc_target_place p;
	struct error why = { 0 };
	int r = lxc_spec_decode(w->spec, &s, err);

	if (r < 0)
		return r;
	r = lxc_target_place(&s, options, &p, &why);
	if (r == -ENOENT || r == -EINVAL)
		r = obstacles_add(ret, OBSTACLE_REFUSES, true,
				  r == -ENOENT ? "install LXC there (the packages lxc and liblxc1)" : "",
				  "at the target: %s", why.text);
	else if (!r)
		r = check_all(&s, &p, ret);
	if (r < 0)
		return error_set(err, -r, "cannot compare the container with this host");
	return pid_check_target(w, options, ret, err);
}

/* Where the container's directory is while it is made and while it is removed: there it is ours by its name. */
static void staging_path(const struct lxc_target_place *p, const char *id_text, char *ret, size_t size)
{
	snprintf(ret, size, "%s/.phaul-%.64s", p->place, id_text);
}

static void marker_path(const char *directory, const char *id_text, char *ret, size_t size)
{
	snprintf(ret, size, "%s/.phaul-%.64s", directory, id_text);
}

/* What will be made outside of the container's directory: one path per line. */
static int write_marker(const struct lxc_spec *s, const struct lxc_target_place *p, const char *directory,
			const char *id_text, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[PATH_MAX + 128], name[32];
	int r = buffer_printf(&text, "%s", "");

	for (size_t i = 0; i < s->n_layers && !r; i++) {
		r = layer_path(s, p, i, path, sizeof(path));
		if (!r && lxc_spec_tree_name(s, i, name) && !lxc_path_below(path, p->directory))
			r = buffer_printf(&text, "%s\n", path);
	}
	marker_path(directory, id_text, path, sizeof(path));
	if (!r)
		r = fd_write_file(AT_FDCWD, path, text.data, text.length, 0600);
	return r < 0 ? error_errno(err, -r, "cannot write %s", path) : 0;
}

/* The directory appears with its marker in it, or not at all. */
static int make_directory(const struct lxc_spec *s, const struct lxc_target_place *p, const char *id_text,
			  struct error *err)
{
	char staging[PATH_MAX];
	int r;

	staging_path(p, id_text, staging, sizeof(staging));
	if (mkdir(staging, 0770) < 0)
		return error_errno(err, errno, "cannot make the directory %s", staging);
	r = write_marker(s, p, staging, id_text, err);
	if (!r && renameat2(AT_FDCWD, staging, AT_FDCWD, p->directory, RENAME_NOREPLACE) < 0)
		r = error_errno(err, errno, "cannot make the container's directory %s", p->directory);
	return r;
}

/* Directories outside of the container's own must be new; their parents are the host's business, except where nothing is there yet. */
static int make_layer(const struct lxc_target_place *p, const char *path, struct error *err)
{
	char parent[PATH_MAX];
	int r;

	if (lxc_path_below(path, p->directory)) {
		r = dir_make(path, 0755);
		return r < 0 ? error_errno(err, -r, "cannot make %s", path) : 0;
	}
	snprintf(parent, sizeof(parent), "%s", path);
	*strrchr(parent, '/') = 0;
	r = parent[0] ? dir_make(parent, 0755) : 0;
	if (r < 0)
		return error_errno(err, -r, "cannot make %s", parent);
	return mkdir(path, 0755) < 0 ? error_errno(err, errno, "cannot make %s", path) : 0;
}

static int make_layers(struct workload *w, const struct lxc_spec *s, const struct lxc_target_place *p,
		       struct error *err)
{
	char path[PATH_MAX], name[32];

	for (size_t i = 0; i < s->n_layers; i++) {
		const char *tree_name = lxc_spec_tree_name(s, i, name);
		struct workload_tree *tree = tree_name ? workload_tree_find(w, tree_name) : NULL;
		int r;

		if (!tree_name)
			continue;
		if (!tree || layer_path(s, p, i, path, sizeof(path)) < 0)
			return error_set(err, EBADMSG, "the source does not bring the container's files (%s)",
					 tree_name);
		r = make_layer(p, path, err);
		if (r < 0)
			return r;
		free(tree->target_path);
		tree->target_path = strdup(path);
		if (!tree->target_path)
			return error_set(err, ENOMEM, "no memory for the container's files");
	}
	return 0;
}

static int make_config(const struct lxc_spec *s, const struct lxc_target_place *p, struct error *err)
{
	_cleanup_buffer_ struct buffer moved = { 0 }, guarded = { 0 };
	char from[PATH_MAX];
	int r = lxc_spec_source_directory(s, from, sizeof(from));

	if (!r)
		r = lxc_config_move(s->config, from, p->directory, &moved);
	if (!r)
		r = lxc_config_guard((char *)moved.data, &guarded);
	return r < 0 ? error_errno(err, -r, "cannot rewrite the container's configuration")
		     : lxc_config_store(p->directory, &guarded, err);
}

int lxc_prepare(struct workload *w, const struct driver_place *place, struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	struct lxc_target_place p;
	int r = lxc_spec_decode(w->spec, &s, err);

	if (!r)
		r = lxc_target_place(&s, place->options, &p, err);
	if (!r)
		r = make_directory(&s, &p, place->id_text, err);
	if (!r && !lxc_group_in_use(s.name))
		lxc_remove_groups(s.name);
	if (!r)
		r = make_layers(w, &s, &p, err);
	return r < 0 ? r : make_config(&s, &p, err);
}

static int set_devices(struct lxc_container *c, const char *hierarchy, const char *what, struct error *err)
{
	char key[64], *value, *rest;
	_cleanup_free_ char *values = NULL;

	snprintf(key, sizeof(key), "lxc.%s.devices.%s", hierarchy, what);
	values = lxc_library_item(c, key);
	if (!values)
		return error_set(err, ENOMEM, "no memory for the container's devices");
	snprintf(key, sizeof(key), "devices.%s", what);
	for (value = strtok_r(values, "\n", &rest); value; value = strtok_r(NULL, "\n", &rest))
		if (!c->set_cgroup_item(c, key, value))
			return error_set(err, EIO, "LXC does not limit the devices of container %s (%s %s)", c->name,
					 key, value);
	return 0;
}

/* LXC before 7.0 limits devices at a start only, and CRIU only in groups that it makes itself: without this, all would be open. */
static int limit_devices(const struct lxc_spec *s, const struct lxc_target_place *p, struct error *err)
{
	const char *hierarchy = access("/sys/fs/cgroup/cgroup.controllers", F_OK) ? "cgroup" : "cgroup2";
	struct lxc_container *c = NULL;
	struct lxc_library l;
	int r = lxc_library_load(&l, err);

	if (!r)
		r = lxc_library_open(&l, p->place, s->name, &c, err);
	if (!r)
		r = set_devices(c, hierarchy, "deny", err);
	if (!r)
		r = set_devices(c, hierarchy, "allow", err);
	if (c)
		l.container_put(c);
	return r;
}

int lxc_restored(const struct workload *w, const struct driver_place *place, struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	struct lxc_target_place p;
	char marker[PATH_MAX + 128];
	int r = lxc_spec_decode(w->spec, &s, err);

	if (!r)
		r = lxc_target_place(&s, place->options, &p, err);
	if (r < 0)
		return r;
	/* From here on it is nobody's to forget. */
	marker_path(p.directory, place->id_text, marker, sizeof(marker));
	if (unlink(marker) < 0 && errno != ENOENT)
		return error_errno(err, errno, "cannot remove %s", marker);
	r = lxc_target_unguard(p.directory, err);
	return r < 0 ? r : limit_devices(&s, &p, err);
}

static int remove_listed(const char *text)
{
	char path[PATH_MAX];
	int r = 0;

	while (*text && !r) {
		size_t n = strcspn(text, "\n");

		snprintf(path, sizeof(path), "%.*s", (int)MIN(n, sizeof(path) - 1), text);
		if (lxc_path_valid(path))
			r = dir_remove(path);
		text += n + (text[n] == '\n');
	}
	return r;
}

/* What lies in the container's directory goes with it; that is set aside first, so that no half of it looks like a container. */
static int forget_directory(const struct lxc_spec *s, const struct lxc_target_place *p, const char *id_text)
{
	_cleanup_buffer_ struct buffer listed = { 0 };
	char path[PATH_MAX + 128], staging[PATH_MAX];
	int r;

	staging_path(p, id_text, staging, sizeof(staging));
	marker_path(p->directory, id_text, path, sizeof(path));
	if (access(path, F_OK) == 0) {
		lxc_end_leftovers(id_text, s->name);
		if (renameat2(AT_FDCWD, p->directory, AT_FDCWD, staging, RENAME_NOREPLACE) < 0)
			return -errno;
	}
	marker_path(staging, id_text, path, sizeof(path));
	r = fd_read_file(AT_FDCWD, path, LXC_CONFIG_MAX, &listed);
	if (!r)
		r = remove_listed((char *)listed.data);
	return r < 0 && r != -ENOENT ? r : dir_remove(staging);
}

int lxc_forget(const struct workload *w, const struct driver_place *place, struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	struct lxc_target_place p;
	int r = lxc_spec_decode(w->spec, &s, err);

	if (!r)
		r = lxc_target_place(&s, place->options, &p, err);
	if (r < 0)
		return r;
	r = forget_directory(&s, &p, place->id_text);
	return r < 0 ? error_errno(err, -r, "cannot remove what was made for container %s in %s", s.name, p.place) : 0;
}
