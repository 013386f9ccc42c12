/*
 * The Docker driver: containers of a Docker daemon, named by name or id. See driver.h, docs/driver-docker.md.
 *
 * The source's tasks are dumped beside the daemon, which notices that they ended after the commit. The target's daemon restores them, from a
 * checkpoint that it takes for its own. No state besides the workload; any thread.
 */
#include "driver/docker.h"

#include "driver/pid.h"

const struct driver_ops driver_docker = {
	.name = "docker",
	.capabilities = DRIVER_HAS_ENGINE | DRIVER_OWN_NETWORK | DRIVER_NETWORK_FIRST,
	.describe = docker_describe,
	.check_source = docker_check_source,
	.check_target = docker_check_target,
	.way = docker_way,
	.processes = pid_processes,
	.stop_firmly = pid_stop_firmly,
	.unstop = pid_unstop,
	.arm = docker_arm,
	.disarm = docker_disarm,
	.moved = docker_moved,
	.stop = docker_stop,
	.start = docker_start_again,
	.network = docker_network,
	.lacks = docker_lacks,
	.give = docker_give,
	.take = docker_take,
	.prepare = docker_prepare,
	.restore = docker_restore,
	.restore_begun = docker_restore_begun,
	.restore_ready = docker_restore_ready,
	.restored = docker_restored,
	.forget = docker_forget,
};
