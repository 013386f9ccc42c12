/* The parts of redisload. See redisload.c for the whole. */
#pragma once

#include "page.h"
#include "resp.h"

#define KEY_BYTES 40
#define VALUE_BYTES_MIN 32
#define VALUE_BYTES_MAX 65536
#define RUN_KEYS 1000 /* keys each connection writes */
#define RUN_CONNECTIONS_MAX 256

struct load_options {
	struct sockaddr_in server;
	uint64_t bytes;
	uint64_t value_bytes;
	uint64_t keys; /* filled keys that exist: verify reads them, run reads them too; 0: none */
	uint64_t connections;
	uint64_t duration_s; /* 0: until SIGTERM */
	uint64_t interval_ms;
	enum page_content content;
	const char *json;
	const char *state;
};

/* "phaul:fill:NUMBER" and "phaul:run:CONNECTION:NUMBER". */
size_t fill_key(char ret_key[KEY_BYTES], uint64_t number);
size_t run_key(char ret_key[KEY_BYTES], uint64_t connection, uint64_t number);

/* A value begins with its generation in 20 digits and a space; the rest follows from key and generation. */
void value_make(char *ret_value, size_t length, enum page_content content, const char *key, uint64_t generation);
/* Returns the generation of a value that fits its key, or -EBADMSG. */
int value_check(const char *value, size_t length, enum page_content content, const char *key, uint64_t *ret_generation);

int load_fill(const struct load_options *options);
int load_verify(const struct load_options *options);
int load_run(const struct load_options *options);
