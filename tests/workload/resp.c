/* RESP2 over a blocking TCP socket: requests are gathered and flushed, replies parsed from one buffer.
 *
 * Invariants: in[in_start..in_end) is received and not yet parsed. A reply that is not complete leaves in_start
 * where it was, so that after a timeout parsing begins again at its first byte.
 * Threads: a connection belongs to one thread.
 */
#include "resp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

int resp_open(const struct sockaddr_in *address, struct resp *ret_resp)
{
	/* Short, so that a stopped program notices; a reply may take many of them. */
	struct timeval patience = { .tv_usec = 100000 };
	struct resp resp = { .fd = tcp_connect(&(union tcp_address){ .in = *address }) };
	if (resp.fd < 0)
		return resp.fd;
	resp.in = malloc(RESP_BUFFER_BYTES);
	resp.out = malloc(RESP_BUFFER_BYTES);
	if (!resp.in || !resp.out || setsockopt(resp.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0) {
		resp_close(&resp);
		return -ENOMEM;
	}
	*ret_resp = resp;
	return 0;
}

void resp_close(struct resp *resp)
{
	close_fd(&resp->fd);
	free(resp->in);
	free(resp->out);
	resp->in = resp->out = NULL;
}

int resp_add(struct resp *resp, size_t count, const char *const *parts, const size_t *lengths)
{
	size_t need = 32;
	for (size_t i = 0; i < count; i++)
		need += lengths[i] + 32;
	if (need > RESP_BUFFER_BYTES - resp->out_bytes)
		return -ENOSPC;
	char *at = resp->out + resp->out_bytes;
	at += sprintf(at, "*%zu\r\n", count);
	for (size_t i = 0; i < count; i++) {
		at += sprintf(at, "$%zu\r\n", lengths[i]);
		memcpy(at, parts[i], lengths[i]);
		at += lengths[i];
		*at++ = '\r';
		*at++ = '\n';
	}
	resp->out_bytes = (size_t)(at - resp->out);
	return 0;
}

int resp_flush(struct resp *resp)
{
	for (size_t done = 0; done < resp->out_bytes;) {
		ssize_t sent = send(resp->fd, resp->out + done, resp->out_bytes - done, MSG_NOSIGNAL);
		if (sent < 0 && errno != EINTR)
			return -errno;
		done += sent > 0 ? (size_t)sent : 0;
	}
	resp->out_bytes = 0;
	return 0;
}

/* Returns how many bytes the reply at `at` takes, 0 when there is not all of it yet, or -EBADMSG. */
static ssize_t parse(const char *at, size_t available, struct resp_reply *reply)
{
	const char *end = memchr(at, '\n', available);
	if (!end)
		return 0;
	size_t line = (size_t)(end - at) + 1;
	if (line < 3 || end[-1] != '\r')
		return -EBADMSG;
	reply->bytes = at + 1;
	reply->length = line - 3;
	switch (at[0]) {
	case '+':
		reply->kind = RESP_STATUS;
		return (ssize_t)line;
	case '-':
		reply->kind = RESP_ERROR;
		return (ssize_t)line;
	case ':':
		reply->kind = RESP_NUMBER;
		return (ssize_t)line;
	case '$':
		break;
	default:
		return -EBADMSG;
	}
	char *rest;
	long length = strtol(at + 1, &rest, 10);
	if (rest != end - 1 || length < -1 || length > (long)RESP_BUFFER_BYTES / 2)
		return -EBADMSG;
	if (length == -1) {
		reply->kind = RESP_NIL;
		reply->length = 0;
		return (ssize_t)line;
	}
	size_t whole = line + (size_t)length + 2;
	if (available < whole)
		return 0;
	if (memcmp(at + whole - 2, "\r\n", 2) != 0)
		return -EBADMSG;
	reply->kind = RESP_BULK;
	reply->bytes = at + line;
	reply->length = (size_t)length;
	return (ssize_t)whole;
}

int resp_read(struct resp *resp, struct resp_reply *ret_reply)
{
	for (;;) {
		ssize_t taken = parse(resp->in + resp->in_start, resp->in_end - resp->in_start, ret_reply);
		if (taken < 0)
			return (int)taken;
		if (taken > 0) {
			resp->in_start += (size_t)taken;
			return 0;
		}
		if (resp->in_start) {
			memmove(resp->in, resp->in + resp->in_start, resp->in_end - resp->in_start);
			resp->in_end -= resp->in_start;
			resp->in_start = 0;
		}
		if (resp->in_end == RESP_BUFFER_BYTES)
			return -EBADMSG;
		ssize_t got = recv(resp->fd, resp->in + resp->in_end, RESP_BUFFER_BYTES - resp->in_end, 0);
		if (got < 0)
			return errno == EINTR ? -EAGAIN : -errno;
		if (got == 0)
			return -ECONNRESET;
		resp->in_end += (size_t)got;
	}
}
