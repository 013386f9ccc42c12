/*
 * What would stop an LXC container at the source, and what its engine is told there: guarded before the freeze, renamed or removed after the move.
 *
 * LXC has no restart policy of its own; its monitor sees the container's init end and cleans up (veth, control groups, post-stop hooks). What may
 * start the container again is the host's boot (lxc.start.auto), which the guard in its configuration prevents. No state; any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "driver/lxc-config.h"
#include "driver/lxc.h"
#include "driver/oci.h"
#include "driver/pid.h"

#define STOP_S 20 /* until LXC's monitor has cleaned up behind a container whose tasks were killed */

struct config_check {
	struct obstacles *o;
	bool at_target;
};

static bool begins(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

/* Why a setting cannot go along; NULL: it can. */
static const char *objection(const char *key, const char *value, const char **ret_cure)
{
	size_t n = strlen(key);

	*ret_cure = "remove that setting and restart the container";
	if (begins(key, "lxc.hook.") && strcmp(key, "lxc.hook.version") != 0)
		return "a hook runs programs of the host, at both hosts";
	if (begins(key, "lxc.net.") &&
	    (strstr(key, ".script.") ||
	     (n > 5 && !strcmp(key + n - 5, ".type") && strcmp(value, "veth") != 0 && strcmp(value, "empty") != 0))) {
		*ret_cure = "use lxc.net.N.type = veth, without scripts";
		return "only veth devices on a bridge can be made again at the target";
	}
	if (begins(key, "lxc.namespace."))
		return "the container shares namespaces with others";
	if (!strcmp(key, "lxc.idmap"))
		return "containers with a user namespace cannot be moved yet";
	if (!strcmp(key, "lxc.mount.fstab")) {
		*ret_cure = "write its lines as lxc.mount.entry";
		return "the file stays at the source";
	}
	if (begins(key, "lxc.cgroup.dir") || !strcmp(key, "lxc.rootfs.mount") || !strcmp(key, "lxc.rootfs.options"))
		return "places other than the usual ones cannot be kept";
	return NULL;
}

static int check_setting(void *context, const char *key, const char *value)
{
	struct config_check *c = context;
	const char *cure, *why = objection(key, value, &cure);

	if (!why)
		return 0;
	return obstacles_add(c->o, OBSTACLE_REFUSES, c->at_target, cure, "the container's setting %.100s = %.100s: %s",
			     key, value, why);
}

int lxc_check_config(const struct lxc_spec *s, bool at_target, struct obstacles *ret)
{
	struct config_check c = { .o = ret, .at_target = at_target };

	return lxc_config_each(s->config, check_setting, &c);
}

/* CRIU cannot dump a console that leads to a terminal of the host. */
static int check_console(struct lxc_container *c, struct obstacles *o)
{
	_cleanup_free_ char *console = lxc_library_running_item(c, "lxc.console.path");
	_cleanup_free_ char *terminals = lxc_library_running_item(c, "lxc.tty.max");
	int r = 0;

	if (!console || !terminals)
		return -ENOMEM;
	if (strcmp(console, "none") != 0)
		r = obstacles_add(o, OBSTACLE_REFUSES, false, "set lxc.console.path = none and restart the container",
				  "container %s has a console on a terminal of this host, which cannot move", c->name);
	if (!r && strtol(terminals, NULL, 10) > 0)
		r = obstacles_add(o, OBSTACLE_REFUSES, false, "set lxc.tty.max = 0 and restart the container",
				  "container %s has %s terminals of this host, which cannot move", c->name, terminals);
	return r;
}

/* Settings of included files count too. */
static int check_network(const struct workload *w, struct lxc_container *c, struct obstacles *o)
{
	_cleanup_free_ char *types = lxc_library_item(c, "lxc.net");
	char *type, *rest;
	int r = 0;

	if (!types)
		return -ENOMEM;
	for (type = strtok_r(types, "\n", &rest); type && !r; type = strtok_r(NULL, "\n", &rest))
		if (strcmp(type, "veth") != 0 && strcmp(type, "empty") != 0 && strcmp(type, "none") != 0)
			r = obstacles_add(
				o, OBSTACLE_REFUSES, false, "use lxc.net.N.type = veth",
				"container %s has a network device of type %s, which cannot be made again at the "
				"target",
				c->name, type);
	if (!r && tree_namespace(w->root_pid, "net") == tree_namespace(getpid(), "net"))
		r = obstacles_add(o, OBSTACLE_REFUSES, false,
				  "give it a network of its own (lxc.net.0.type = veth, or empty)",
				  "container %s uses the network of this host", c->name);
	return r;
}

/* Nested containers: CRIU makes mount, network, IPC and UTS namespaces again below the root, but not these. */
static int check_nested(const struct tree *t, const struct lxc_container *c, struct obstacles *o)
{
	static const char *const kinds[] = { "pid", "user", "time", "cgroup" };
	const struct tree_process *root = &t->processes[0];

	if (tree_namespace(root->pid, "user") != tree_namespace(getpid(), "user") &&
	    obstacles_add(o, OBSTACLE_REFUSES, false, "move its work into a privileged container",
			  "container %s has a user namespace of its own, which cannot be moved yet", c->name) < 0)
		return -ENOMEM;
	for (size_t i = 1; i < t->n; i++)
		for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
			uint64_t inner = tree_namespace(t->processes[i].pid, kinds[k]);

			if (!inner || inner == tree_namespace(root->pid, kinds[k]))
				continue;
			return obstacles_add(o, OBSTACLE_REFUSES, false, "end that part of the container",
					     "process %d (%s) has a %s namespace of its own inside of container %s",
					     t->processes[i].pid, t->processes[i].name, kinds[k], c->name);
		}
	return 0;
}

