/*
 * A tar archive that flows by: each entry is let through as it is, dropped, or read. Pure: no I/O of its own.
 *
 * Understands what Docker writes: ustar headers, extended ones of pax for names and sizes, sizes in base 256. Everything comes from a
 * daemon of this host; what does not make sense ends it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum docker_tar_action {
	DOCKER_TAR_KEEP, /* header and content go to `out` */
	DOCKER_TAR_DROP,
	DOCKER_TAR_READ, /* the content alone goes to `out` */
};

struct docker_tar;

struct docker_tar_user {
	enum docker_tar_action (*entry)(void *context, const char *name, uint64_t bytes);
	int (*out)(void *context, const void *data, size_t length); /* 0, or a negative errno that ends it */
	void *context;
};

/* NULL: no memory. */
struct docker_tar *docker_tar_new(const struct docker_tar_user *user);
void docker_tar_free(struct docker_tar *t);

/* The next piece, of any length. 0; -EBADMSG: this is no tar; -E2BIG; out()'s. The zeros that end an archive do not go to `out`. */
int docker_tar_feed(struct docker_tar *t, const void *data, size_t length);

/* 0: it ended where an archive may end; -EBADMSG: it was cut off. */
int docker_tar_finish(const struct docker_tar *t);
