/*
 * The child that has the daemon restore a container: the hidden verb `phaul docker-start SOCKET ID CHECKPOINT CONFIG`.
 *
 * A process of its own, because the call lasts until the restore is over, and because it outlives a phaul that dies meanwhile.
 */
#pragma once

#define DOCKER_START_VERB "docker-start"

/* Ends with 0 when the container runs and is Docker's; its last line on stderr says why it does not. */
int docker_start_main(int argc, char **argv);
