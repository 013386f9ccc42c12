/*
 * A queue of nfnetlink_queue in which packets wait for their verdict, all for the same one. Internal to net/.
 *
 * Nobody reads them: the kernel numbers the packets of a queue from 1 on, and one batch verdict lets all in, in their order. What
 * piles up unread is the bound in bytes: the socket holds a copy of each packet (or references to its pages), and when
 * its buffer is full the next packet is dropped. Source: net/netfilter/nfnetlink_queue.c, linux/netfilter/nfnetlink_queue.h.
 */
#pragma once

#include <stdint.h>

#define QUEUE_PACKETS_MAX 8192
#define QUEUE_BYTES_MAX (32 << 20) /* of the kernel's memory, some 800 bytes of it for each packet's place */

/* A queue in the calling thread's network namespace, with a number that nobody else has: ret_fd is its listener. Closing that
 * drops what waits. 0, or a negative errno (-EPROTONOSUPPORT, -EINVAL: this kernel has none). */
int queue_open(int *ret_fd, uint16_t *ret_number);

/* Lets in everything that waits; any thread, any namespace. 0 also when nothing waits. */
int queue_accept_all(int fd, uint16_t number);

/* Waits until nothing waits in any queue of the calling thread's namespace, or the deadline: the kernel drops what waits when
 * anybody's netfilter hook there goes (nf_queue_nf_hook_drop()), so that whoever removes a table asks first. */
void queue_await_idle(uint64_t deadline_ns);

/* How many packets came and are not counted yet, up to the bounds, and their bytes (beyond 64 KiB of a packet not counted). */
void queue_count(int fd, uint64_t *ret_packets, uint64_t *ret_bytes);
