/*
 * The Docker driver's parts. See docs/driver-docker.md for what is kept of a container and what is not.
 *
 * What the source's half tells the target's is the spec, JSON that only docker-spec.c makes and reads:
 *
 *   id, name        of the source's container; the name without its slash
 *   image           id (sha256:...); image_name: as the container calls it
 *   image_bytes, layers   [{id (diff id), bytes}]: how large it is, and its layers from the lowest; bytes may be missing
 *   config, host_config   as Docker's inspect shows them
 *   networks        [{name, mode, config (EndpointConfig), address, address6, mac}], the one of NetworkMode first
 *   volumes         [{name, destination, driver, options, labels, named, brought}]
 *   binds           [{source, destination}]
 *   stdio           [3 names]: what runc calls descriptors.json
 *   state_root      where the source's runtime keeps its state (source only)
 *   log             whether the log is brought along
 *   connections     whether its addresses can be kept: TCP connections go on
 *   bind_rule       refuse, present or bring
 */
#pragma once

#include "driver/docker-api.h"
#include "driver/driver.h"
#include "driver/oci.h"

extern const struct driver_ops driver_docker;

#define DOCKER_CHECKPOINT "phaul"   /* the name of the checkpoint that the target's daemon is told to start from */
#define DOCKER_NAME_PREFIX "phaul-" /* + the migration's id: what the container is called until it runs */
#define DOCKER_STDIO 3

/* -- docker-spec.c */

/* Source: the spec of an inspected container. rule: --bind. */
int docker_spec_make(struct docker_api *api, const json_t *inspected, const char *rule, json_t **ret,
		     struct error *err);

/* Either side: the workload's spec, checked in form. *ret is the caller's. */
int docker_spec_read(const struct workload *w, json_t **ret, struct error *err);

/* Target: the body of POST /containers/create. image: what to name it there. */
int docker_spec_body(struct docker_api *api, const json_t *spec, const char *image, json_t **ret, struct error *err);

/* The name of the container at the target: --dst-id or its own. */
const char *docker_target_name(const json_t *spec, const struct driver_options *options);

/* -- docker-state.c: what only the daemon's files on this host tell */

/* Of a container: the directory in which its runtime keeps the states of the daemon's containers. */
int docker_state_root(const json_t *inspected, char *ret, size_t size);

/* The directory of a container below the daemon's data root; it must be there. id: 64 hex digits, checked. */
int docker_container_directory(struct docker_api *api, const char *id, char *ret, size_t size, struct error *err);

/* Whether the daemon, or the containerd that it uses, finds a CRIU that is good enough on its own PATH. */
int docker_check_criu(const struct docker_daemon *daemon, struct obstacles *ret, struct error *err);

/* The containerd that a daemon uses: its child, or the system's; 0: none is found. */
int docker_find_containerd(const struct docker_daemon *daemon);

/* A container's id as Docker makes them. */
bool docker_id_valid(const char *id);

/* Source: the same container as its runtime knows it. */
int docker_read_state(const json_t *spec, struct oci_state *ret, struct error *err);

/* -- docker-image.c: the image where it is missing */

/* Source: image_bytes and layers of a spec. */
int docker_image_describe(struct docker_api *api, json_t *spec, struct error *err);

/* Target: that it is missing, what of it will be brought, whether there is room. */
int docker_image_check(struct docker_api *api, const json_t *spec, const struct driver_options *options,
		       struct obstacles *o, struct error *err);
int docker_lacks(const struct workload *w, const struct driver_place *place, char **ret, struct error *err);
int docker_give(const struct workload *w, const struct driver_options *options, const char *words, int fd,
		int stderr_fd, struct process *ret, struct error *err);
int docker_take(const struct workload *w, const struct driver_place *place, const char *words, int fd, int stderr_fd,
		struct process *ret, struct error *err);

/* Target: removes what docker_take() brought; the container is gone. */
void docker_image_forget(struct docker_api *api, const struct driver_place *place);

/* -- docker-netns.c: the target's network namespace, made before the freeze */

/* Whether the container has one of its own. */
bool docker_netns_wanted(const json_t *spec);

/* Its name until libnetwork has one for it. */
void docker_netns_name(const struct driver_place *place, char *ret, size_t size);

/* Before the restore; repeatable: makes it where it is not there, empty. *ret_fd is the caller's. */
int docker_netns_open(const json_t *spec, const struct driver_place *place, int *ret_fd, struct error *err);

/* The file that says how the helper fared. */
void docker_netns_answer(const struct driver_place *place, char *ret, size_t size);

/* The helper's, while the container starts: edits its bundle, has libnetwork fill the namespace, writes the answer. An exit status. */
int docker_netns_fill(const struct docker_daemon *daemon, const char *id, const char *netns, const char *answer);

/* Our name of it goes; whoever else has it keeps it. */
void docker_netns_remove(const struct driver_place *place);

int docker_restore_ready(const struct workload *w, const struct driver_place *place, struct error *err);

/* -- docker-source.c, docker-target.c, docker-prepare.c, docker-engine.c: the ops */

int docker_describe(const char *id, const struct driver_options *options, struct workload *ret, struct error *err);
int docker_check_source(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
			struct error *err);
int docker_way(const struct workload *w, const struct driver_options *options, struct checkpoint_way *ret,
	       struct error *err);
int docker_network(const struct workload *w, const struct driver_place *place, int *ret_fd, struct error *err);

int docker_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
			struct error *err);

int docker_prepare(struct workload *w, const struct driver_place *place, struct error *err);
int docker_restore(const struct workload *w, struct driver_place *place, int stderr_fd, struct process *ret,
		   struct error *err);
void docker_restore_begun(struct driver_place *place);
int docker_restored(const struct workload *w, const struct driver_place *place, struct error *err);
int docker_forget(const struct workload *w, const struct driver_place *place, struct error *err);

int docker_stop(const struct workload *w, const struct driver_options *options, struct error *err);
int docker_start_again(const struct workload *w, const struct driver_options *options, const struct driver_place *place,
		       struct error *err);

/* Target: the container that this migration made, as inspect shows it; -ENOENT. */
int docker_find_ours(struct docker_api *api, const struct driver_place *place, json_t **ret, struct error *err);

int docker_arm(const struct workload *w, const struct driver_options *options, struct error *err);
int docker_disarm(const struct workload *w, const struct driver_options *options, struct error *err);
int docker_moved(const struct workload *w, const struct driver_options *options, struct error *err);
