/*
 * Two directories of a temporary tree and passes of rsync between them, for the tests of fs/.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/sync.h"

#define PASS_MS 30000

struct fixture {
	char top[64], source[96], target[96];
};

/* In a migration both halves may have the same path, on two hosts; here each has its own. */
struct half {
	struct sync *sync;
	struct sync_stats stats;
	struct error err;
	int result;
};

int sync_rig_setup(void **state); /* *state: struct fixture; source exists, target not */
int sync_rig_teardown(void **state);

void *sync_rig_finish(void *context); /* of a struct half: waits for it */

/* list: NULL: a whole pass; else taken over. */
void sync_rig_pass(const struct sync_tree *from, struct buffer *list, const char *to, struct half *source,
		   struct half *target);
void run_pass(const char *from, const char *to, struct half *source, struct half *target);
void pass_succeeds(const char *from, const char *to, struct half *source);

void write_file(const char *path, const char *text);
void assert_content(const char *path, const char *text);

/* dir/name, in one of a few static places. */
const char *in(const char *dir, const char *name);
