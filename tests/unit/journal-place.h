/* A directory of its own with one journal in it, for the tests of journals. Include behind cmocka and its headers. */
#pragma once

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "migration/journal.h"

static const struct journal_subject subject = { SIDE_SOURCE, "pid", "4711", "beta (10.77.0.2:7433)", "beta" };

struct place {
	char directory[64];
	struct uuid id;
	char path[256]; /* of the journal */
};

static inline int place_setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	char id[UUID_TEXT_SIZE];

	strcpy(p->directory, "/tmp/phaul-journal.XXXXXX");
	assert_non_null(mkdtemp(p->directory));
	assert_int_equal(uuid_new(&p->id), 0);
	uuid_format(&p->id, id);
	snprintf(p->path, sizeof(p->path), "%s/%s/journal", p->directory, id);
	*state = p;
	return 0;
}

static inline int place_teardown(void **state)
{
	struct place *p = *state;

	dir_remove(p->directory);
	free(p);
	return 0;
}

static inline struct journal *create(const struct place *p, const struct journal_subject *s)
{
	struct journal *j = NULL;
	struct error err = { 0 };

	if (journal_create(p->directory, &p->id, s, &j, &err) < 0)
		fail_msg("%s", err.text);
	return j;
}

static inline struct buffer content(const struct place *p)
{
	struct buffer b = { 0 };

	assert_int_equal(fd_read_file(AT_FDCWD, p->path, 1 << 20, &b), 0);
	return b;
}

static inline void overwrite(const struct place *p, const void *data, size_t length)
{
	_cleanup_close_ int fd = open(p->path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fd_write_full(fd, data, length), 0);
}
