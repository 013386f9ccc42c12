/*
 * Unit tests of the journal: what is on disk after each step, a file torn at every byte, damage in the middle, what the
 * table of states refuses, and a disk that is full. Without the right to mount, that last one is skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/fd.h"
#include "base/log.h"
#include "migration/journal.h"

#include "journal-place.h"

/* The record of a line, whose checksum is verified here on its own. */
static json_t *record_of(const char *line, size_t length)
{
	const char *space = memrchr(line, ' ', length);
	char sum[32];

	assert_non_null(space);
	snprintf(sum, sizeof(sum), "%016llx", (unsigned long long)XXH3_64bits(line, (size_t)(space - line)));
	assert_int_equal(length - (size_t)(space - line) - 1, 16);
	assert_memory_equal(space + 1, sum, 16);
	return json_loadb(line, (size_t)(space - line), 0, NULL);
}

static void assert_member(json_t *record, const char *key, const char *value)
{
	const char *text = json_string_value(json_object_get(record, key));

	if (!text || strcmp(text, value) != 0)
		fail_msg("%s is %s, not %s", key, text ? text : "missing", value);
}

/* Each record is there, whole and readable by others, as soon as the call is back. */
static void test_records(void **state)
{
	static const struct {
		enum migration_state state;
		const char *reason;
	} way[] = {
		{ STATE_COPYING, NULL }, { STATE_FROZEN, "it fits" }, { STATE_COMMITTED, NULL }, { STATE_SETTLED, NULL }
	};
	const struct place *p = *state;
	struct journal *j = create(p, &subject);
	struct error err = { 0 };
	size_t seen = 0;
	struct stat st;

	assert_int_equal(journal_state(j), STATE_PLANNED);
	for (size_t i = 0; i <= ARRAY_SIZE(way); i++) {
		_cleanup_buffer_ struct buffer b = content(p);
		const char *line = (const char *)b.data + seen, *end = memchr(line, '\n', b.length - seen);
		json_t *record;

		assert_true(end == (const char *)b.data + b.length - 1);
		record = record_of(line, (size_t)(end - line));
		assert_non_null(record);
		assert_int_equal(json_integer_value(json_object_get(record, "sequence")), i);
		assert_int_equal(strlen(json_string_value(json_object_get(record, "time"))), 24);
		assert_member(record, "state", i ? state_name(way[i - 1].state) : "planned");
		if (i && way[i - 1].reason)
			assert_member(record, "reason", way[i - 1].reason);
		if (!i) {
			assert_member(record, "side", "source");
			assert_member(record, "workload", "4711");
			assert_member(record, "peer_identity", "beta");
		}
		json_decref(record);
		seen = b.length;
		if (i < ARRAY_SIZE(way))
			assert_int_equal(journal_enter(j, way[i].state, way[i].reason, &err), 0);
	}
	assert_int_equal(stat(p->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	journal_free(j);
}

static void test_summary(void **state)
{
	const struct place *p = *state;
	const struct journal_subject target = { SIDE_TARGET, "pid", "1", "alpha", "" };
	struct journal *j = create(p, &target);
	struct journal_summary s;
	struct error err = { 0 };

	assert_int_equal(journal_enter(j, STATE_RECEIVING, NULL, &err), 0);
	assert_int_equal(journal_note(j, "root_pid", INT64_MIN, &err), 0);
	assert_int_equal(journal_enter(j, STATE_ABORTED, "the \"link\"\nbroke \\", &err), 0);
	journal_free(j);
	assert_int_equal(journal_read(p->directory, &p->id, &s, &err), 0);
	assert_memory_equal(s.id.bytes, p->id.bytes, 16);
	assert_int_equal(s.side, SIDE_TARGET);
	assert_int_equal(s.state, STATE_ABORTED);
	assert_string_equal(s.type, "pid");
	assert_string_equal(s.workload, "1");
	assert_string_equal(s.peer, "alpha");
	assert_string_equal(s.peer_identity, "");
	assert_string_equal(s.reason, "the \"link\"\nbroke \\");
	assert_false(s.torn);
	journal_free(NULL);
}

static void test_existing_id(void **state)
{
	const struct place *p = *state;
	struct journal *j = create(p, &subject), *second = NULL;
	_cleanup_buffer_ struct buffer before = content(p);
	_cleanup_buffer_ struct buffer after = { 0 };
	struct error err = { 0 };

	assert_int_equal(journal_create(p->directory, &p->id, &subject, &second, &err), -EEXIST);
	assert_null(second);
	after = content(p);
	assert_int_equal(after.length, before.length);
	assert_memory_equal(after.data, before.data, before.length);
	journal_free(j);
}

/* Cut after every byte of the last record, with and without its newline: as if it had never been written. */
static void test_torn(void **state)
{
	const struct place *p = *state;
	struct journal *j = create(p, &subject);
	_cleanup_buffer_ struct buffer before = { 0 }, after = { 0 };
	struct journal_summary s;
	struct error err = { 0 };

	assert_int_equal(journal_enter(j, STATE_COPYING, NULL, &err), 0);
	before = content(p);
	assert_int_equal(journal_enter(j, STATE_FROZEN, "why not", &err), 0);
	after = content(p);
	journal_free(j);
	for (size_t length = before.length; length <= after.length; length++) {
		bool whole = length == after.length;

		overwrite(p, after.data, length);
		if (journal_read(p->directory, &p->id, &s, &err) < 0)
			fail_msg("%zu of %zu bytes: %s", length, after.length, err.text);
		assert_int_equal(s.state, whole ? STATE_FROZEN : STATE_COPYING);
		assert_int_equal(s.torn, !whole && length > before.length);
		assert_string_equal(s.reason, whole ? "why not" : "");
	}
	/* Any byte of it changed, the newline aside: the same. */
	for (size_t at = before.length; at + 1 < after.length; at++) {
		_cleanup_free_ uint8_t *bytes = malloc(after.length);

		memcpy(bytes, after.data, after.length);
		bytes[at] ^= 1;
		overwrite(p, bytes, after.length);
		if (journal_read(p->directory, &p->id, &s, &err) < 0 || s.state != STATE_COPYING || !s.torn)
			fail_msg("byte %zu (%c): state %s, %s", at, after.data[at], state_name(s.state), err.text);
	}
}

/* The first record alone, torn: there is no migration to speak of. */
static void test_torn_first(void **state)
{
	const struct place *p = *state;
	struct journal *j = create(p, &subject);
	_cleanup_buffer_ struct buffer all = content(p);
	struct journal_summary s;
	struct error err = { 0 };

	journal_free(j);
	for (size_t length = 0; length < all.length; length++) {
		overwrite(p, all.data, length);
		assert_int_equal(journal_read(p->directory, &p->id, &s, &err), -EBADMSG);
	}
}

static void test_damage_in_the_middle(void **state)
{
	const struct place *p = *state;
	struct journal *j = create(p, &subject);
	_cleanup_buffer_ struct buffer one = { 0 }, two = { 0 }, all = { 0 };
	struct journal_summary s;
	struct error err = { 0 };

	one = content(p);
	assert_int_equal(journal_enter(j, STATE_COPYING, NULL, &err), 0);
	two = content(p);
	assert_int_equal(journal_enter(j, STATE_FROZEN, NULL, &err), 0);
	all = content(p);
	journal_free(j);
	/* Without the newline before the last record both look like one torn record: that one byte is left out. */
	for (size_t at = 0; at + 1 < two.length; at++) {
		_cleanup_free_ uint8_t *bytes = malloc(all.length);

		memcpy(bytes, all.data, all.length);
		bytes[at] ^= 1;
		overwrite(p, bytes, all.length);
		if (journal_read(p->directory, &p->id, &s, &err) != -EBADMSG)
			fail_msg("byte %zu (%c) changed and nobody noticed", at, all.data[at]);
	}
	/* A NUL hides the rest. */
	all.data[one.length] = 0;
	overwrite(p, all.data, all.length);
	assert_int_equal(journal_read(p->directory, &p->id, &s, &err), -EBADMSG);
}

static const enum migration_state every_way[SIDE_MAX][5] = {
	[SIDE_SOURCE] = { STATE_PLANNED, STATE_COPYING, STATE_FROZEN, STATE_COMMITTED, STATE_SETTLED },
	[SIDE_TARGET] = { STATE_PLANNED, STATE_RECEIVING, STATE_PREPARED, STATE_RESUMING, STATE_RUNNING },
};

static bool allowed(int side, int from, int to)
{
	for (int i = 0; i < 4; i++) {
		if ((int)every_way[side][i] == from && (int)every_way[side][i + 1] == to)
			return true;
		/* From the last but one only by the other side's word, or the operator's. */
		if ((int)every_way[side][i] == from && to == STATE_ABORTED)
			return true;
	}
	return false;
}

/* Beside the way forward only ABORTED, and only before the end. */
static void test_table(void **state)
{
	(void)state;
	for (int side = SIDE_SOURCE; side < SIDE_MAX; side++)
		for (int from = STATE_INVALID; from <= STATE_MAX; from++)
			for (int to = STATE_INVALID; to <= STATE_MAX; to++)
				if (state_may_follow((enum migration_side)side, (enum migration_state)from,
						     (enum migration_state)to) != allowed(side, from, to))
					fail_msg("side %d: %s -> %s", side, state_name((enum migration_state)from),
						 state_name((enum migration_state)to));
	for (int s = STATE_INVALID + 1; s < STATE_MAX; s++)
		assert_int_equal(state_parse(state_name((enum migration_state)s)), s);
	assert_int_equal(state_parse("invalid"), STATE_INVALID);
	assert_int_equal(state_parse(""), STATE_INVALID);
}

static void test_refused_transition(void **state)
{
	const struct place *p = *state;
	struct journal *j = create(p, &subject);
	struct error err = { 0 };

	assert_int_equal(journal_enter(j, STATE_COPYING, NULL, &err), 0);
	for (int to = STATE_INVALID; to <= STATE_MAX; to++) {
		_cleanup_buffer_ struct buffer before = content(p), after = { 0 };

		if (to == STATE_FROZEN || to == STATE_ABORTED)
			continue;
		assert_int_equal(journal_enter(j, (enum migration_state)to, "no", &err), -EINVAL);
		assert_non_null(strstr(err.text, "cannot go from copying to"));
		assert_int_equal(journal_state(j), STATE_COPYING);
		after = content(p);
		assert_int_equal(after.length, before.length);
	}
	journal_free(j);
}

static void test_odd_texts(void **state)
{
	const struct place *p = *state;
	const struct journal_subject odd = { SIDE_SOURCE, NULL, "caf\xe9\xff\x80", "a\x01\"b\nc", "\xc3\xa4" };
	char longest[3000], loud[3000];
	struct journal *j = create(p, &odd);
	struct journal_summary s;
	struct error err = { 0 };

	memset(longest, 'y', sizeof(longest));
	memset(loud, 0xff, sizeof(loud));
	longest[sizeof(longest) - 1] = loud[sizeof(loud) - 1] = 0;
	assert_int_equal(journal_enter(j, STATE_COPYING, longest, &err), 0);
	assert_int_equal(journal_read(p->directory, &p->id, &s, &err), 0);
	assert_string_equal(s.type, "");
	assert_string_equal(s.workload, "caf???");
	assert_string_equal(s.peer, "a\x01\"b\nc");
	assert_string_equal(s.peer_identity, "\xc3\xa4");
	assert_int_equal(strlen(s.reason), sizeof(s.reason) - 1);
	assert_int_equal(journal_enter(j, STATE_ABORTED, loud, &err), 0);
	assert_int_equal(journal_read(p->directory, &p->id, &s, &err), 0);
	assert_int_equal(s.state, STATE_ABORTED);
	assert_int_equal(strspn(s.reason, "?"), strlen(s.reason));
	assert_true(strlen(s.reason) > 100);
	journal_free(j);
}

static void test_list(void **state)
{
	struct place *p = *state;
	struct uuid made[20];
	struct journal_summary *list = NULL, one;
	struct error err = { 0 };
	char path[256];
	size_t n = 77;

	snprintf(path, sizeof(path), "%s/none", p->directory);
	assert_int_equal(journal_list(path, &list, &n, &err), 0);
	assert_int_equal(n, 0);
	free(list);
	/* Created from the last to the first. */
	for (int i = 19; i >= 0; i--) {
		assert_int_equal(uuid_new(&made[i]), 0);
		made[i].bytes[0] = (uint8_t)i;
		p->id = made[i];
		journal_free(create(p, &subject));
	}
	/* Others in the same place: no id, an id without a journal, a damaged one. */
	snprintf(path, sizeof(path), "%s/lost+found", p->directory);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/01890000-0000-7000-8000-000000000000", p->directory);
	assert_int_equal(mkdir(path, 0700), 0);
	uuid_format(&made[7], path);
	snprintf(p->path, sizeof(p->path), "%s/%.36s/journal", p->directory, path);
	overwrite(p, "x\ny\n", 4);
	assert_int_equal(journal_list(p->directory, &list, &n, &err), 0);
	assert_int_equal(n, 19);
	for (size_t i = 0; i < n; i++)
		assert_memory_equal(list[i].id.bytes, made[i < 7 ? i : i + 1].bytes, 16);
	free(list);
	assert_int_equal(journal_read(p->directory, &made[7], &one, NULL), -EBADMSG);
}

#define SPACE_BYTES 16384

/* Takes all space but what is left in the journal's own last page. */
static int fill_disk(const char *path)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	static const char page[4096];

	while (fd >= 0 && write(fd, page, sizeof(page)) > 0)
		;
	return fd >= 0 && errno == ENOSPC ? 0 : -1;
}

/* In a child with a mount namespace of its own. Returns 0, or the line that failed; 1: no right to mount. */
static int full_disk(struct place *p)
{
	struct journal *j = NULL;
	struct journal_summary s;
	struct error err = { 0 };
	char filler[256];
	int r = 0;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("journal", p->directory, "tmpfs", 0, "size=16k") < 0)
		return 1;
	snprintf(filler, sizeof(filler), "%s/filler", p->directory);
	if (journal_create(p->directory, &p->id, &subject, &j, &err) < 0 || fill_disk(filler) < 0 ||
	    journal_enter(j, STATE_COPYING, NULL, &err) < 0)
		return __LINE__;
	for (int i = 0; i < SPACE_BYTES / 50 && !r; i++)
		r = journal_note(j, "fact", i, &err);
	if (r != -ENOSPC || !strstr(err.text, "No space left"))
		return __LINE__;
	if (journal_enter(j, STATE_FROZEN, NULL, &err) != -ENOSPC || journal_state(j) != STATE_COPYING)
		return __LINE__;
	if (journal_read(p->directory, &p->id, &s, &err) < 0 || s.state != STATE_COPYING)
		return __LINE__;
	/* What could not be written whole must not spoil what is written when there is space again. */
	if (unlink(filler) < 0 || journal_enter(j, STATE_ABORTED, "no space", &err) < 0)
		return __LINE__;
	if (journal_note(j, "fact", 1, &err) < 0 || journal_read(p->directory, &p->id, &s, &err) < 0)
		return __LINE__;
	if (s.state != STATE_ABORTED || s.torn)
		return __LINE__;
	journal_free(j);
	return 0;
}

static void test_full_disk(void **state)
{
	struct place *p = *state;
	int pipes[2], line = -1, status;
	pid_t child;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	child = fork();
	if (!child) {
		line = full_disk(p);
		_exit(write(pipes[1], &line, sizeof(line)) == sizeof(line) ? 0 : 1);
	}
	close(pipes[1]);
	assert_int_equal(fd_read_full(pipes[0], &line, sizeof(line)), 0);
	close(pipes[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	if (line == 1) {
		print_message("# cannot mount a file system of its own\n");
		skip();
	}
	if (line)
		fail_msg("line %d failed in the child", line);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, place_setup, place_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_records),	      TEST(test_summary),
		TEST(test_existing_id),	      TEST(test_torn),
		TEST(test_torn_first),	      TEST(test_damage_in_the_middle),
		cmocka_unit_test(test_table), TEST(test_refused_transition),
		TEST(test_odd_texts),	      TEST(test_list),
		TEST(test_full_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
