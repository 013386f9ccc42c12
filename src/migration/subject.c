/*
 * A workload beside its journal: see subject.h. No state; any thread.
 */
#include "migration/subject.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"

#define SUBJECT_MAX (8U << 20)

/* The members of driver_options that are strings and matter after a crash. */
static const struct {
	const char *key;
	size_t offset;
} texts[] = {
	{ "runtime", offsetof(struct driver_options, runtime) },
	{ "engine", offsetof(struct driver_options, engine) },
	{ "target_engine", offsetof(struct driver_options, target_engine) },
	{ "target_id", offsetof(struct driver_options, target_id) },
	{ "target_bundle", offsetof(struct driver_options, target_bundle) },
};

static json_t *trees_to_json(const struct workload *w)
{
	json_t *trees = json_array();

	for (size_t i = 0; i < w->n_trees; i++)
		json_array_append_new(trees, json_pack("{s:s, s:s, s:s?}", "name", w->trees[i].name, "path",
						       w->trees[i].path, "target_path", w->trees[i].target_path));
	return trees;
}

int subject_save(const struct journal *j, const struct workload *w, const struct driver_options *options,
		 struct error *err)
{
	json_t *o =
		json_pack("{s:s, s:s, s:i, s:s?, s:o, s:b}", "type", w->type, "id", w->id, "root_pid", (int)w->root_pid,
			  "spec", w->spec, "trees", trees_to_json(w), "remove_source", (int)options->remove_source);
	_cleanup_free_ char *text = NULL;
	char path[4200];
	int r = -ENOMEM;

	for (size_t i = 0; o && i < ARRAY_SIZE(texts); i++) {
		const char *value = *(const char *const *)((const char *)options + texts[i].offset);

		if (value)
			json_object_set_new(o, texts[i].key, json_string(value));
	}
	text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	snprintf(path, sizeof(path), "%s/workload", journal_place(j));
	if (text)
		r = fd_write_file(AT_FDCWD, path, text, strlen(text), 0600);
	return r < 0 ? error_errno(err, -r, "cannot write %s", path) : 0;
}

static int read_trees(const json_t *trees, struct workload *w)
{
	size_t i;
	json_t *tree;

	json_array_foreach (trees, i, tree) {
		const char *name = json_string_value(json_object_get(tree, "name"));
		const char *path = json_string_value(json_object_get(tree, "path"));
		const char *target = json_string_value(json_object_get(tree, "target_path"));

		if (!name || !path || workload_add_tree(w, name, path) < 0)
			return -EBADMSG;
		if (target && !(w->trees[w->n_trees - 1].target_path = strdup(target)))
			return -ENOMEM;
	}
	return 0;
}

static int fill(struct subject *s, json_t *o)
{
	const char *type = json_string_value(json_object_get(o, "type"));
	const char *id = json_string_value(json_object_get(o, "id"));
	const char *spec = json_string_value(json_object_get(o, "spec"));

	s->driver = type ? driver_find(type) : NULL;
	if (!s->driver || !id)
		return -EBADMSG;
	snprintf(s->workload.type, sizeof(s->workload.type), "%s", type);
	snprintf(s->workload.id, sizeof(s->workload.id), "%s", id);
	s->workload.root_pid = (pid_t)json_integer_value(json_object_get(o, "root_pid"));
	if (spec && !(s->workload.spec = strdup(spec)))
		return -ENOMEM;
	s->options.remove_source = json_is_true(json_object_get(o, "remove_source"));
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		*(const char **)((char *)&s->options + texts[i].offset) =
			json_string_value(json_object_get(o, texts[i].key));
	return read_trees(json_object_get(o, "trees"), &s->workload);
}

int subject_load(const struct journal *j, struct subject *ret, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	struct subject s = { 0 };
	char path[4200];
	json_t *o;
	int r;

	snprintf(path, sizeof(path), "%s/workload", journal_place(j));
	r = fd_read_file(AT_FDCWD, path, SUBJECT_MAX, &text);
	if (r < 0)
		return r == -ENOENT ? r : error_errno(err, -r, "cannot read %s", path);
	o = json_loadb((const char *)text.data, text.length, 0, NULL);
	s.text = o;
	r = o ? fill(&s, o) : -EBADMSG;
	if (r < 0) {
		subject_free(&s);
		return error_errno(err, -r, "cannot understand %s", path);
	}
	snprintf(s.work_directory, sizeof(s.work_directory), "%.511s", journal_fact(j, "work_directory"));
	*ret = s;
	return 0;
}

void subject_free(struct subject *s)
{
	workload_free(&s->workload);
	json_decref(s->text);
	s->text = NULL;
}

/* Loads, and says so when that fails. */
static bool loaded(const struct journal *j, struct subject *ret)
{
	struct error err = { 0 };
	int r = subject_load(j, ret, &err);

	if (r < 0 && r != -ENOENT)
		log_warning("%s", err.text);
	return r == 0;
}

void subject_disarm(const struct journal *j)
{
	struct error err = { 0 };
	struct subject s;

	if (!loaded(j, &s))
		return;
	if (s.driver->disarm && s.driver->disarm(&s.workload, &s.options, &err) < 0)
		log_warning("%s", err.text);
	subject_free(&s);
}

void subject_restart(const struct journal *j)
{
	struct error err = { 0 };
	struct subject s;

	if (!journal_fact_number(j, SUBJECT_STOPPED) || !loaded(j, &s))
		return;
	if (s.driver->start && s.driver->start(&s.workload, &s.options, NULL, &err) < 0)
		log_error("%s", err.text);
	subject_free(&s);
}

void subject_moved(const struct journal *j)
{
	struct error err = { 0 };
	struct subject s;

	if (!loaded(j, &s))
		return;
	if (s.driver->moved && s.driver->moved(&s.workload, &s.options, &err) < 0)
		log_warning("%s", err.text);
	subject_free(&s);
}

static void at_target(const struct journal *j, bool keep)
{
	struct error err = { 0 };
	struct subject s;
	int r = 0;

	if (!loaded(j, &s))
		return;
	{
		struct driver_place place = { .id_text = journal_id(j),
					      .work_directory = s.work_directory,
					      .images_directory = s.work_directory,
					      .options = &s.options,
					      .lock = -1 };

		if (keep && s.driver->restored)
			r = s.driver->restored(&s.workload, &place, &err);
		else if (!keep && s.driver->forget)
			r = s.driver->forget(&s.workload, &place, &err);
	}
	if (r < 0)
		log_warning("%s", err.text);
	subject_free(&s);
}

void subject_restored(const struct journal *j)
{
	at_target(j, true);
}

void subject_forget(const struct journal *j)
{
	at_target(j, false);
}
