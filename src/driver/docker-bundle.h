/*
 * The bundle that containerd writes for a Docker container's runtime: where it is, and what is changed in it before the runtime reads it.
 */
#pragma once

#include <jansson.h>

#include "base/buffer.h"
#include "driver/docker-api.h"

/*
 * Pure. In `text`, a config.json: the network namespace, so far a new one, becomes that at `netns`; and libnetwork's hook, which would fill
 * it, goes. Everything else stays byte for byte: some numbers are larger than JSON libraries take. *ret_hook: the words of the hook's
 * command line, its program first, in front of its argv. -ENOENT: there is no such hook, or no new network namespace.
 */
int docker_bundle_edit(const char *text, size_t length, const char *netns, struct buffer *ret, json_t **ret_hook,
		       struct error *err);

/* The bundle's config.json of a container, whether it is there or not. */
int docker_bundle_path(const struct docker_daemon *daemon, const char *id, char *ret, size_t size, struct error *err);

/* Waits until that file is complete, edits it, and makes sure that the runtime had not been started by then. *ret_hook as above. */
int docker_bundle_take(const char *path, const char *id, const char *netns, uint64_t deadline_ns, json_t **ret_hook,
		       struct error *err);
