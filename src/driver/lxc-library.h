/*
 * liblxc, loaded when it is wanted: phaul runs on hosts that have no LXC. Source of the facts: lxc/lxccontainer.h.
 */
#pragma once

#include <limits.h>
#include <lxc/lxccontainer.h>

#include "base/error.h"

struct lxc_library {
	struct lxc_container *(*container_new)(const char *name, const char *place);
	int (*container_put)(struct lxc_container *c);
	const char *(*global_item)(const char *key);
	const char *(*version)(void);
	int (*log_init)(struct lxc_log *log);
};

/* -ENOENT: it is not installed. The library stays loaded. */
int lxc_library_load(struct lxc_library *ret, struct error *err);

/* Where containers are: `wanted` (--engine), or LXC's own setting. */
int lxc_library_place(const struct lxc_library *l, const char *wanted, char *ret, size_t size, struct error *err);

/* A defined container. -ESRCH: there is none. To be given back with l->container_put(). */
int lxc_library_open(const struct lxc_library *l, const char *place, const char *name, struct lxc_container **ret,
		     struct error *err);

/* A setting of the configuration as LXC understands it, includes and all, lists one per line; "" when it is not set. NULL: no memory. */
char *lxc_library_item(struct lxc_container *c, const char *key);

/* The same of the container that runs, whatever its file says by now. */
char *lxc_library_running_item(struct lxc_container *c, const char *key);