/* LXC makes such a profile at a start only, and at a restore gives CRIU the word "generated" for its name. */
static int check_profile(const struct workload *w, struct lxc_container *c, struct obstacles *o)
{
	_cleanup_free_ char *profile = lxc_library_running_item(c, "lxc.apparmor.profile");
	_cleanup_buffer_ struct buffer now = { 0 };
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/attr/current", w->root_pid);
	if (!profile || strcmp(profile, "generated") != 0 || fd_read_file(AT_FDCWD, path, 4096, &now) < 0 ||
	    !now.length || !strncmp((char *)now.data, "unconfined", 10))
		return profile ? 0 : -ENOMEM;
	return obstacles_add(o, OBSTACLE_REFUSES, false,
			     "set lxc.apparmor.profile to one that both hosts have (lxc-container-default-cgns)",
			     "container %s has an AppArmor profile that was made for this start of it (generated)",
			     c->name);
}

static int check_layers_here(const struct lxc_spec *s, struct obstacles *o)
{
	struct stat st;

	for (size_t i = 0; i < s->n_layers; i++)
		if (stat(s->layers[i], &st) < 0 || !S_ISDIR(st.st_mode))
			return obstacles_add(o, OBSTACLE_REFUSES, false, "write lxc.rootfs.path as TYPE:DIRECTORY",
					     "%s, part of the root file system of container %s, is not a directory",
					     s->layers[i], s->source_name);
	return 0;
}

/* A device of the target's by that name is another one. */
static int check_devices(const struct lxc_spec *s, struct obstacles *o)
{
	struct stat st;

	for (size_t i = 0; i < s->n_needs; i++)
		if (stat(s->needs[i], &st) == 0 && (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) &&
		    !oci_default_device(s->needs[i]))
			return obstacles_add(
				o, OBSTACLE_REFUSES, false, "remove its lxc.mount.entry and restart the container",
				"container %s was given the device %.128s of this host", s->source_name, s->needs[i]);
	return 0;
}

static int check_container(const struct workload *w, const struct lxc_spec *s, struct lxc_container *c,
			   const struct tree *t, struct obstacles *o)
{
	int r = lxc_check_config(s, false, o);

	if (!r)
		r = check_layers_here(s, o);
	if (!r)
		r = check_devices(s, o);
	if (!r)
		r = check_console(c, o);
	if (!r)
		r = check_network(w, c, o);
	if (!r)
		r = check_profile(w, c, o);
	return r ? r : check_nested(t, c, o);
}

static int open_source(const struct lxc_spec *s, struct lxc_library *l, struct lxc_container **ret, struct error *err)
{
	int r = lxc_library_load(l, err);

	return r < 0 ? r : lxc_library_open(l, s->source_place, s->source_name, ret, err);
}

