/*
 * What a driver does in a process of its own: this very program, started again as `phaul engine-helper NAME ARGUMENT...`. Not for people.
 */
#pragma once

/* The name by which it is started: argv[1] of this program. */
#define DRIVER_HELPER "engine-helper"

/* argv[0] is the helper's name. Returns the exit status. */
int driver_helper_main(int argc, char **argv);

/* Reads standard input to its end into the file argv[1], in the background; keeps one older file of DRAIN_BYTES_MAX beside it. */
#define DRAIN_BYTES_MAX (16U << 20)
int drain_main(int argc, char **argv);

/* SOCKET ("": the usual one) CONTAINER CHECKPOINT NETNS ANSWER: has the Docker daemon start it from there; ends with 0 when it runs and is
 * Docker's. NETNS, if not "", is the network namespace that it gets meanwhile; how that went is written into the file ANSWER. */
#define DOCKER_START "docker-start"
int docker_start_main(int argc, char **argv);

/* SOCKET IMAGE N: the image to standard output, as Docker's archive, without its first N layers. */
#define DOCKER_GIVE "docker-give"
int docker_give_main(int argc, char **argv);

/* SOCKET ID NAME: has the daemon load the archive from standard input; afterwards it must have the image of that id. */
#define DOCKER_TAKE "docker-take"
int docker_take_main(int argc, char **argv);
