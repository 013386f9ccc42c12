/*
 * What the two halves of the LXC driver tell each other: the JSON of workload.spec. Made by describe() at the source; at the target it comes
 * from a peer, so lxc_spec_decode() takes only what it can vouch for: names that are names, paths that are absolute and normal.
 */
#pragma once

#include "driver/driver.h"

#define LXC_LIST_MAX 64

enum lxc_rootfs {
	LXC_ROOTFS_INVALID,
	LXC_ROOTFS_DIR,
	LXC_ROOTFS_OVERLAY,
	LXC_ROOTFS_MAX,
};

struct lxc_spec {
	char *name;	    /* of the container at the target */
	char *place;	    /* directory of containers at the target; NULL: what is usual there */
	char *source_name;  /* at the source */
	char *source_place; /* directory of containers at the source; its container is in PLACE/NAME */
	char *moved_name;   /* how the source's container is called when it has moved */
	char *config;	    /* text of the container's own configuration */
	enum lxc_rootfs rootfs;
	char *layers
		[LXC_LIST_MAX]; /* paths at the source: the directory; or lower ones from the lowest named one on, then the upper one */
	size_t n_layers;
	char *needs
		[LXC_LIST_MAX]; /* must be there at the target, by these names: mounted directories and files, includes */
	size_t n_needs;
	char *mounts
		[LXC_LIST_MAX]; /* bound into the container, by lxc.mount.entry: where, without the slash in front */
	size_t n_mounts;
	char *bridges[LXC_LIST_MAX]; /* must be there at the target */
	size_t n_bridges;
};

#define _cleanup_lxc_spec_ _cleanup_(lxc_spec_free)

void lxc_spec_free(struct lxc_spec *s);

/* Adds a copy to one of the lists above. -ENOMEM, -E2BIG. */
int lxc_spec_add(char **list, size_t *n, const char *text);

int lxc_spec_encode(const struct lxc_spec *s, char **ret, struct error *err);

/* -EBADMSG with a sentence when anything is missing or is not what it must be. */
int lxc_spec_decode(const char *text, struct lxc_spec *ret, struct error *err);

/* "PLACE/NAME" of the source's container. */
int lxc_spec_source_directory(const struct lxc_spec *s, char *ret, size_t size);

/* The tree that layer i travels in: "rootfs", "upper", "lower0"...; NULL: it must be at the target already. */
const char *lxc_spec_tree_name(const struct lxc_spec *s, size_t i, char name[32]);

bool lxc_name_valid(const char *name);
bool lxc_path_valid(const char *path);
