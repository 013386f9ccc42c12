/*
 * Containers of an OCI runtime with runc's state: see oci.h. No state; any thread.
 */
#include "driver/oci.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "driver/pid.h"

#define STATE_MAX (4U << 20)
#define RUNTIME_MS 10000
#define CGROUPS_SOFT 3 /* CRIU's CG_MODE_SOFT: groups are made where they are missing, properties left alone */

bool oci_id_valid(const char *id)
{
	size_t n = strlen(id);

	return n && n < 256 && id[0] != '.' && !strchr(id, '/') && id[0] != '-';
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

/* labels are "KEY=VALUE" strings; runc keeps the bundle there. */
static void find_bundle(struct oci_state *s)
{
	const json_t *labels = json_object_get(json_object_get(s->json, "config"), "labels");
	json_t *label;
	size_t i;

	json_array_foreach (labels, i, label) {
		const char *text = json_string_value(label);

		if (text && !strncmp(text, "bundle=", strlen("bundle=")))
			snprintf(s->bundle, sizeof(s->bundle), "%s", text + strlen("bundle="));
	}
}

int oci_state_read(const char *root, const char *id, struct oci_state *ret, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	struct oci_state s = { 0 };
	char path[1024];
	int r;

	if (!oci_id_valid(id))
		return error_set(err, EINVAL, "\"%.64s\" is not a container's id", id);
	snprintf(path, sizeof(path), "%.511s/%s/state.json", root, id);
	r = fd_read_file(AT_FDCWD, path, STATE_MAX, &text);
	if (r == -ENOENT || r == -ENOTDIR)
		return error_set(err, ESRCH, "there is no container %s here (no %s)", id, path);
	if (r < 0)
		return error_errno(err, -r, "cannot read %s", path);
	s.json = json_loadb((const char *)text.data, text.length, 0, NULL);
	s.pid = (pid_t)json_integer_value(json_object_get(s.json, "init_process_pid"));
	snprintf(s.id, sizeof(s.id), "%s", id);
	snprintf(s.root, sizeof(s.root), "%s", root);
	snprintf(s.rootfs, sizeof(s.rootfs), "%s", text_of(json_object_get(s.json, "config"), "rootfs"));
	find_bundle(&s);
	if (!s.json || s.pid <= 0 || s.rootfs[0] != '/') {
		json_decref(s.json);
		return error_set(err, EBADMSG,
				 "%s is not the state of a container that runc keeps (another runtime's?)", path);
	}
	*ret = s;
	return 0;
}

void oci_state_free(struct oci_state *s)
{
	json_decref(s->json);
	s->json = NULL;
}

/* The state file outlives the process: the pid may be gone, or somebody else's. */
bool oci_runs(const struct oci_state *s)
{
	json_int_t started = json_integer_value(json_object_get(s->json, "init_process_start"));
	uint64_t ticks = process_start_ticks(s->pid);

	return ticks && (!started || (uint64_t)started == ticks);
}

int oci_describe(const struct oci_state *s, struct workload *ret, struct error *err)
{
	if (!oci_runs(s))
		return error_set(err, ESRCH, "container %s does not run", s->id);
	return pid_describe_tree(s->pid, false, ret, err);
}

static bool has_namespace(const struct oci_state *s, const char *type)
{
	const json_t *list = json_object_get(json_object_get(s->json, "config"), "namespaces");
	json_t *one;
	size_t i;

	json_array_foreach (list, i, one)
		if (!strcmp(text_of(one, "type"), type))
			return true;
	return false;
}

static int check_namespaces(const struct oci_state *s, const struct workload *w, struct obstacles *o)
{
	static const char *const needed[][2] = { { "NEWPID", "pid" }, { "NEWNS", "mount" }, { "NEWIPC", "IPC" } };
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(needed) && r >= 0; i++)
		if (!has_namespace(s, needed[i][0]))
			r = obstacles_add(o, OBSTACLE_REFUSES, false, "run it with namespaces of its own",
					  "container %.64s uses the %s namespace of this host, which cannot move",
					  w->id, needed[i][1]);
	if (r >= 0 && has_namespace(s, "NEWUSER"))
		r = obstacles_add(o, OBSTACLE_REFUSES, false, "run it without --userns",
				  "container %.64s has a user namespace of its own, whose mapping of ids is this "
				  "host's",
				  w->id);
	return r;
}

bool oci_default_device(const char *path)
{
	static const char *const known[] = { "/dev/null",    "/dev/zero", "/dev/full",	  "/dev/random",
					     "/dev/urandom", "/dev/tty",  "/dev/console", "/dev/ptmx" };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(path, known[i]))
			return true;
	return false;
}

