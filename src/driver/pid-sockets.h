/*
 * Who is at the other end of the tree's pipes and sockets.
 */
#pragma once

#include "driver/pid.h"
#include "driver/scan.h"

struct end {
	uint64_t inode;
	pid_t pid;
	int fd;
	unsigned int sides; /* of a pipe: 1 reads, 2 writes */
	const char *name;   /* of the process; the tree's */
};

/* The ends a tree holds: gathered while its descriptors are scanned. */
struct ends {
	struct end *list;
	size_t n, n_allocated;
};

int ends_add(struct ends *e, const struct end *one);
void ends_free(struct ends *e);

/* Pipes whose other end somebody outside holds. */
int pid_check_pipes(struct ends *pipes, struct obstacles *ret);

/* Sockets by family and protocol, and unix sockets with a peer outside. Sockets of the tree's own network namespace. */
int pid_check_sockets(const struct tree *t, struct ends *sockets, struct obstacles *ret, struct error *err);
