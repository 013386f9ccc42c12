/* Migration identifiers: UUID version 7 (RFC 9562: 48 bits of Unix milliseconds, then random). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define UUID_TEXT_SIZE 37 /* with the terminating NUL */

struct uuid {
	uint8_t bytes[16];
};

/* 0 or a negative errno when the kernel gives no random bytes. */
int uuid_new(struct uuid *ret);
void uuid_format(const struct uuid *id, char text[UUID_TEXT_SIZE]);

/* Only the canonical lower-case form is taken, so that a parsed id is safe as a file name. */
bool uuid_parse(const char *text, struct uuid *ret);
