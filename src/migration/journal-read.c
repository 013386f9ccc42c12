/*
 * Reading journals: one, all, one to go on with after a crash; and forgetting old ones. See journal.h. Any thread.
 *
 * Invariant: what was torn or damaged is never taken for a record.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/fd.h"
#include "base/log.h"
#include "migration/journal-internal.h"

/* Somebody drives this migration. Only asked: this takes no lock that could be in somebody's way. */
static bool is_locked(const char *path)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static void copy_member(const json_t *record, const char *key, char *to, size_t size)
{
	const char *text = json_string_value(json_object_get(record, key));

	if (text)
		snprintf(to, size, "%s", text);
}

static void keep_facts(json_t *facts, json_t *record)
{
	const char *note = json_string_value(json_object_get(record, "note"));

	if (note)
		json_object_set(facts, note, json_object_get(record, "value"));
	else
		json_object_update(facts, record);
}

/* One line without its newline; false when it is not a whole record. facts may be NULL. */
static bool summary_take_line(struct journal_summary *s, char *line, json_t *facts)
{
	char *checksum = strrchr(line, ' ');
	json_t *record;
	const char *text;
	uint64_t sum;

	if (!checksum || sscanf(checksum + 1, "%16" SCNx64, &sum) != 1)
		return false;
	*checksum = 0;
	if (XXH3_64bits(line, strlen(line)) != sum)
		return false;
	record = json_loads(line, 0, NULL);
	if (!record)
		return false;
	text = json_string_value(json_object_get(record, "state"));
	if (text) {
		s->state = state_parse(text);
		copy_member(record, "time", s->time, sizeof(s->time));
	}
	text = json_string_value(json_object_get(record, "side"));
	if (text)
		s->side = !strcmp(text, "source") ? SIDE_SOURCE : SIDE_TARGET;
	copy_member(record, "type", s->type, sizeof(s->type));
	copy_member(record, "workload", s->workload, sizeof(s->workload));
	copy_member(record, "peer", s->peer, sizeof(s->peer));
	copy_member(record, "peer_identity", s->peer_identity, sizeof(s->peer_identity));
	copy_member(record, "reason", s->reason, sizeof(s->reason));
	s->records++;
	if (facts)
		keep_facts(facts, record);
	json_decref(record);
	return true;
}

/* The same for all that a journal says; *ret_length: of the whole records. */
static int read_all(const char *directory, const struct uuid *id, struct journal_summary *ret, json_t *facts,
		    size_t *ret_length, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	struct journal_summary s = { .id = *id };
	char path[4096], name[UUID_TEXT_SIZE], *line;
	int r;

	uuid_format(id, name);
	snprintf(path, sizeof(path), "%s/%s/journal", directory, name);
	r = fd_read_file(AT_FDCWD, path, JOURNAL_BYTES_MAX, &text);
	if (r == -ENOENT)
		return error_set(err, ENOENT, "there is no migration %s on this host", name);
	if (r < 0)
		return error_errno(err, -r, "cannot read the journal %s", path);
	*ret_length = 0;
	line = (char *)text.data;
	for (char *end; line && *line; line = end + 1) {
		end = strchr(line, '\n');
		if (end)
			*end = 0;
		/* Only the very last line may be torn: anything else means that somebody changed the file. */
		if (!end || !summary_take_line(&s, line, facts)) {
			s.torn = true;
			if (end && end[1])
				return error_set(err, EBADMSG, "the journal %s is damaged in the middle", path);
			break;
		}
		*ret_length = (size_t)(end + 1 - (char *)text.data);
	}
	/* Zeros at the end are what a crash may leave there; records behind zeros are not. */
	for (; !s.torn && line && line < (char *)text.data + text.length; line++)
		if (*line)
			return error_set(err, EBADMSG, "the journal %s is damaged in the middle", path);
	if (s.state == STATE_INVALID || s.side == SIDE_INVALID)
		return error_set(err, EBADMSG, "the journal %s has no usable record", path);
	s.driven = is_locked(path);
	*ret = s;
	return 0;
}

int journal_read(const char *directory, const struct uuid *id, struct journal_summary *ret, struct error *err)
{
	size_t length;

	return read_all(directory, id, ret, NULL, &length, err);
}

int journal_open(const char *directory, const struct uuid *id, struct journal **ret, struct error *err)
{
	struct journal *j = calloc(1, sizeof(*j));
	struct journal_summary s = { 0 };
	size_t length = 0;
	char path[4096];
	int r;

	if (!j || !(j->facts = json_object())) {
		free(j);
		return error_set(err, ENOMEM, "no memory for a journal");
	}
	uuid_format(id, j->id);
	snprintf(j->place, sizeof(j->place), "%.4000s/%s", directory, j->id);
	snprintf(path, sizeof(path), "%.4080s/journal", j->place);
	j->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (j->fd < 0)
		r = errno == ENOENT ? error_set(err, ENOENT, "there is no migration %s on this host", j->id)
				    : error_errno(err, errno, "cannot open the journal %s", path);
	else if (journal_lock(j->fd) < 0)
		r = error_set(err, EBUSY, "another phaul works on migration %s", j->id);
	else /* under the lock: nobody changes it between reading and going on */
		r = read_all(directory, id, &s, j->facts, &length, err);
	/* What a crash left of a last record would be damage in the middle after the next one. */
	if (!r && ftruncate(j->fd, (off_t)length) < 0)
		r = error_errno(err, errno, "cannot mend the journal %s", path);
	if (r < 0) {
		journal_free(j);
		return r;
	}
	j->side = s.side;
	j->state = s.state;
	j->sequence = s.records;
	*ret = j;
	return 0;
}

