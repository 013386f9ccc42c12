/*
 * The driver of Podman's containers: docs/driver-podman.md. Shared by the podman*.c files. Podman is driven by its command line, which needs no
 * service.
 *
 * What the source's half tells the target's is the spec, JSON:
 *
 *   id, name       of the source's container
 *   image          its id; image_name: as the container calls it
 *   image_bytes, image_format   its size, and the format of an archive in which it keeps its id; missing when it is gone
 *   create         the command line that made it, as podman keeps it; image_word: which of its words is the image
 *   descriptors    what runc calls descriptors.json
 *   volumes        [{name, destination}], of which those without a name of the user's are anonymous; binds: [path]
 */
#pragma once

#include <jansson.h>

#include "driver/driver.h"

#define PODMAN_LABEL "phaul.migration" /* on what a migration makes at the target */

extern const struct driver_ops driver_podman;

/* `podman [--root ENGINE] WORDS`, NULL-terminated, at most 60. Appends its output to `output` (may be NULL). 0 or a negative errno with podman's last
 * words; -ENOENT: it is not installed. */
int podman_run(const char *engine, const char *const *words, struct buffer *output, struct error *err);

/* `podman inspect` of a container: a new object. -ESRCH: there is none. */
int podman_inspect(const char *engine, const char *name, json_t **ret, struct error *err);

/* A member by a dotted path, as text: "" when there is none. */
const char *podman_text(const json_t *object, const char *path);

/* The ops of the target; podman-target.c. */
int podman_check_target(const struct workload *w, const struct driver_options *options, struct obstacles *ret,
			struct error *err);
int podman_prepare(struct workload *w, const struct driver_place *place, struct error *err);
int podman_restore(const struct workload *w, struct driver_place *place, int stderr_fd, struct process *ret,
		   struct error *err);
void podman_restore_begun(struct driver_place *place);
int podman_restored(const struct workload *w, const struct driver_place *place, struct error *err);
int podman_forget(const struct workload *w, const struct driver_place *place, struct error *err);
int podman_target_network(const struct driver_place *place, int *ret_fd, struct error *err);
int podman_target_start(const struct workload *w, const struct driver_place *place, struct error *err);

/* Either side: the workload's spec, checked in form. *ret is the caller's. */
int podman_spec_read(const struct workload *w, json_t **ret, struct error *err);

/* -- podman-image.c */

/* Source: image_bytes and image_format of a spec. */
void podman_image_describe(const char *engine, json_t *spec);

/* Target: that it is missing, or another one. -ENOMEM. */
int podman_image_check(const json_t *spec, const struct driver_options *options, struct obstacles *o);
int podman_lacks(const struct workload *w, const struct driver_place *place, char **ret, struct error *err);
int podman_give(const struct workload *w, const struct driver_options *options, const char *wish, int fd, int stderr_fd,
		struct process *ret, struct error *err);
int podman_take(const struct workload *w, const struct driver_place *place, const char *wish, int fd, int stderr_fd,
		struct process *ret, struct error *err);

/* Target: the name means the source's image now. */
int podman_image_arrived(const json_t *spec, const struct driver_place *place, struct error *err);

/* Target: removes what podman_take() brought; the container is gone. */
void podman_image_forget(const struct driver_place *place);
