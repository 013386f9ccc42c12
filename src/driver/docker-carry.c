/*
 * The children that carry an image: one has the source's daemon write it out and leaves away the layers that the target has, one has the
 * target's daemon load it. Processes of their own, because a daemon may think about it for minutes. One thread each.
 *
 * Which file of the archive is which layer only its manifest says, and that comes last: where something is to be left away, the
 * image is written out twice, and the first time only the manifest is looked at. No disk space is needed for it here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/fd.h"
#include "driver/docker-tar.h"
#include "driver/docker.h"
#include "driver/helper.h"

#define MANIFEST "manifest.json"
#define MANIFEST_MAX (4U << 20)
#define ANSWER_MAX (4U << 20)
#define END_BYTES 1024 /* zeros that end an archive */

struct giver {
	struct docker_api *api;
	const char *reference;
	json_t *left_away; /* paths of the archive, as members of an object */
	struct docker_tar *tar;
	struct buffer manifest;
};

static enum docker_tar_action only_manifest(void *context, const char *name, uint64_t bytes)
{
	(void)context;
	return !strcmp(name, MANIFEST) && bytes <= MANIFEST_MAX ? DOCKER_TAR_READ : DOCKER_TAR_DROP;
}

static int keep_manifest(void *context, const void *data, size_t length)
{
	struct giver *g = context;

	return buffer_append(&g->manifest, data, length);
}

static enum docker_tar_action not_left_away(void *context, const char *name, uint64_t bytes)
{
	struct giver *g = context;

	(void)bytes;
	return json_object_get(g->left_away, name) ? DOCKER_TAR_DROP : DOCKER_TAR_KEEP;
}

static int send_on(void *context, const void *data, size_t length)
{
	(void)context;
	return length ? fd_write_full(STDOUT_FILENO, data, length) : 0;
}

static int feed(void *context, const void *data, size_t length)
{
	struct giver *g = context;

	return docker_tar_feed(g->tar, data, length);
}

/* The daemon writes the image out, once. */
static int write_out(struct giver *g, const struct docker_tar_user *user, struct error *err)
{
	char path[1024];
	int r;

	snprintf(path, sizeof(path), "/images/%s/get", docker_api_escape(g->api, g->reference));
	g->tar = docker_tar_new(user);
	if (!g->tar)
		return error_set(err, ENOMEM, "no memory for the image");
	r = docker_api_stream(g->api, "GET", path, feed, g, -1, err);
	if (!r && docker_tar_finish(g->tar) < 0)
		r = error_set(err, EBADMSG, "what Docker writes out is cut off");
	docker_tar_free(g->tar);
	g->tar = NULL;
	return r;
}

/* The files of the first `have` layers, but for those that hold a later layer, too. */
static int choose_layers(struct giver *g, size_t have, struct error *err)
{
	_cleanup_json_ json_t *manifest = json_loadb((const char *)g->manifest.data, g->manifest.length, 0, NULL),
			      *image = NULL;
	json_t *paths = json_object_get(json_array_get(manifest, 0), "Layers"), *ids;
	int r = docker_api_call(g->api, "GET", NULL, &image, err, "/images/%s/json",
				docker_api_escape(g->api, g->reference));

	if (r < 0)
		return r;
	ids = docker_json_at(image, "RootFS.Layers");
	if (json_array_size(manifest) != 1 || json_array_size(paths) != json_array_size(ids) ||
	    json_array_size(ids) < have)
		return error_set(err, EPROTO, "Docker's list of the image's layers cannot be understood");
	for (size_t i = 0; i < have; i++) {
		bool needed = false;

		for (size_t k = have; k < json_array_size(ids) && !needed; k++)
			needed = json_equal(json_array_get(ids, i), json_array_get(ids, k)) ||
				 json_equal(json_array_get(paths, i), json_array_get(paths, k));
		if (!needed)
			json_object_set_new(g->left_away, json_string_value(json_array_get(paths, i)) ?: "",
					    json_true());
	}
	return 0;
}

static int give(struct giver *g, size_t have, struct error *err)
{
	const struct docker_tar_user look = { only_manifest, keep_manifest, g }, pass = { not_left_away, send_on, g };
	static const char zeros[END_BYTES];
	int r = 0;

	docker_api_patience(g->api, 0);
	if (have)
		r = write_out(g, &look, err);
	if (!r && have)
		r = choose_layers(g, have, err);
	if (!r)
		r = write_out(g, &pass, err);
	if (!r && (r = fd_write_full(STDOUT_FILENO, zeros, sizeof(zeros))) < 0)
		r = error_errno(err, -r, "cannot pass on what Docker sends");
	return r;
}

/* The last line is what is quoted. */
static int ended(int r, struct error *err)
{
	if (!r)
		return 0;
	error_tidy(err->text);
	fprintf(stderr, "%s\n", err->text);
	return 1;
}

int docker_give_main(int argc, char **argv)
{
	struct giver g = { .left_away = json_object() };
	struct error err = { 0 };
	int r;

	if (argc != 4)
		return 2;
	g.reference = argv[2];
	r = docker_api_open(*argv[1] ? argv[1] : NULL, &g.api, &err);
	if (!r)
		r = give(&g, strtoul(argv[3], NULL, 10), &err);
	if (r < 0)
		error_wrap(&err, "Docker at the source cannot write out the image %.100s", g.reference);
	docker_api_free(g.api);
	json_decref(g.left_away);
	buffer_free(&g.manifest);
	return ended(r, &err);
}

/* Progress, and errors, which Docker tells in an answer that began as a success. */
static int keep_answer(void *context, const void *data, size_t length)
{
	struct buffer *b = context;

	return b->length + length > ANSWER_MAX ? 0 : buffer_append(b, data, length);
}

/* 0: none of the lines tells of an error. */
static int find_error(const struct buffer *answer, struct error *err)
{
	size_t at = 0;

	while (at < answer->length) {
		const char *line = (const char *)answer->data + at, *end = memchr(line, '\n', answer->length - at);
		size_t n = end ? (size_t)(end - line) : answer->length - at;
		_cleanup_json_ json_t *one = json_loadb(line, n, 0, NULL);
		const char *words = docker_json_text(one, "error");

		if (*words)
			return error_set(err, strstr(words, "no space left") ? ENOSPC : EIO, "%s", words);
		at += n + 1;
	}
	return 0;
}

static int take(struct docker_api *api, const char *id, struct error *err)
{
	_cleanup_buffer_ struct buffer answer = { 0 };
	struct error said = { 0 };
	int r;

	docker_api_patience(api, 0);
	r = docker_api_stream(api, "POST", "/images/load?quiet=1", keep_answer, &answer, STDIN_FILENO, err);
	/* A daemon that gives up closes the connection, too. */
	if (find_error(&answer, &said) < 0) {
		*err = said;
		return -said.number;
	}
	if (r < 0)
		return r;
	docker_api_patience(api, DOCKER_CALL_MS);
	r = docker_api_call(api, "GET", NULL, NULL, err, "/images/%s/json", docker_api_escape(api, id));
	return r == -ENOENT ? error_set(err, EPROTO, "it is not there afterwards: what arrived was another one") : r;
}

int docker_take_main(int argc, char **argv)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	struct error err = { 0 };
	int r;

	if (argc != 4)
		return 2;
	r = docker_api_open(*argv[1] ? argv[1] : NULL, &api, &err);
	if (!r)
		r = take(api, argv[2], &err);
	if (r < 0)
		error_wrap(&err, "Docker at the target cannot load the image %.100s", argv[3]);
	return ended(r, &err);
}
