/*
 * Workloads and obstacles: release and growth. See workload.h. No state; any thread.
 */
#include "driver/workload.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/array.h"

#define OBSTACLES_MAX 256 /* what nobody reads to the end is not collected */

void workload_free(struct workload *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->n_files; i++)
		free(w->files[i].path);
	free(w->files);
	free(w->processes);
	free(w->pids);
	free(w->spec);
	for (size_t i = 0; i < w->n_trees; i++) {
		free(w->trees[i].name);
		free(w->trees[i].path);
		free(w->trees[i].target_path);
		for (char **e = w->trees[i].excludes; e && *e; e++)
			free(*e);
		free(w->trees[i].excludes);
	}
	free(w->trees);
	*w = (struct workload){ 0 };
}

int workload_add_tree(struct workload *w, const char *name, const char *path)
{
	struct workload_tree *trees;

	if (w->n_trees >= WORKLOAD_TREES_MAX)
		return -E2BIG;
	trees = reallocarray(w->trees, w->n_trees + 1, sizeof(*trees));
	if (!trees)
		return -ENOMEM;
	w->trees = trees;
	trees[w->n_trees] = (struct workload_tree){ .name = strdup(name), .path = strdup(path) };
	if (!trees[w->n_trees].name || !trees[w->n_trees].path) {
		free(trees[w->n_trees].name);
		free(trees[w->n_trees].path);
		return -ENOMEM;
	}
	w->n_trees++;
	return 0;
}

int workload_tree_exclude(struct workload_tree *t, const char *path)
{
	char **excludes;
	size_t n = 0;

	while (t->excludes && t->excludes[n])
		n++;
	excludes = reallocarray(t->excludes, n + 2, sizeof(*excludes));
	if (!excludes)
		return -ENOMEM;
	t->excludes = excludes;
	excludes[n + 1] = NULL;
	excludes[n] = strdup(path);
	return excludes[n] ? 0 : -ENOMEM;
}

struct workload_tree *workload_tree_find(const struct workload *w, const char *name)
{
	for (size_t i = 0; i < w->n_trees; i++)
		if (!strcmp(w->trees[i].name, name))
			return &w->trees[i];
	return NULL;
}

static bool obstacles_have(const struct obstacles *o, const struct obstacle *one)
{
	for (size_t i = 0; i < o->n; i++)
		if (o->list[i].kind == one->kind && o->list[i].at_target == one->at_target &&
		    !strcmp(o->list[i].what, one->what))
			return true;
	return false;
}

int obstacles_add(struct obstacles *o, enum obstacle_kind kind, bool at_target, const char *cure, const char *fmt, ...)
{
	struct obstacle one = { .kind = kind, .at_target = at_target };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(one.what, sizeof(one.what), fmt, ap);
	va_end(ap);
	snprintf(one.cure, sizeof(one.cure), "%s", cure ? cure : "");
	error_tidy(one.what); /* names of files and programs are in it; a peer takes none with control characters */
	error_tidy(one.cure);
	if (obstacles_have(o, &one))
		return 0;
	/* A refusal must never be lost behind a crowd of warnings. */
	if (o->n >= OBSTACLES_MAX && (kind != OBSTACLE_REFUSES || obstacles_refuse(o)))
		return 0;
	if (array_grow(&o->list, o->n, &o->n_allocated, 8, sizeof(*o->list)) < 0)
		return -ENOMEM;
	o->list[o->n++] = one;
	return 0;
}

bool obstacles_refuse(const struct obstacles *o)
{
	for (size_t i = 0; i < o->n; i++)
		if (o->list[i].kind == OBSTACLE_REFUSES)
			return true;
	return false;
}

void obstacles_free(struct obstacles *o)
{
	if (!o)
		return;
	free(o->list);
	*o = (struct obstacles){ 0 };
}
