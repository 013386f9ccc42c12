/*
 * A Docker daemon for tests: answers each request on a socket with what was written down for its path. One thread.
 */
#pragma once

struct fake_answer {
	const char *request; /* "GET /v1.41/info": how the request's first line begins */
	int status;
	const char *body;
};

struct fake_docker;

/* Listens at `path`; answers end with one whose request is NULL. What is not among them gets a 404. */
struct fake_docker *fake_docker_start(const char *path, const struct fake_answer *answers);

/* Ends it; the requests that came, one per line with their bodies behind a space. To be freed. */
char *fake_docker_stop(struct fake_docker *d);
