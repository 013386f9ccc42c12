/*
 * The Docker driver in restart mode: stopped and started by the daemon. See docker.h. No state besides the workload; any thread.
 */
#include <errno.h>

#include "driver/docker.h"

#define START_MS 60000

int docker_stop(const struct workload *w, const struct driver_options *options, struct error *err)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	_cleanup_json_ json_t *spec = NULL;
	int r = docker_spec_read(w, &spec, err);

	if (!r)
		r = docker_api_open(options->engine, &api, err);
	if (r < 0)
		return r;
	/* With its own signal and patience, however long that is. 304, it is stopped already, counts as success. */
	docker_api_patience(api, 0);
	r = docker_api_call(api, "POST", NULL, NULL, err, "/containers/%s/stop", docker_json_text(spec, "id"));
	return r < 0 ? error_wrap(err, "cannot stop container %.64s", w->id) : 0;
}

int docker_start_again(const struct workload *w, const struct driver_options *options, const struct driver_place *place,
		       struct error *err)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	_cleanup_json_ json_t *spec = NULL, *inspected = NULL;
	int r = docker_spec_read(w, &spec, err);
	const char *id = docker_json_text(spec, "id");

	if (!r)
		r = docker_api_open_again(options->engine, &api, err);
	if (!r && place) {
		r = docker_find_ours(api, place, &inspected, err);
		id = docker_json_text(inspected, "Id");
	}
	if (r < 0)
		return r;
	docker_api_patience(api, START_MS);
	r = docker_api_call(api, "POST", NULL, NULL, err, "/containers/%s/start", id);
	if (r < 0)
		return error_wrap(err, "cannot start container %.64s", w->id);
	return place ? docker_restored(w, place, err) : 0;
}