int lxc_check_source(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
		     struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	_cleanup_tree_ struct tree t = { 0 };
	struct lxc_container *c = NULL;
	struct lxc_library l;
	int r = lxc_spec_decode(w->spec, &s, err);

	if (!r)
		r = open_source(&s, &l, &c, err);
	if (!r)
		r = tree_read(w->root_pid, &t, err);
	if (!r && check_container(w, &s, c, &t, ret) < 0)
		r = error_set(err, ENOMEM, "no memory for the list of obstacles");
	if (c)
		l.container_put(c);
	if (!r)
		r = pid_check_processes(&t, ret, err);
	if (!r)
		r = pid_check_descriptors(&t, true, options, ret, err);
	return r < 0 ? r : pid_check_mappings(&t, ret, err);
}

/* Guards the configuration of a container, or takes the guard away. */
static int set_guard(const char *directory, bool guarded, struct error *err)
{
	_cleanup_buffer_ struct buffer before = { 0 }, after = { 0 };
	int r = lxc_config_load(directory, &before, err);

	if (r < 0 || lxc_config_guarded((char *)before.data) == guarded)
		return r;
	r = guarded ? lxc_config_guard((char *)before.data, &after) : lxc_config_unguard((char *)before.data, &after);
	return r < 0 ? error_errno(err, -r, "cannot rewrite the configuration in %s", directory)
		     : lxc_config_store(directory, &after, err);
}

static int guard_source(const struct workload *w, bool guarded, struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	char directory[PATH_MAX];
	int r = lxc_spec_decode(w->spec, &s, err);

	if (!r)
		r = lxc_spec_source_directory(&s, directory, sizeof(directory));
	return r < 0 ? r : set_guard(directory, guarded, err);
}

int lxc_arm(const struct workload *w, const struct driver_options *options, struct error *err)
{
	(void)options;
	return guard_source(w, true, err);
}

int lxc_disarm(const struct workload *w, const struct driver_options *options, struct error *err)
{
	(void)options;
	return guard_source(w, false, err);
}

int lxc_target_unguard(const char *directory, struct error *err)
{
	return set_guard(directory, false, err);
}

/* A directory of that name appears at once; its configuration, which names the old one until it is rewritten, cannot be started. */
static int rename_source(const struct lxc_spec *s, struct error *err)
{
	_cleanup_buffer_ struct buffer before = { 0 }, moved = { 0 }, after = { 0 };
	char from[PATH_MAX], to[PATH_MAX];
	int r;

	snprintf(from, sizeof(from), "%s/%s", s->source_place, s->source_name);
	snprintf(to, sizeof(to), "%s/%s", s->source_place, s->moved_name);
	if (rename(from, to) < 0 && errno != ENOENT)
		return error_errno(err, errno, "cannot rename the stopped container %s to %s", from, to);
	r = lxc_config_load(to, &before, err);
	if (r < 0)
		return r;
	r = lxc_config_move((char *)before.data, from, to, &moved);
	if (!r)
		r = lxc_config_guard((char *)moved.data, &after);
	return r < 0 ? error_errno(err, -r, "cannot rewrite the configuration in %s", to)
		     : lxc_config_store(to, &after, err);
}

static int await_stop(const struct workload *w, struct lxc_container *c, struct error *err)
{
	pid_t pid = c->init_pid(c);

	if (pid > 0 && pid != w->root_pid)
		return error_set(err, EBUSY, "the container %s was started again and is left alone", c->name);
	if (!c->wait(c, "STOPPED", STOP_S))
		return error_set(err, ETIMEDOUT, "LXC has not cleaned up behind container %s within %d s", c->name,
				 STOP_S);
	return 0;
}

int lxc_moved(const struct workload *w, const struct driver_options *options, struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	struct lxc_container *c = NULL;
	struct lxc_library l;
	int r = lxc_spec_decode(w->spec, &s, err);

	if (!r)
		r = open_source(&s, &l, &c, err);
	if (r == -ESRCH) /* done before, as far as the name goes */
		return options->remove_source ? 0 : rename_source(&s, err);
	if (!r)
		r = await_stop(w, c, err);
	if (!r && options->remove_source && !c->destroy(c))
		r = error_set(err, EIO, "LXC did not remove container %s: %s", s.source_name,
			      c->error_string ? c->error_string : "it gave no reason");
	if (!r && !options->remove_source)
		r = rename_source(&s, err);
	if (c)
		l.container_put(c);
	return r;
}
