/*
 * The child that has the daemon restore a container. A process of its own, because the call lasts until the restore is over, and because it
 * outlives a phaul that dies meanwhile. A child of its own gives the container its network (docker-netns.c). One thread each.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/docker.h"
#include "driver/helper.h"

/* argv of the helper */
enum { SOCKET = 1, CONTAINER, CHECKPOINT, NETNS, ANSWER, N_ARGUMENTS };

/* The start cannot be asked about until it is over: the id is asked for first. */
static int find_id(struct docker_api *api, const char *name, char *ret, size_t size, struct error *err)
{
	_cleanup_json_ json_t *container = NULL;
	int r = docker_api_call(api, "GET", NULL, &container, err, "/containers/%s/json", docker_api_escape(api, name));

	if (!r)
		snprintf(ret, size, "%s", docker_json_text(container, "Id"));
	return r;
}

static int begin_network(struct docker_api *api, char **argv, pid_t *ret, struct error *err)
{
	pid_t parent = getpid();
	char id[80];
	int r = find_id(api, argv[CONTAINER], id, sizeof(id), err);

	if (r < 0)
		return r;
	*ret = fork();
	if (*ret < 0)
		return error_errno(err, errno, "cannot start a process for the container's network");
	if (*ret)
		return 0;
	/* Without the start there is nothing to wait for. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(1);
	_exit(docker_netns_fill(docker_api_daemon(api), id, argv[NETNS], argv[ANSWER]));
}

static int start(char **argv, struct error *err)
{
	_cleanup_docker_api_ struct docker_api *api = NULL;
	pid_t network = 0;
	int r = docker_api_open(*argv[SOCKET] ? argv[SOCKET] : NULL, &api, err);

	if (!r && *argv[NETNS])
		r = begin_network(api, argv, &network, err);
	if (r < 0)
		return r;
	docker_api_patience(api, 0);
	r = docker_api_call(api, "POST", NULL, NULL, err, "/containers/%s/start?checkpoint=%s",
			    docker_api_escape(api, argv[CONTAINER]), docker_api_escape(api, argv[CHECKPOINT]));
	if (network) {
		kill(network, SIGKILL);
		(void)waitpid(network, NULL, 0);
	}
	return r;
}

int docker_start_main(int argc, char **argv)
{
	struct error err = { 0 };

	if (argc != N_ARGUMENTS)
		return 2;
	if (start(argv, &err) == 0)
		return 0;
	error_tidy(err.text); /* the last line is what is quoted */
	fprintf(stderr, "%s\n", err.text);
	return 1;
}
