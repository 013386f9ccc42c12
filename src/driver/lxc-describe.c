/*
 * An LXC container as it runs at the source, out of its configuration and of liblxc. Nothing here changes it. No state; any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include "base/fd.h"
#include "driver/lxc-config.h"
#include "driver/lxc.h"
#include "driver/pid.h"

#define MOVED_NAME "%.40s-moved-%08" PRIx32

static int no_memory(struct error *err)
{
	return error_set(err, ENOMEM, "no memory to describe the container");
}

int lxc_config_load(const char *directory, struct buffer *ret, struct error *err)
{
	char path[PATH_MAX + 16];
	int r;

	snprintf(path, sizeof(path), "%s/config", directory);
	r = fd_read_file(AT_FDCWD, path, LXC_CONFIG_MAX, ret);
	return r < 0 ? error_errno(err, -r, "cannot read the container's configuration %s", path) : 0;
}

int lxc_config_store(const char *directory, const struct buffer *text, struct error *err)
{
	char path[PATH_MAX + 16];
	int r;

	snprintf(path, sizeof(path), "%s/config", directory);
	r = fd_write_file(AT_FDCWD, path, text->data, text->length, 0640);
	return r < 0 ? error_errno(err, -r, "cannot write the container's configuration %s", path) : 0;
}

/* "dir:/a", "/a", "overlay:/lowest:/next:/upper". */
static int take_rootfs(struct lxc_spec *s, struct error *err)
{
	char value[LXC_VALUE_MAX], *part, *rest;
	int r = 0;

	if (!lxc_config_value(s->config, "lxc.rootfs.path", value, sizeof(value)))
		return error_set(
			err, ENOTSUP,
			"the configuration of container %s names no lxc.rootfs.path: it runs in the host's files and "
			"cannot be moved",
			s->name);
	part = strchr(value, ':');
	s->rootfs = LXC_ROOTFS_DIR;
	if (part) {
		*part++ = 0;
		if (!strcmp(value, "overlay") || !strcmp(value, "overlayfs"))
			s->rootfs = LXC_ROOTFS_OVERLAY;
		else if (strcmp(value, "dir") != 0)
			return error_set(
				err, ENOTSUP,
				"the root file system of container %s is of type %.20s: only dir and overlay can be "
				"moved",
				s->name, value);
	}
	for (part = strtok_r(part ? part : value, ":", &rest); part && !r; part = strtok_r(NULL, ":", &rest)) {
		size_t n = strlen(part);

		while (n > 1 && part[n - 1] == '/')
			part[--n] = 0;
		if (!lxc_path_valid(part))
			return error_set(err, ENOTSUP, "\"%.200s\" in lxc.rootfs.path is not a plain absolute path",
					 part);
		r = lxc_spec_add(s->layers, &s->n_layers, part);
	}
	if (!r && s->n_layers < (s->rootfs == LXC_ROOTFS_DIR ? 1 : 2))
		return error_set(err, ENOTSUP, "lxc.rootfs.path of container %s makes no sense", s->name);
	return r < 0 ? error_errno(err, -r, "cannot take up the root file system of container %s", s->name) : 0;
}

/* Whether something is mounted there, as the container sees it. */
static bool mounted_at(const char *mounts, const char *path)
{
	char wanted[PATH_MAX + 4];

	for (const char *line = mounts; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		char point[PATH_MAX];

		snprintf(wanted, sizeof(wanted), "/%s", path);
		if (sscanf(line, "%*s %*s %*s %*s %4095s", point) == 1 && !strcmp(point, wanted))
			return true;
	}
	return false;
}

static bool has_option(const char *options, const char *wanted)
{
	size_t n = strlen(wanted);

	for (const char *p = options; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (!strncmp(p, wanted, n) && (!p[n] || p[n] == ','))
			return true;
	}
	return false;
}

/* One lxc.mount.entry. LXC names it to CRIU at the restore as it stands there, so the dump has to do the same. */
static int take_mount(struct lxc_spec *s, const char *mounts, const char *entry)
{
	char source[PATH_MAX], point[PATH_MAX], type[64], options[1024];
	int r;

	if (sscanf(entry, "%4095s %4095s %63s %1023s", source, point, type, options) != 4)
		return 0;
	if ((!has_option(options, "bind") && !has_option(options, "rbind")) || !mounted_at(mounts, point))
		return 0;
	r = lxc_spec_add(s->mounts, &s->n_mounts, point);
	return r || source[0] != '/' ? r : lxc_spec_add(s->needs, &s->n_needs, source);
}

static int take_mounts(struct lxc_spec *s, struct lxc_container *c, struct error *err)
{
	_cleanup_free_ char *entries = lxc_library_item(c, "lxc.mount.entry");
	_cleanup_buffer_ struct buffer mounts = { 0 };
	char path[64], *entry, *rest;
	int r;

	if (!entries)
		return no_memory(err);
	snprintf(path, sizeof(path), "/proc/%d/mountinfo", c->init_pid(c));
	r = fd_read_file(AT_FDCWD, path, 16U << 20, &mounts);
	for (entry = strtok_r(entries, "\n", &rest); entry && !r; entry = strtok_r(NULL, "\n", &rest))
		r = take_mount(s, (char *)mounts.data, entry);
	return r < 0 ? error_errno(err, -r, "cannot look at the mounts of container %s", s->name) : 0;
}

static int take_include(void *context, const char *key, const char *value)
{
	struct lxc_spec *s = context;

	return strcmp(key, "lxc.include") != 0 ? 0 : lxc_spec_add(s->needs, &s->n_needs, value);
}

