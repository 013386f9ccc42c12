/*
 * workload.spec of the LXC driver, to JSON and back: see lxc-spec.h. No state; any thread.
 */
#include "driver/lxc-spec.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>

#include "driver/lxc-config.h"

#define NAME_MAX_BYTES 64
#define BRIDGE_MAX_BYTES 15 /* IFNAMSIZ - 1 */

static const char *const rootfs_names[LXC_ROOTFS_MAX] = { "invalid", "dir", "overlay" };

static void free_list(char **list, size_t *n)
{
	while (*n)
		free(list[--*n]);
}

void lxc_spec_free(struct lxc_spec *s)
{
	free(s->name);
	free(s->place);
	free(s->source_name);
	free(s->source_place);
	free(s->moved_name);
	free(s->config);
	free_list(s->layers, &s->n_layers);
	free_list(s->needs, &s->n_needs);
	free_list(s->mounts, &s->n_mounts);
	free_list(s->bridges, &s->n_bridges);
	*s = (struct lxc_spec){ 0 };
}

int lxc_spec_add(char **list, size_t *n, const char *text)
{
	if (*n == LXC_LIST_MAX)
		return -E2BIG;
	list[*n] = strdup(text);
	if (!list[*n])
		return -ENOMEM;
	++*n;
	return 0;
}

bool lxc_name_valid(const char *name)
{
	size_t n = strlen(name);

	if (!n || n > NAME_MAX_BYTES || name[0] == '.' || name[0] == '-')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("_.-", name[i]))
			return false;
	return true;
}

/* Absolute, without "." and ".." and doubled slashes, and nothing that a configuration or a mount option would split. */
bool lxc_path_valid(const char *path)
{
	size_t n = strlen(path);

	if (n < 2 || n >= PATH_MAX || path[0] != '/' || path[n - 1] == '/')
		return false;
	if (strpbrk(path, ":,\n\t \"'\\#"))
		return false;
	for (const char *p = path; p; p = strchr(p + 1, '/')) {
		size_t part = strcspn(p + 1, "/");

		if (!part || (p[1] == '.' && (part == 1 || (part == 2 && p[2] == '.'))))
			return false;
	}
	return true;
}

static json_t *list_to_json(char *const *list, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(array, json_string(list[i]));
	return array;
}

int lxc_spec_encode(const struct lxc_spec *s, char **ret, struct error *err)
{
	json_t *o =
		json_pack("{s:s, s:s?, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "name", s->name, "place",
			  s->place, "source_name", s->source_name, "source_place", s->source_place, "moved_name",
			  s->moved_name, "config", s->config, "rootfs", rootfs_names[s->rootfs], "layers",
			  list_to_json(s->layers, s->n_layers), "needs", list_to_json(s->needs, s->n_needs), "mounts",
			  list_to_json(s->mounts, s->n_mounts), "bridges", list_to_json(s->bridges, s->n_bridges));

	*ret = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	return *ret ? 0 : error_set(err, EINVAL, "container %s has a configuration that is not UTF-8", s->name);
}

static int bad(struct error *err, const char *what)
{
	return error_set(err, EBADMSG, "the source's description of the LXC container has no usable %s", what);
}

static int take_text(const json_t *o, const char *key, bool (*valid)(const char *), char **ret, struct error *err)
{
	const char *text = json_string_value(json_object_get(o, key));

	if (!text || (valid && !valid(text)))
		return bad(err, key);
	*ret = strdup(text);
	return *ret ? 0 : error_set(err, ENOMEM, "no memory for a container's description");
}

static bool bridge_valid(const char *name)
{
	return name[0] && strlen(name) <= BRIDGE_MAX_BYTES && !strpbrk(name, "/ \t\n@") && name[0] != '.';
}

static bool mount_valid(const char *path)
{
	char absolute[PATH_MAX + 1];

	snprintf(absolute, sizeof(absolute), "/%s", path);
	return strlen(path) < PATH_MAX && lxc_path_valid(absolute);
}

static bool config_valid(const char *text)
{
	return strlen(text) <= LXC_CONFIG_MAX;
}

static int take_list(const json_t *o, const char *key, bool (*valid)(const char *), char **list, size_t *n,
		     struct error *err)
{
	const json_t *array = json_object_get(o, key);

	if (!json_is_array(array) || json_array_size(array) > LXC_LIST_MAX)
		return bad(err, key);
	for (size_t i = 0; i < json_array_size(array); i++) {
		const char *text = json_string_value(json_array_get(array, i));

		if (!text || !valid(text))
			return bad(err, key);
		if (lxc_spec_add(list, n, text) < 0)
			return error_set(err, ENOMEM, "no memory for a container's description");
	}
	return 0;
}

static int take_rootfs(const json_t *o, struct lxc_spec *s, struct error *err)
{
	const char *text = json_string_value(json_object_get(o, "rootfs"));
	int r = take_list(o, "layers", lxc_path_valid, s->layers, &s->n_layers, err);

	for (int i = LXC_ROOTFS_DIR; text && i < LXC_ROOTFS_MAX; i++)
		if (!strcmp(text, rootfs_names[i]))
			s->rootfs = (enum lxc_rootfs)i;
	if (!r && (!s->rootfs || s->n_layers < (s->rootfs == LXC_ROOTFS_DIR ? 1 : 2) ||
		   (s->rootfs == LXC_ROOTFS_DIR && s->n_layers > 1)))
		r = bad(err, "rootfs");
	return r;
}

int lxc_spec_decode(const char *text, struct lxc_spec *ret, struct error *err)
{
	struct lxc_spec s = { 0 };
	json_t *o = text ? json_loads(text, 0, NULL) : NULL;
	int r = json_is_object(o) ? 0 : bad(err, "form");

	if (!r)
		r = take_text(o, "name", lxc_name_valid, &s.name, err);
	if (!r && json_is_string(json_object_get(o, "place")))
		r = take_text(o, "place", lxc_path_valid, &s.place, err);
	if (!r)
		r = take_text(o, "source_name", lxc_name_valid, &s.source_name, err);
	if (!r)
		r = take_text(o, "source_place", lxc_path_valid, &s.source_place, err);
	if (!r)
		r = take_text(o, "moved_name", lxc_name_valid, &s.moved_name, err);
	if (!r)
		r = take_text(o, "config", config_valid, &s.config, err);
	if (!r)
		r = take_rootfs(o, &s, err);
	if (!r)
		r = take_list(o, "needs", lxc_path_valid, s.needs, &s.n_needs, err);
	if (!r)
		r = take_list(o, "mounts", mount_valid, s.mounts, &s.n_mounts, err);
	if (!r)
		r = take_list(o, "bridges", bridge_valid, s.bridges, &s.n_bridges, err);
	json_decref(o);
	if (r < 0)
		lxc_spec_free(&s);
	else
		*ret = s;
	return r;
}

int lxc_spec_source_directory(const struct lxc_spec *s, char *ret, size_t size)
{
	int n = snprintf(ret, size, "%s/%s", s->source_place, s->source_name);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

const char *lxc_spec_tree_name(const struct lxc_spec *s, size_t i, char name[32])
{
	char directory[PATH_MAX];

	if (s->rootfs == LXC_ROOTFS_DIR)
		return "rootfs";
	if (i + 1 == s->n_layers)
		return "upper";
	if (lxc_spec_source_directory(s, directory, sizeof(directory)) < 0 || !lxc_path_below(s->layers[i], directory))
		return NULL;
	snprintf(name, 32, "lower%zu", i);
	return name;
}
