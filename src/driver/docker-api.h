/*
 * Docker's HTTP API over its unix socket, in a version that both speak.
 *
 * An API handle is used by one thread. Every call blocks until the daemon has answered or its time is up. Source of the facts: Docker's
 * API reference, versions 1.40 to 1.44 (docs/driver-docker.md says what is used).
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define DOCKER_SOCKET "/run/docker.sock"
#define DOCKER_ANSWER_MAX (16U << 20) /* bytes of one answer */
#define DOCKER_CALL_MS 30000

struct docker_api;

/* What the daemon said of itself when the connection was made. */
struct docker_daemon {
	char version[64];     /* "20.10.24" */
	char api_version[16]; /* the one that is spoken */
	unsigned int api;     /* the same as a number: 1.41 is 141 */
	int pid;	      /* who listens on the socket: dockerd, or what started it; 0: not known */
};

/* socket: a path, "unix://PATH", or NULL for the usual place. Asks for the version. -ENOENT: no such socket; -ECONNREFUSED: nobody listens;
 * -EPROTONOSUPPORT: the daemon is too old or too new. err says that the daemon is not there and what to do. */
int docker_api_open(const char *socket, struct docker_api **ret, struct error *err);
/* The same for what must be told: waits a while for a daemon that is being restarted. */
int docker_api_open_again(const char *socket, struct docker_api **ret, struct error *err);
void docker_api_free(struct docker_api *api);
const struct docker_daemon *docker_api_daemon(const struct docker_api *api);

static inline void cleanup_docker_api(struct docker_api **api)
{
	docker_api_free(*api);
}
#define _cleanup_docker_api_ _cleanup_(cleanup_docker_api)

static inline void cleanup_json(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_json_ _cleanup_(cleanup_json)

/*
 * One call. method: "GET", "POST", "DELETE". fmt makes what follows "/vX.YY": "/containers/%s/json"; whatever is not a literal must have gone
 * through docker_api_escape(). body: JSON, or NULL; stays the caller's. *ret: the answer, NULL when it has none; ret may be NULL.
 * 0, or by status: -ENOENT (404), -EEXIST (409), -EINVAL (400), otherwise -EIO or curl's; err quotes the daemon's own words.
 * deadline: DOCKER_CALL_MS from now, or what docker_api_patience() has set.
 */
int docker_api_call(struct docker_api *api, const char *method, json_t *body, json_t **ret, struct error *err,
		    const char *fmt, ...) _printf_(6, 7);

/*
 * A call whose body flows, either way. path as in docker_api_call(), without arguments. take: what the daemon sends, piece by piece, once it has
 * said that all is well; 0, or a negative errno that ends it. source_fd: what is sent to it until its end, as a tar archive; -1: nothing.
 */
int docker_api_stream(struct docker_api *api, const char *method, const char *path,
		      int (*take)(void *context, const void *data, size_t length), void *context, int source_fd,
		      struct error *err);

/* How long the calls from now on may take, in ms; 0: for ever. */
void docker_api_patience(struct docker_api *api, long ms);

/* A name or an id made fit for a path or a query, in a buffer of the handle's that lasts until the eighth call from now; "" when it cannot be. */
const char *docker_api_escape(struct docker_api *api, const char *text);

/* Strings out of answers: "" when there is none of that name. */
const char *docker_json_text(const json_t *object, const char *name);

/* The value at a dotted path, "HostConfig.RestartPolicy.Name", or NULL. */
json_t *docker_json_at(const json_t *object, const char *path);

/* "1.41" as 141; 0: not a version. */
unsigned int docker_api_number(const char *version);