const char *journal_place(const struct journal *j)
{
	return j->place;
}

const char *journal_fact(const struct journal *j, const char *key)
{
	const char *text = j->facts ? json_string_value(json_object_get(j->facts, key)) : NULL;

	return text ? text : "";
}

int64_t journal_fact_number(const struct journal *j, const char *key)
{
	return j->facts ? json_integer_value(json_object_get(j->facts, key)) : 0;
}

bool journal_same_boot(const struct journal *j)
{
	char now[BOOT_ID_SIZE];

	boot_id(now);
	return now[0] && !strcmp(now, journal_fact(j, "boot"));
}

enum migration_side journal_side(const struct journal *j)
{
	return j->side;
}

const char *journal_id(const struct journal *j)
{
	return j->id;
}

/* UUIDs of version 7 begin with the milliseconds since 1970. */
static int64_t made_at_s(const struct uuid *id)
{
	uint64_t ms = 0;

	for (int i = 0; i < 6; i++)
		ms = ms << 8 | id->bytes[i];
	return (int64_t)(ms / 1000);
}

static int summary_compare(const void *a, const void *b)
{
	return memcmp(((const struct journal_summary *)a)->id.bytes, ((const struct journal_summary *)b)->id.bytes, 16);
}

/* A crash, or a full disk, came before the first record: nothing had begun. */
static bool is_empty(const char *directory, const char *name)
{
	struct stat st;
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s/journal", directory, name);
	return stat(path, &st) == 0 && !st.st_size && !is_locked(path);
}

int journal_list(const char *directory, struct journal_summary **ret, size_t *ret_n, struct error *err)
{
	_cleanup_closedir_ DIR *dir = opendir(directory);
	struct journal_summary *list = NULL;
	size_t n = 0;
	struct dirent *entry;

	if (!dir && errno != ENOENT)
		return error_errno(err, errno, "cannot read the journals in %s", directory);
	while (dir && (entry = readdir(dir))) {
		struct journal_summary *bigger, one;
		struct error why = { 0 };
		struct uuid id;

		if (!uuid_parse(entry->d_name, &id))
			continue;
		if (journal_read(directory, &id, &one, &why) < 0) {
			if (!is_empty(directory, entry->d_name))
				log_warning("%s", why.text);
			continue;
		}
		bigger = reallocarray(list, n + 1, sizeof(*list));
		if (!bigger) {
			free(list);
			return error_set(err, ENOMEM, "no memory for the list of migrations");
		}
		list = bigger;
		list[n++] = one;
	}
	if (n)
		qsort(list, n, sizeof(*list), summary_compare);
	*ret = list;
	*ret_n = n;
	return 0;
}

static void expire_empty(const char *directory)
{
	_cleanup_closedir_ DIR *dir = opendir(directory);
	int64_t now = (int64_t)time(NULL);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char path[4096];
		struct uuid id;

		if (!uuid_parse(entry->d_name, &id) || !is_empty(directory, entry->d_name) ||
		    now - made_at_s(&id) < EMPTY_KEEP_S)
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		if (dir_remove(path) < 0)
			log_warning("cannot remove the empty journal %s", path);
	}
}

void journal_expire(const char *directory)
{
	_cleanup_free_ struct journal_summary *list = NULL;
	int64_t now = (int64_t)time(NULL);
	struct error err = { 0 };
	size_t n = 0, left = 0;
	char path[4096], id[UUID_TEXT_SIZE];

	expire_empty(directory);
	if (journal_list(directory, &list, &n, &err) < 0) {
		log_warning("%s", err.text);
		return;
	}
	for (size_t i = n; i-- > 0;) {
		int r;

		if (!state_finished(list[i].state) || list[i].driven)
			continue;
		if (++left <= JOURNAL_KEEP && now - made_at_s(&list[i].id) <= JOURNAL_KEEP_S)
			continue;
		uuid_format(&list[i].id, id);
		snprintf(path, sizeof(path), "%s/%s", directory, id);
		r = dir_remove(path);
		if (r < 0)
			log_warning("cannot remove the old journal %s: %s", path, strerror(-r));
	}
}

static void word_path(const char *directory, const struct uuid *id, char *path, size_t size)
{
	char name[UUID_TEXT_SIZE];

	uuid_format(id, name);
	snprintf(path, size, "%s/%s/resolve", directory, name);
}

int journal_say(const char *directory, const struct uuid *id, enum migration_side keep, struct error *err)
{
	const char *word = keep == SIDE_SOURCE ? "source\n" : "target\n";
	char path[4096];
	int r;

	word_path(directory, id, path, sizeof(path));
	r = fd_write_file(AT_FDCWD, path, word, strlen(word), 0600);
	return r < 0 ? error_errno(err, -r, "cannot write %s", path) : 0;
}

enum migration_side journal_word(const char *directory, const struct uuid *id)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[4096];

	word_path(directory, id, path, sizeof(path));
	if (fd_read_file(AT_FDCWD, path, 64, &text) < 0 || buffer_append(&text, "", 1) < 0)
		return SIDE_INVALID;
	if (!strcmp((char *)text.data, "source\n"))
		return SIDE_SOURCE;
	return strcmp((char *)text.data, "target\n") ? SIDE_INVALID : SIDE_TARGET;
}
