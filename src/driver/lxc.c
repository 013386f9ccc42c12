/*
 * The driver of LXC containers: its table, and how CRIU dumps one. See docs/driver-lxc.md.
 *
 * The options are those that LXC itself gives to CRIU (its src/lxc/criu.c), because LXC restores, and expects what its own dump would have written.
 * No state; any thread.
 */
#include "driver/lxc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "driver/pid.h"

#define MANAGE_CGROUPS_FULL 4 /* CRIU's CG_MODE_FULL */

/* LXC's "--ext-mount-map auto --enable-external-sharing --enable-external-masters". */
#define EXTERNAL_AUTO "mnt[]:sm"

static int way(const struct workload *w, const struct driver_options *options, struct checkpoint_way *ret,
	       struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	int r = lxc_spec_decode(w->spec, &s, err);
	size_t n = 0;

	(void)options;
	if (r < 0)
		return r;
	*ret = (struct checkpoint_way){
		.root_pid = w->root_pid,
		.tcp_established = true,
		.file_locks = true,
		.link_remap = true,
		.ghost_limit_bytes = PID_GHOST_LIMIT_BYTES,
		.manage_cgroups = MANAGE_CGROUPS_FULL,
		.external = calloc(s.n_mounts + 2, sizeof(char *)),
	};
	if (!ret->external)
		return error_set(err, ENOMEM, "no memory for CRIU's options");
	ret->external[n++] = strdup(EXTERNAL_AUTO);
	for (size_t i = 0; i < s.n_mounts; i++)
		if (asprintf(&ret->external[n++], "mnt[/%s]:%s", s.mounts[i], s.mounts[i]) < 0)
			ret->external[n - 1] = NULL;
	for (size_t i = 0; i < n; i++)
		if (!ret->external[i]) {
			checkpoint_way_free(ret);
			return error_set(err, ENOMEM, "no memory for CRIU's options");
		}
	return 0;
}

/* At the target there is none before CRIU makes it, out of the images. */
static int network(const struct workload *w, const struct driver_place *place, int *ret_fd, struct error *err)
{
	char path[64];
	int fd;

	if (place || w->root_pid <= 0 || tree_namespace(w->root_pid, "net") == tree_namespace(getpid(), "net"))
		return -ENOENT;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", w->root_pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, errno, "cannot open the network namespace of process %d", w->root_pid);
	*ret_fd = fd;
	return 0;
}

static int bridges(const struct workload *w, const struct driver_place *place, char ret[DRIVER_BRIDGES_MAX][IFNAMSIZ],
		   size_t *ret_n, struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	int r = lxc_spec_decode(w->spec, &s, err);

	(void)place;
	if (r < 0)
		return r;
	*ret_n = MIN(s.n_bridges, (size_t)DRIVER_BRIDGES_MAX);
	for (size_t i = 0; i < *ret_n; i++)
		snprintf(ret[i], IFNAMSIZ, "%s", s.bridges[i]);
	return 0;
}

const struct driver_ops driver_lxc = {
	.name = "lxc",
	.capabilities = DRIVER_HAS_ENGINE | DRIVER_OWN_NETWORK,
	.describe = lxc_describe,
	.check_source = lxc_check_source,
	.check_target = lxc_check_target,
	.way = way,
	.processes = pid_processes,
	.stop_firmly = pid_stop_firmly,
	.unstop = pid_unstop,
	.arm = lxc_arm,
	.disarm = lxc_disarm,
	.moved = lxc_moved,
	.stop = lxc_stop,
	.start = lxc_start_again,
	.network = network,
	.bridges = bridges,
	.prepare = lxc_prepare,
	.restore = lxc_restore,
	.restored = lxc_restored,
	.forget = lxc_forget,
};
