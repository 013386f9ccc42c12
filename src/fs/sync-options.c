/*
 * Which options rsync gets at the source, and trees' excluded paths: see sync-options.h. No state; any thread.
 */
#include "fs/sync-options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "fs/sync-stream.h"

bool sync_tree_excludes(const struct sync_tree *tree, const char *path)
{
	for (const char *const *e = tree->excludes; e && *e; e++) {
		size_t n = strlen(*e);

		if (!strncmp(path, *e, n) && (!path[n] || path[n] == '/'))
			return true;
	}
	return false;
}

/* A backslash takes a wildcard's meaning, but is itself one only in a pattern that has a wildcard; rsync(1), PATTERN MATCHING RULES. */
char *sync_options_exclude(const char *path)
{
	static const char head[] = "--exclude=/";
	bool wild = strpbrk(path, "*?[") != NULL;
	char *text = malloc(sizeof(head) + 2 * strlen(path)), *to;

	if (!text)
		return NULL;
	memcpy(text, head, sizeof(head));
	to = text + sizeof(head) - 1;
	for (const char *p = path; *p; p++) {
		if (wild && strchr("*?[\\", *p))
			*to++ = '\\';
		*to++ = *p;
	}
	*to = 0;
	return text;
}

/* Takes over text, which may be NULL for want of memory. */
static int add(struct sync_options *o, char *text)
{
	if (!text || array_grow(&o->argv, o->n + 1, &o->n_allocated, 32, sizeof(*o->argv)) < 0) {
		free(text);
		return -ENOMEM;
	}
	o->argv[o->n++] = text;
	o->argv[o->n] = NULL;
	return 0;
}

void sync_options_free(struct sync_options *o)
{
	for (size_t i = 0; i < o->n; i++)
		free(o->argv[i]);
	free(o->argv);
	*o = (struct sync_options){ 0 };
}

int sync_options_make(const struct sync_tree *tree, char kind, bool listed, int helper_fd, struct sync_options *ret,
		      struct error *err)
{
	static const char *const always[] = {
		"rsync",	 "-aHAXS",
		"--numeric-ids", "--delete",
		"--inplace",	 "--modify-window=-1", /* nanoseconds: a second sees many writes */
		"--stats",	 "--no-human-readable"
	};
	/* A name that is gone is deleted at the target, a directory too, with all that it has. */
	static const char *const by_list[] = { "--from0", "--files-from=-", "--delete-missing-args", "--force" };
	char *shell, *from;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(always) && !r; i++)
		r = add(ret, strdup(always[i]));
	for (size_t i = 0; i < ARRAY_SIZE(by_list) && listed && !r; i++)
		r = add(ret, strdup(by_list[i]));
	for (const char *const *e = tree->excludes; e && *e && !r; e++)
		r = add(ret, sync_options_exclude(*e));
	/* By our own entry in /proc, so that the helper is this very program even when its file was replaced meanwhile. */
	if (!r)
		r = add(ret, strdup("-e"));
	if (!r)
		r = asprintf(&shell, "/proc/%d/exe " SYNC_VERB " %d %c", getpid(), helper_fd, kind) < 0
			    ? -ENOMEM
			    : add(ret, shell);
	if (!r)
		r = asprintf(&from, "%s%s", tree->path, kind == 'd' ? "/" : "") < 0 ? -ENOMEM : add(ret, from);
	/* Where to is the target's to say. */
	if (!r)
		r = add(ret, strdup("phaul:/"));
	return r < 0 ? error_set(err, ENOMEM, "no memory to synchronise %s", tree->path) : 0;
}