static int check_devices(const struct oci_state *s, const struct workload *w, struct obstacles *o)
{
	const json_t *devices = json_object_get(json_object_get(s->json, "config"), "devices");
	json_t *one;
	size_t i;

	json_array_foreach (devices, i, one)
		if (!oci_default_device(text_of(one, "path")))
			return obstacles_add(o, OBSTACLE_REFUSES, false, "run it without that device",
					     "container %.64s was given the device %.128s of this host", w->id,
					     text_of(one, "path"));
	return 0;
}

int oci_check_source(const struct oci_state *s, const struct workload *w, const struct driver_options *options,
		     struct obstacles *ret, struct error *err)
{
	_cleanup_tree_ struct tree t = { 0 };
	int r = tree_read(s->pid, &t, err);

	if (r < 0)
		return r;
	if (check_namespaces(s, w, ret) < 0 || check_devices(s, w, ret) < 0)
		return error_set(err, ENOMEM, "no memory for the list of obstacles");
	if (w->has_terminal &&
	    obstacles_add(ret, OBSTACLE_REFUSES, false, "run it without a terminal (no -t)",
			  "container %.64s has a terminal, whose other end stays on this host", w->id) < 0)
		return error_set(err, ENOMEM, "no memory for the list of obstacles");
	r = pid_check_processes(&t, ret, err);
	if (!r && !w->has_terminal)
		r = pid_check_descriptors(&t, true, options, ret, err);
	return r < 0 ? r : pid_check_mappings(&t, ret, err);
}

static int add_external(struct checkpoint_way *way, size_t *n, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int add_external(struct checkpoint_way *way, size_t *n, const char *fmt, ...)
{
	char **bigger = reallocarray(way->external, *n + 2, sizeof(*bigger));
	va_list ap;
	int r;

	if (!bigger)
		return -ENOMEM;
	way->external = bigger;
	bigger[*n] = bigger[*n + 1] = NULL;
	va_start(ap, fmt);
	r = vasprintf(&bigger[*n], fmt, ap);
	va_end(ap);
	if (r < 0) {
		bigger[*n] = NULL;
		return -ENOMEM;
	}
	(*n)++;
	return 0;
}

/* The place of a mount inside of the container. */
static const char *inside(const struct oci_state *s, const char *destination)
{
	size_t n = strlen(s->rootfs);

	return !strncmp(destination, s->rootfs, n) && destination[n] == '/' ? destination + n : destination;
}

/* cgroup v1 without a namespace of its own: the container's mount is a directory of binds, one per hierarchy of this host. */
static int add_cgroup_mounts(struct checkpoint_way *way, size_t *n, const char *destination)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096];
	int r = 0;

	while (f && !r && fgets(line, sizeof(line), f)) {
		const char *dash = strstr(line, " - cgroup ");
		char place[1024];

		if (dash && sscanf(line, "%*s %*s %*s %*s %1023s", place) == 1)
			r = add_external(way, n, "mnt[%s/%s]:%s/%s", destination, strrchr(place, '/') + 1, destination,
					 strrchr(place, '/') + 1);
	}
	return r;
}

