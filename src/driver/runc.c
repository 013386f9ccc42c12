/*
 * The runc driver, the source's half and the table: a container of a bare OCI runtime is a bundle (config.json, a root file system), a name and
 * a state below ROOT. See runc.h; the target's half is runc-target.c.
 *
 * No state besides the workload; any thread.
 */
#include "driver/runc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "driver/oci.h"
#include "driver/pid.h"
#include "driver/runc-internal.h"

#define CONFIG_MAX (512U << 10) /* of a config.json: the spec that carries it has a limit of its own */
#define DELETE_MS 30000

const char *runc_root(const char *engine)
{
	return engine ? engine : OCI_ROOT_DEFAULT;
}

const char *runc_program(const struct driver_options *options)
{
	return options->runtime ? options->runtime : OCI_RUNTIME_DEFAULT;
}

int runc_delete(const struct driver_options *options, const char *engine, const char *id, struct error *err)
{
	const char *argv[] = { runc_program(options), "--root", runc_root(engine), "delete", "--force", id, NULL };
	int r = process_run(argv, NULL, deadline_in_ms(DELETE_MS), err);

	return r > 0 ? error_wrap(err, "cannot delete container %s", id) : r;
}

static json_t *read_config(const struct oci_state *s, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[4200];
	json_t *config;
	int r;

	snprintf(path, sizeof(path), "%s/config.json", s->bundle);
	r = fd_read_file(AT_FDCWD, path, CONFIG_MAX, &text);
	if (r < 0) {
		error_errno(err, -r, "cannot read %s, the container's configuration", path);
		return NULL;
	}
	config = json_loadb((const char *)text.data, text.length, 0, NULL);
	if (!json_is_object(config)) {
		json_decref(config);
		error_set(err, EBADMSG, "%s is not a container's configuration", path);
		return NULL;
	}
	return config;
}

/* What the target's half reads (runc-target.c). */
static int make_spec(const struct oci_state *s, struct workload *w, struct error *err)
{
	json_t *config = read_config(s, err), *descriptors, *spec;

	if (!config)
		return -err->number;
	descriptors = oci_descriptors(s);
	spec = json_pack("{s:o, s:s, s:s, s:o}", "config", config, "bundle", s->bundle, "rootfs", s->rootfs,
			 "descriptors", descriptors);
	w->spec = spec ? json_dumps(spec, JSON_COMPACT) : NULL;
	json_decref(spec);
	return w->spec ? 0 : error_set(err, ENOMEM, "no memory to describe container %s", s->id);
}

static int describe(const char *id, const struct driver_options *options, struct workload *ret, struct error *err)
{
	_cleanup_oci_ struct oci_state s = { 0 };
	struct workload w = { 0 };
	int r = oci_state_read(runc_root(options->engine), id, &s, err);

	if (!r)
		r = oci_describe(&s, &w, err);
	if (!r)
		r = make_spec(&s, &w, err);
	if (!r && workload_add_tree(&w, "rootfs", s.rootfs) < 0)
		r = error_set(err, ENOMEM, "no memory to describe container %s", id);
	if (r < 0) {
		workload_free(&w);
		return r;
	}
	snprintf(w.type, sizeof(w.type), "%s", driver_runc.name);
	snprintf(w.id, sizeof(w.id), "%s", id);
	*ret = w;
	return 0;
}

/* Engines give their containers long hexadecimal names and keep their states elsewhere; one that is here by --engine is theirs. */
static int check_owner(const struct oci_state *s, struct obstacles *o)
{
	static const char *const owners[] = { "moby", "docker", "libpod", "podman", "crio", "k8s.io" };

	for (size_t i = 0; i < ARRAY_SIZE(owners); i++)
		if (strstr(s->root, owners[i]) || strstr(s->bundle, owners[i]))
			return obstacles_add(o, OBSTACLE_REFUSES, false,
					     "move it as a container of its engine (docker, podman)",
					     "container %.64s belongs to an engine above runc (its bundle is %.256s)",
					     s->id, s->bundle);
	return 0;
}

static int check_source(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
			struct error *err)
{
	_cleanup_oci_ struct oci_state s = { 0 };
	int r = oci_state_read(runc_root(options->engine), w->id, &s, err);

	if (r < 0)
		return r;
	if (check_owner(&s, ret) < 0 || oci_check_runtime(runc_program(options), false, ret) < 0)
		return error_set(err, ENOMEM, "no memory for the list of obstacles");
	return oci_check_source(&s, w, options, ret, err);
}

static int way(const struct workload *w, const struct driver_options *options, struct checkpoint_way *ret,
	       struct error *err)
{
	_cleanup_oci_ struct oci_state s = { 0 };
	int r = oci_state_read(runc_root(options->engine), w->id, &s, err);

	return r < 0 ? r : oci_way(&s, ret, err);
}

/* A container of runc that has ended can never be started again: only its state is left. The bundle stays. */
static int moved(const struct workload *w, const struct driver_options *options, struct error *err)
{
	_cleanup_oci_ struct oci_state s = { 0 };
	struct error ignored = { 0 };

	if (oci_state_read(runc_root(options->engine), w->id, &s, &ignored) < 0)
		return 0;
	return runc_delete(options, options->engine, w->id, err);
}

static int network(const struct workload *w, const struct driver_place *place, int *ret_fd, struct error *err)
{
	return place ? runc_target_network(w, ret_fd, err) : oci_network(w->root_pid, ret_fd, err);
}

const struct driver_ops driver_runc = {
	.name = "runc",
	.capabilities = DRIVER_HAS_ENGINE | DRIVER_OWN_NETWORK | DRIVER_NETWORK_GIVEN,
	.describe = describe,
	.check_source = check_source,
	.check_target = runc_check_target,
	.way = way,
	.processes = pid_processes,
	.stop_firmly = pid_stop_firmly,
	.unstop = pid_unstop,
	.moved = moved,
	.stop = runc_stop,
	.start = runc_start,
	.network = network,
	.prepare = runc_prepare,
	.restore = runc_restore,
	.restore_begun = runc_restore_begun,
	.restored = runc_restored,
	.forget = runc_forget,
};
