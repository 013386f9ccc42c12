/*
 * The child that has the daemon restore a container. A process of its own, because the call lasts until the restore is over, and because it
 * outlives a phaul that dies meanwhile. One thread.
 */
#include <stdio.h>

#include "driver/docker.h"
#include "driver/helper.h"

static int start(char **argv, struct error *err)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	int r = docker_api_open(*argv[1] ? argv[1] : NULL, &api, err);

	if (r < 0)
		return r;
	docker_api_patience(api, 0);
	return docker_api_call(api, "POST", NULL, NULL, err, "/containers/%s/start?checkpoint=%s",
			       docker_api_escape(api, argv[2]), docker_api_escape(api, argv[3]));
}

int docker_start_main(int argc, char **argv)
{
	struct error err = { 0 };

	if (argc != 4)
		return 2;
	if (start(argv, &err) == 0)
		return 0;
	error_tidy(err.text); /* the last line is what is quoted */
	fprintf(stderr, "%s\n", err.text);
	return 1;
}
