/*
 * Unit tests of journals that are taken up after a crash: by one process at a time, torn or whole; the operator's word; which old
 * ones are forgotten.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "migration/journal.h"

#include "journal-place.h"

/* What a crash leaves behind can be taken up, by one process at a time. */
static void test_open(void **state)
{
	const struct place *p = *state;
	struct journal *j = create(p, &subject), *again = NULL;
	struct journal_summary s;
	struct error err = { 0 };

	assert_int_equal(journal_note_text(j, "target", "beta:7433", &err), 0);
	assert_int_equal(journal_enter(j, STATE_COPYING, NULL, &err), 0);
	assert_int_equal(journal_read(p->directory, &p->id, &s, &err), 0);
	assert_true(s.driven);
	assert_int_equal(journal_open(p->directory, &p->id, &again, &err), -EBUSY);
	journal_free(j);
	assert_int_equal(journal_read(p->directory, &p->id, &s, &err), 0);
	assert_false(s.driven);
	assert_int_equal(journal_open(p->directory, &p->id, &again, &err), 0);
	assert_int_equal(journal_state(again), STATE_COPYING);
	assert_int_equal(journal_side(again), SIDE_SOURCE);
	assert_string_equal(journal_fact(again, "target"), "beta:7433");
	assert_string_equal(journal_fact(again, "peer_identity"), "beta");
	assert_string_equal(journal_fact(again, "nothing"), "");
	assert_int_equal(journal_fact_number(again, "pid"), getpid());
	assert_int_equal(journal_fact_number(again, "released"), 0);
	assert_true(journal_same_boot(again));
	assert_int_equal(journal_mark(again, "released", &err), 0);
	assert_int_equal(journal_enter(again, STATE_ABORTED, "taken up", &err), 0);
	journal_free(again);
	assert_int_equal(journal_read(p->directory, &p->id, &s, &err), 0);
	assert_int_equal(s.state, STATE_ABORTED);
	assert_string_equal(s.reason, "taken up");
}

/* A torn last record is cut off before the next one is written behind it. */
static void test_open_torn(void **state)
{
	const struct place *p = *state;
	struct journal *j = create(p, &subject);
	_cleanup_buffer_ struct buffer whole = { 0 };
	struct journal_summary s;
	struct error err = { 0 };

	assert_int_equal(journal_enter(j, STATE_COPYING, NULL, &err), 0);
	journal_free(j);
	whole = content(p);
	for (size_t cut = 1; cut < 40; cut += 13) {
		overwrite(p, whole.data, whole.length - cut);
		assert_int_equal(journal_open(p->directory, &p->id, &j, &err), 0);
		assert_int_equal(journal_state(j), STATE_PLANNED);
		assert_int_equal(journal_enter(j, STATE_ABORTED, NULL, &err), 0);
		journal_free(j);
		assert_int_equal(journal_read(p->directory, &p->id, &s, &err), 0);
		assert_int_equal(s.state, STATE_ABORTED);
		assert_false(s.torn);
	}
}

static void test_word(void **state)
{
	const struct place *p = *state;
	struct error err = { 0 };

	journal_free(create(p, &subject));
	assert_int_equal(journal_word(p->directory, &p->id), SIDE_INVALID);
	assert_int_equal(journal_say(p->directory, &p->id, SIDE_TARGET, &err), 0);
	assert_int_equal(journal_word(p->directory, &p->id), SIDE_TARGET);
	assert_int_equal(journal_say(p->directory, &p->id, SIDE_SOURCE, &err), 0);
	assert_int_equal(journal_word(p->directory, &p->id), SIDE_SOURCE);
}

/* Finished ones go, the oldest first; an unfinished one never does. */
static void test_expire(void **state)
{
	const struct place *p = *state;
	struct journal_summary *list = NULL;
	struct uuid old = { .bytes = { 0, 1, 2, 3, 4, 5, 0x70 } }, unfinished = { .bytes = { 0, 1, 2, 3, 4, 6, 0x70 } };
	struct journal *j = NULL;
	struct error err = { 0 };
	size_t n = 0;

	old.bytes[8] = unfinished.bytes[8] = 0x80;
	for (size_t i = 0; i < JOURNAL_KEEP + 5; i++) {
		struct uuid id;

		assert_int_equal(uuid_new(&id), 0);
		assert_int_equal(journal_create(p->directory, &id, &subject, &j, &err), 0);
		assert_int_equal(journal_enter(j, STATE_ABORTED, NULL, &err), 0);
		journal_free(j);
	}
	assert_int_equal(journal_create(p->directory, &old, &subject, &j, &err), 0);
	assert_int_equal(journal_enter(j, STATE_ABORTED, NULL, &err), 0);
	journal_free(j);
	assert_int_equal(journal_create(p->directory, &unfinished, &subject, &j, &err), 0);
	journal_free(j);
	journal_expire(p->directory);
	assert_int_equal(journal_list(p->directory, &list, &n, &err), 0);
	assert_int_equal(n, JOURNAL_KEEP + 1);
	assert_memory_equal(list[0].id.bytes, unfinished.bytes, 16);
	free(list);
}

/* On a full disk there is no first record, and then nothing stays at all. */
static void test_no_room(void **state)
{
	const struct place *p = *state;
	const struct rlimit none = { 0, RLIM_INFINITY }, any = { RLIM_INFINITY, RLIM_INFINITY };
	struct journal *j = NULL;
	struct error err = { 0 };
	int r;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	r = journal_create(p->directory, &p->id, &subject, &j, &err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &any), 0);
	assert_int_equal(r, -EFBIG);
	assert_null(j);
	assert_int_equal(rmdir(p->directory), 0);
	/* Another's journal of the same id stays. */
	assert_int_equal(mkdir(p->directory, 0700), 0);
	journal_free(create(p, &subject));
	assert_int_equal(journal_create(p->directory, &p->id, &subject, &j, &err), -EEXIST);
	assert_int_equal(access(p->path, F_OK), 0);
}

/* What a crash left before the first record is forgotten, but not at once: it may be about to be written. */
static void test_expire_empty(void **state)
{
	const struct place *p = *state;
	struct uuid old = p->id;
	char name[UUID_TEXT_SIZE], path[256];

	journal_free(create(p, &subject));
	overwrite(p, "", 0);
	old.bytes[0] = old.bytes[1] = 0;
	uuid_format(&old, name);
	snprintf(path, sizeof(path), "%s/%s", p->directory, name);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/%s/journal", p->directory, name);
	assert_int_equal(fd_write_file(AT_FDCWD, path, "", 0, 0600), 0);
	journal_expire(p->directory);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(access(p->path, F_OK), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(test_open),   TEST(test_open_torn), TEST(test_word),
					    TEST(test_expire), TEST(test_no_room),   TEST(test_expire_empty) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