static int take_bridge(void *context, const char *key, const char *value)
{
	struct lxc_spec *s = context;
	size_t n = strlen(key);

	if (strncmp(key, "lxc.net.", 8) != 0 || n < 5 || strcmp(key + n - 5, ".link") != 0 || !value[0])
		return 0;
	return lxc_spec_add(s->bridges, &s->n_bridges, value);
}

/* --bridge SRC=DST, then what bridges that leaves. */
static int take_bridges(struct lxc_spec *s, const struct driver_options *o, struct error *err)
{
	int r = 0;

	for (const char *const *bridge = o->bridges; bridge && *bridge && !r; bridge++) {
		_cleanup_buffer_ struct buffer text = { 0 };
		const char *to = strchr(*bridge, '=');
		char from[64];

		if (!to)
			return error_set(err, EINVAL, "--bridge: '%.64s' is not SRC=DST", *bridge);
		snprintf(from, sizeof(from), "%.*s", (int)MIN(to - *bridge, 63), *bridge);
		r = lxc_config_relink(s->config, from, to + 1, &text);
		if (!r) {
			free(s->config);
			s->config = (char *)TAKE_PTR(text.data);
		}
	}
	if (!r)
		r = lxc_config_each(s->config, take_bridge, s);
	return r < 0 ? error_errno(err, -r, "cannot take up the network of container %s", s->name) : 0;
}

static int take_names(struct lxc_spec *s, const char *id, const char *place, const struct driver_options *o,
		      struct error *err)
{
	uint32_t tag = 0;

	if (o->target_id && !lxc_name_valid(o->target_id))
		return error_set(err, EINVAL, "--dst-id: \"%.64s\" is not a name for an LXC container", o->target_id);
	if (getrandom(&tag, sizeof(tag), 0) != sizeof(tag))
		return error_errno(err, errno, "cannot get a random number");
	s->name = strdup(o->target_id ? o->target_id : id);
	s->place = o->target_engine ? strdup(o->target_engine) : NULL;
	s->source_name = strdup(id);
	s->source_place = strdup(place);
	if (asprintf(&s->moved_name, MOVED_NAME, id, tag) < 0)
		s->moved_name = NULL;
	if (!s->name || (o->target_engine && !s->place) || !s->source_name || !s->source_place || !s->moved_name)
		return no_memory(err);
	return 0;
}

static int take_config(struct lxc_spec *s, struct error *err)
{
	_cleanup_buffer_ struct buffer raw = { 0 }, plain = { 0 };
	char directory[PATH_MAX];
	int r = lxc_spec_source_directory(s, directory, sizeof(directory));

	if (r < 0)
		return error_errno(err, -r, "the path of container %s is too long", s->source_name);
	r = lxc_config_load(directory, &raw, err);
	if (!r && lxc_config_unguard((char *)raw.data, &plain) < 0)
		r = no_memory(err);
	if (!r)
		s->config = (char *)TAKE_PTR(plain.data);
	return r;
}

static int make_spec(struct lxc_container *c, const char *id, const char *place, const struct driver_options *o,
		     struct lxc_spec *s, struct error *err)
{
	int r = take_names(s, id, place, o, err);

	if (!r)
		r = take_config(s, err);
	if (!r)
		r = take_rootfs(s, err);
	if (!r)
		r = take_mounts(s, c, err);
	if (!r)
		r = take_bridges(s, o, err);
	if (!r && lxc_config_each(s->config, take_include, s) < 0)
		r = error_set(err, E2BIG, "the configuration of container %s includes too many files", id);
	return r;
}

static int add_trees(const struct lxc_spec *s, struct workload *w, struct error *err)
{
	char name[32];
	int r = 0;

	for (size_t i = 0; i < s->n_layers && !r; i++) {
		const char *tree = lxc_spec_tree_name(s, i, name);

		r = tree ? workload_add_tree(w, tree, s->layers[i]) : 0;
	}
	return r < 0 ? no_memory(err) : 0;
}

static int describe_running(struct lxc_container *c, const char *id, const char *place, const struct driver_options *o,
			    struct workload *w, struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec spec = { 0 };
	const char *state = c->state(c);
	pid_t pid = c->init_pid(c);
	int r;

	if (pid <= 0 || !state || !strcmp(state, "STOPPED"))
		return error_set(err, ESRCH, "the LXC container %.64s does not run: there is nothing to move live", id);
	if (strcmp(state, "RUNNING") != 0)
		return error_set(err, EBUSY, "the LXC container %.64s is %.20s: it must be running to be moved", id,
				 state);
	snprintf(w->type, sizeof(w->type), "%s", driver_lxc.name);
	snprintf(w->id, sizeof(w->id), "%s", id);
	r = pid_describe_tree(pid, false, w, err);
	if (!r)
		r = make_spec(c, id, place, o, &spec, err);
	if (!r)
		r = lxc_spec_encode(&spec, &w->spec, err);
	return r < 0 ? r : add_trees(&spec, w, err);
}

int lxc_describe(const char *id, const struct driver_options *options, struct workload *ret, struct error *err)
{
	struct lxc_container *c = NULL;
	struct workload w = { 0 };
	char place[PATH_MAX / 2];
	struct lxc_library l;
	int r;

	if (!lxc_name_valid(id))
		return error_set(err, EINVAL, "\"%.64s\" is not the name of an LXC container", id);
	r = lxc_library_load(&l, err);
	if (!r)
		r = lxc_library_place(&l, options->engine, place, sizeof(place), err);
	if (!r)
		r = lxc_library_open(&l, place, id, &c, err);
	if (!r)
		r = describe_running(c, id, place, options, &w, err);
	if (c)
		l.container_put(c);
	if (r < 0) {
		workload_free(&w);
		return r;
	}
	*ret = w;
	return 0;
}
