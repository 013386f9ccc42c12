/* As much of Redis's protocol (RESP2) as a load client needs: requests of bulk strings, replies of four kinds. */
#pragma once

#include "common.h"

#define RESP_BUFFER_BYTES (256u << 10)

enum resp_kind { RESP_INVALID = -1, RESP_STATUS, RESP_ERROR, RESP_NUMBER, RESP_BULK, RESP_NIL, RESP_MAX };

struct resp {
	int fd; /* with a receive timeout, after which resp_read returns -EAGAIN and may be called again */
	size_t in_start, in_end;
	size_t out_bytes;
	char *in;
	char *out;
};

struct resp_reply {
	enum resp_kind kind;
	const char *bytes; /* within the connection's buffer: good until the next resp_read */
	size_t length;
};

int resp_open(const struct sockaddr_in *address, struct resp *ret_resp);
void resp_close(struct resp *resp);
/* Adds a request to what will be sent. -ENOSPC: flush first. */
int resp_add(struct resp *resp, size_t count, const char *const *parts, const size_t *lengths);
int resp_flush(struct resp *resp);
int resp_read(struct resp *resp, struct resp_reply *ret_reply);