static int add_mounts(const struct oci_state *s, struct checkpoint_way *way, size_t *n)
{
	const json_t *config = json_object_get(s->json, "config");
	const json_t *mounts = json_object_get(config, "mounts"), *masks = json_object_get(config, "mask_paths");
	struct stat unified;
	json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (mounts, i, one) {
		const char *device = text_of(one, "device"), *place = inside(s, text_of(one, "destination"));

		if (!strcmp(device, "bind"))
			r = add_external(way, n, "mnt[%s]:%s", place, place);
		else if (!strcmp(device, "cgroup") && !has_namespace(s, "NEWCGROUP") &&
			 stat("/sys/fs/cgroup/cgroup.controllers", &unified) < 0)
			r = add_cgroup_mounts(way, n, place);
		if (r < 0)
			return r;
	}
	json_array_foreach (masks, i, one) {
		char path[4200];
		struct stat st;

		/* Files are masked by /dev/null, directories by an empty file system, which CRIU makes anew. */
		snprintf(path, sizeof(path), "/proc/%d/root%.4096s", s->pid, json_string_value(one) ?: "");
		if (stat(path, &st) < 0 || S_ISDIR(st.st_mode))
			continue;
		r = add_external(way, n, "mnt[%s]:/dev/null", json_string_value(one));
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_namespaces(const struct oci_state *s, struct checkpoint_way *way, size_t *n)
{
	const json_t *list = json_object_get(json_object_get(s->json, "config"), "namespaces");
	json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (list, i, one)
		if (!strcmp(text_of(one, "type"), "NEWNET") && text_of(one, "path")[0] && !r)
			r = add_external(way, n, "net[%llu]:extRootNetNS",
					 (unsigned long long)tree_namespace(s->pid, "net"));
	return r;
}

/* Groups below the container's own are its business, and CRIU makes them again; otherwise the engine's placing is all there is. */
static bool has_own_groups(const struct oci_state *s)
{
	_cleanup_buffer_ struct buffer root = { 0 };
	_cleanup_tree_ struct tree t = { 0 };
	char path[64];
	bool differ = false;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", s->pid);
	if (tree_read(s->pid, &t, NULL) < 0 || fd_read_file(AT_FDCWD, path, 65536, &root) < 0)
		return false;
	for (size_t i = 1; i < t.n && !differ; i++) {
		_cleanup_buffer_ struct buffer other = { 0 };

		snprintf(path, sizeof(path), "/proc/%d/cgroup", t.processes[i].pid);
		differ = fd_read_file(AT_FDCWD, path, 65536, &other) == 0 &&
			 (other.length != root.length || memcmp(other.data, root.data, root.length) != 0);
	}
	return differ;
}

int oci_way(const struct oci_state *s, struct checkpoint_way *ret, struct error *err)
{
	struct checkpoint_way way = {
		.root_pid = s->pid,
		.tcp_established = true,
		.file_locks = true,
		.link_remap = true,
		.ext_unix_sk = false,
		.empty_network = true, /* as runc has it at both ends */
		.ghost_limit_bytes = PID_GHOST_LIMIT_BYTES,
		.manage_cgroups = has_own_groups(s) ? CGROUPS_SOFT : 0,
	};
	size_t n = 0;
	int r = add_mounts(s, &way, &n);

	if (!r)
		r = add_namespaces(s, &way, &n);
	if (r < 0) {
		checkpoint_way_free(&way);
		return error_set(err, ENOMEM, "no memory to describe the container's mounts");
	}
	*ret = way;
	return 0;
}

int oci_way_network(const struct oci_state *s, struct checkpoint_way *way, struct error *err)
{
	unsigned long long inode = tree_namespace(s->pid, "net");
	size_t n = 0;
	char text[64];

	snprintf(text, sizeof(text), "net[%llu]:extRootNetNS", inode);
	while (way->external && way->external[n])
		if (!strcmp(way->external[n++], text))
			return 0;
	return add_external(way, &n, "%s", text) < 0 ? error_set(err, ENOMEM, "no memory to describe the network") : 0;
}

json_t *oci_descriptors(const struct oci_state *s)
{
	json_t *list = json_object_get(s->json, "external_descriptors");

	return json_is_array(list) ? json_incref(list) : json_pack("[s, s, s]", "/dev/null", "/dev/null", "/dev/null");
}

int oci_write_descriptors(const json_t *descriptors, const char *directory, struct error *err)
{
	_cleanup_free_ char *text = json_is_array(descriptors) ? json_dumps(descriptors, JSON_COMPACT) : NULL;
	char path[1024];
	int r;

	if (!text)
		return error_set(err, EPROTO, "the container's description lacks its descriptors");
	snprintf(path, sizeof(path), "%s/descriptors.json", directory);
	r = fd_write_file(AT_FDCWD, path, text, strlen(text), 0600);
	return r < 0 ? error_errno(err, -r, "cannot write %s", path) : 0;
}

int oci_network(pid_t pid, int *ret_fd, struct error *err)
{
	char path[64];

	if (tree_namespace(pid, "net") == tree_namespace(getpid(), "net"))
		return -ENOENT;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
	return *ret_fd < 0 ? error_errno(err, errno, "cannot open the network namespace of process %d", pid) : 0;
}

int oci_check_runtime(const char *runtime, bool at_target, struct obstacles *ret)
{
	const char *argv[] = { runtime, "restore", "--help", NULL };
	_cleanup_buffer_ struct buffer output = { 0 };
	struct error why = { 0 };
	int r = process_run(argv, &output, deadline_in_ms(RUNTIME_MS), &why);

	if (r == 0)
		return 0;
	return obstacles_add(ret, OBSTACLE_REFUSES, at_target,
			     "install a runtime that checkpoints (runc), or name one with --runtime",
			     "the container runtime %.64s %s%s", runtime,
			     r == -ENOENT ? "is not installed" : "cannot restore containers",
			     at_target ? " at the target" : " here");
}
