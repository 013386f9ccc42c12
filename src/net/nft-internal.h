/*
 * What nft*.c and queue.c share: messages of nfnetlink and its sockets.
 */
#pragma once

#include <netlink/msg.h>

#include "net/nft.h"

/* A message of nf_tables (NFT_MSG_*) in the batch's family; NULL when memory ran out, which the batch then knows. */
struct nl_msg *nft_message(struct nft_batch *b, int type, uint16_t flags);

/* Takes the message over; NULL is fine. */
void nft_batch_append(struct nft_batch *b, struct nl_msg *m);

/* Notes the first failure; r >= 0 is none. */
void nft_batch_fail(struct nft_batch *b, int r);

/* A netfilter socket of the calling thread's network namespace, connected to the kernel. */
int nft_socket_open(void);

/* nft_commit() on a socket that stays open: several in a row do not wait for each other. */
int nft_commit_on(int fd, struct nft_batch *b);

/* Closes it without waiting: the kernel makes whoever closes one wait for an RCU grace period after deletions. */
void nft_close_aside(int fd);

/* What the kernel said, which is all there already: the first error, 0 when acknowledgements came only, -EPROTO for nothing. */
int nft_read_answers(int fd);
