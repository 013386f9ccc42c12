/*
 * The Docker driver's parts. See docs/driver-docker.md for what is kept of a container and what is not.
 *
 * What the source's half tells the target's is the spec, JSON that only docker-spec.c makes and reads:
 *
 *   id, name        of the source's container; the name without its slash
 *   image           id (sha256:...); image_name: as the container calls it
 *   config, host_config   as Docker's inspect shows them
 *   networks        [{name, mode, config (EndpointConfig), address, address6, mac}], the one of NetworkMode first
 *   volumes         [{name, destination, driver, options, labels, named, brought}]
 *   binds           [{source, destination}]
 *   stdio           [3 names]: what runc calls descriptors.json
 *   external        [text]: CRIU's --external, for the source's dump
 *   log             whether the log is brought along
 *   connections     whether its addresses can be kept: TCP connections go on
 *   bind_rule       refuse, present or bring
 */
#pragma once

#include "driver/docker-api.h"
#include "driver/driver.h"

extern const struct driver_ops driver_docker;

#define DOCKER_CHECKPOINT "phaul"  /* the name of the checkpoint that the target's daemon is told to start from */
#define DOCKER_NAME_PREFIX "phaul-" /* + the migration's id: what the container is called until it runs */
#define DOCKER_STDIO 3

/* -- docker-spec.c */

/* Source: the spec of an inspected container. rule: --bind. */
int docker_spec_make(struct docker_api *api, const json_t *inspected, const char *rule, json_t **ret, struct error *err);

/* Either side: the workload's spec, checked in form. *ret is the caller's. */
int docker_spec_read(const struct workload *w, json_t **ret, struct error *err);

/* Target: the body of POST /containers/create. image: what to name it there. */
int docker_spec_body(struct docker_api *api, const json_t *spec, const char *image, json_t **ret, struct error *err);

/* The name of the container at the target: --dst-id or its own. */
const char *docker_target_name(const json_t *spec, const struct driver_options *options);

/* -- docker-state.c: what only the daemon's files on this host tell */

/* Of a running container: runc's state file of it, and in it the names of its standard descriptors. */
int docker_state_read(const json_t *inspected, json_t **ret, struct error *err);

/* The directory of a container below the daemon's data root; it must be there. id: 64 hex digits, checked. */
int docker_container_directory(struct docker_api *api, const char *id, char *ret, size_t size, struct error *err);

/* Whether the daemon, or the containerd that it uses, finds a CRIU that is good enough on its own PATH. */
int docker_check_criu(const struct docker_daemon *daemon, struct obstacles *ret, struct error *err);

/* -- docker-external.c: CRIU's --external for it, as runc names them, appended to list; -errno. */
int docker_external(const json_t *state, pid_t pid, json_t *list);
int docker_external_network(const json_t *state, pid_t pid, json_t *list);

/* A container's id as Docker makes them. */
bool docker_id_valid(const char *id);

/* -- docker-source.c, docker-target.c, docker-prepare.c, docker-engine.c: the ops */

int docker_describe(const char *id, const struct driver_options *options, struct workload *ret, struct error *err);
int docker_check_source(const struct workload *w, const struct driver_options *options, struct obstacles *ret, struct error *err);
int docker_way(const struct workload *w, const struct driver_options *options, struct checkpoint_way *ret, struct error *err);
int docker_network(const struct workload *w, const struct driver_place *place, int *ret_fd, struct error *err);

int docker_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret, struct error *err);

int docker_prepare(struct workload *w, const struct driver_place *place, struct error *err);
/* The root task, once the daemon has it; -ENOENT before: Docker makes the network only when CRIU has made the root task. */
int docker_target_pid(const struct workload *w, const struct driver_place *place, pid_t *ret, struct error *err);
int docker_restore(const struct workload *w, const struct driver_place *place, int stderr_fd, struct process *ret, struct error *err);
int docker_restored(const struct workload *w, const struct driver_place *place, struct error *err);
int docker_forget(const struct workload *w, const struct driver_place *place, struct error *err);

int docker_arm(const struct workload *w, const struct driver_options *options, struct error *err);
int docker_disarm(const struct workload *w, const struct driver_options *options, struct error *err);
int docker_moved(const struct workload *w, const struct driver_options *options, struct error *err);
