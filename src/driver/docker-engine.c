/*
 * What the source's daemon is told: restart policies off and on again, and in the end where the container has gone. See docker.h.
 *
 * Everything is found by the container's full id, so that a name may change meanwhile. No state; any thread.
 */
#include "driver/docker.h"

#include <errno.h>
#include <string.h>

#define SHORT_ID 12
#define SETTLE_MS 10000 /* for the daemon to notice that the tasks have ended */

struct told {
	struct docker_api *api;
	json_t *spec;
	const char *id;
};

static void told_free(struct told *t)
{
	docker_api_free(t->api);
	json_decref(t->spec);
}

/* The daemon is spoken to only where there is something to say. */
static int told_open(const struct workload *w, struct told *ret, struct error *err)
{
	int r = docker_spec_read(w, &ret->spec, err);

	if (!r)
		ret->id = docker_json_text(ret->spec, "id");
	return r;
}

static int update_policy(const struct told *t, const json_t *policy, struct error *err)
{
	_cleanup_json_ json_t *body = json_pack("{s:O}", "RestartPolicy", policy);

	return docker_api_call(t->api, "POST", body, NULL, err, "/containers/%s/update", t->id);
}

static int switch_off(const struct told *t, struct error *err)
{
	_cleanup_json_ json_t *none = json_pack("{s:s, s:i}", "Name", "no", "MaximumRetryCount", 0);

	return update_policy(t, none, err);
}

static json_t *policy_of(const struct told *t)
{
	json_t *policy = docker_json_at(t->spec, "host_config.RestartPolicy");
	const char *name = docker_json_text(policy, "Name");

	return *name && strcmp(name, "no") != 0 ? policy : NULL;
}

int docker_arm(const struct workload *w, const struct driver_options *options, struct error *err)
{
	_cleanup_(told_free) struct told t = { 0 };
	int r = told_open(w, &t, err);

	if (r < 0 || !policy_of(&t))
		return r;
	r = docker_api_open(options->engine, &t.api, err);
	if (!r)
		r = switch_off(&t, err);
	return r < 0 ? error_wrap(err, "cannot switch the container's restart policy off") : 0;
}

int docker_disarm(const struct workload *w, const struct driver_options *options, struct error *err)
{
	_cleanup_(told_free) struct told t = { 0 };
	int r = told_open(w, &t, err);
	json_t *policy = r < 0 ? NULL : policy_of(&t);

	if (!policy)
		return r;
	r = docker_api_open_again(options->engine, &t.api, err);
	if (!r)
		r = update_policy(&t, policy, err);
	return r < 0 ? error_wrap(err, "cannot switch the container's restart policy on again") : 0;
}

/* The daemon hears of the end from its runtime: it takes a moment. */
static int await_end(const struct told *t, struct error *err)
{
	_cleanup_json_ json_t *answer = NULL;
	int r;

	docker_api_patience(t->api, SETTLE_MS);
	r = docker_api_call(t->api, "POST", NULL, &answer, err, "/containers/%s/wait?condition=not-running", t->id);
	docker_api_patience(t->api, DOCKER_CALL_MS);
	return r;
}

static int rename_moved(const struct told *t, struct error *err)
{
	_cleanup_json_ json_t *now = NULL;
	char moved[512];
	int r = docker_api_call(t->api, "GET", NULL, &now, err, "/containers/%s/json", t->id);

	if (r < 0)
		return r == -ENOENT ? 0 : r; /* gone by itself (--rm) */
	snprintf(moved, sizeof(moved), "/%.400s-moved-%.*s", docker_json_text(t->spec, "name"), SHORT_ID, t->id);
	if (!strcmp(docker_json_text(now, "Name"), moved))
		return 0;
	return docker_api_call(t->api, "POST", NULL, NULL, err, "/containers/%s/rename?name=%s", t->id,
			       docker_api_escape(t->api, moved + 1));
}

int docker_moved(const struct workload *w, const struct driver_options *options, struct error *err)
{
	_cleanup_(told_free) struct told t = { 0 };
	int r = told_open(w, &t, err);

	if (!r)
		r = docker_api_open_again(options->engine, &t.api, err);
	if (r < 0)
		return r;
	r = await_end(&t, err);
	if (r == -ENOENT)
		return 0; /* a container of --rm goes with its tasks */
	if (!r && options->remove_source) {
		r = docker_api_call(t.api, "DELETE", NULL, NULL, err, "/containers/%s?v=1", t.id);
		return r == -ENOENT ? 0 : r;
	}
	/* The policy was switched off before; a daemon that was restarted meanwhile has kept that. */
	return r < 0 ? r : rename_moved(&t, err);
}
