/*
 * The journal of one migration on one side: see journal.h. One thread per journal.
 *
 * Invariants: the file only grows; the descriptor is at its end; `state` is what the last synced record says. When a record cannot be
 * written whole and synced, the state does not change and the caller must not act on it.
 */
#include "migration/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/fd.h"
#include "base/log.h"

#define JOURNAL_BYTES_MAX (1U << 20)

struct journal {
	int fd;
	uint64_t sequence;
	enum migration_side side;
	enum migration_state state;
	char id[UUID_TEXT_SIZE];
};

static const char *const state_names[STATE_MAX] = {
	[STATE_PLANNED] = "planned",	 [STATE_COPYING] = "copying",	[STATE_FROZEN] = "frozen",
	[STATE_COMMITTED] = "committed", [STATE_SETTLED] = "settled",	[STATE_RECEIVING] = "receiving",
	[STATE_PREPARED] = "prepared",	 [STATE_RESUMING] = "resuming", [STATE_RUNNING] = "running",
	[STATE_ABORTED] = "aborted",
};

/* The table of handover.md: what may follow what. */
static const struct {
	enum migration_side side;
	enum migration_state from, to;
} state_transitions[] = {
	{ SIDE_SOURCE, STATE_PLANNED, STATE_COPYING },	  { SIDE_SOURCE, STATE_COPYING, STATE_FROZEN },
	{ SIDE_SOURCE, STATE_FROZEN, STATE_COMMITTED },	  { SIDE_SOURCE, STATE_COMMITTED, STATE_SETTLED },
	{ SIDE_SOURCE, STATE_PLANNED, STATE_ABORTED },	  { SIDE_SOURCE, STATE_COPYING, STATE_ABORTED },
	{ SIDE_SOURCE, STATE_FROZEN, STATE_ABORTED },	  { SIDE_TARGET, STATE_PLANNED, STATE_RECEIVING },
	{ SIDE_TARGET, STATE_RECEIVING, STATE_PREPARED }, { SIDE_TARGET, STATE_PREPARED, STATE_RESUMING },
	{ SIDE_TARGET, STATE_RESUMING, STATE_RUNNING },	  { SIDE_TARGET, STATE_PLANNED, STATE_ABORTED },
	{ SIDE_TARGET, STATE_RECEIVING, STATE_ABORTED },  { SIDE_TARGET, STATE_PREPARED, STATE_ABORTED },
};

const char *state_name(enum migration_state state)
{
	return state > STATE_INVALID && state < STATE_MAX ? state_names[state] : "invalid";
}

enum migration_state state_parse(const char *name)
{
	for (int s = STATE_INVALID + 1; s < STATE_MAX; s++)
		if (!strcmp(name, state_names[s]))
			return (enum migration_state)s;
	return STATE_INVALID;
}

bool state_may_follow(enum migration_side side, enum migration_state from, enum migration_state to)
{
	for (size_t i = 0; i < ARRAY_SIZE(state_transitions); i++)
		if (state_transitions[i].side == side && state_transitions[i].from == from &&
		    state_transitions[i].to == to)
			return true;
	return false;
}

static void timestamp(char text[40])
{
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(text, 40, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, 40 - n, ".%03ldZ", now.tv_nsec / 1000000);
}

/* Writes one record, synced; takes `record` over. */
static int journal_append(struct journal *j, json_t *record, struct error *err)
{
	_cleanup_buffer_ struct buffer line = { 0 };
	_cleanup_free_ char *text = NULL;
	off_t before = lseek(j->fd, 0, SEEK_END);
	char time[40];
	int r = 0;

	timestamp(time);
	json_object_set_new(record, "sequence", json_integer((json_int_t)j->sequence));
	json_object_set_new(record, "time", json_string(time));
	text = json_dumps(record, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII);
	json_decref(record);
	if (!text || buffer_printf(&line, "%s %016" PRIx64 "\n", text, (uint64_t)XXH3_64bits(text, strlen(text))) < 0)
		return error_set(err, ENOMEM, "no memory for a record of the journal");
	r = fd_write_full(j->fd, line.data, line.length);
	if (!r && fsync(j->fd) < 0)
		r = -errno;
	if (r < 0) {
		/* A torn record may only be the last one: the next would make of it damage in the middle. */
		if (before >= 0 && ftruncate(j->fd, before) < 0)
			log_warning("cannot take back a torn record of migration %s: %m", j->id);
		return error_errno(err, -r, "cannot write the journal of migration %s", j->id);
	}
	j->sequence++;
	return 0;
}

/* json_string() refuses what is not UTF-8: such bytes are shown as '?'. */
static json_t *json_text(const char *text)
{
	char plain[512];
	json_t *value;
	size_t i = 0;

	text = text ? text : "";
	value = json_string(text);
	if (value)
		return value;
	for (; i < sizeof(plain) - 1 && text[i]; i++)
		plain[i] = (unsigned char)text[i] < 128 ? text[i] : '?';
	plain[i] = 0;
	return json_string(plain);
}

static int journal_open_new(const char *directory, const char *id, int *ret_fd, struct error *err)
{
	_cleanup_close_ int dir = -1;
	char path[4096];
	int r;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, id) >= sizeof(path))
		return error_set(err, ENAMETOOLONG, "the journal directory's name is too long: %s", directory);
	r = dir_make(path, 0700);
	if (r < 0)
		return error_errno(err, -r, "cannot make the journal directory %s", path);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return error_errno(err, errno, "cannot open the journal directory %s", path);
	*ret_fd = openat(dir, "journal", O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (*ret_fd < 0)
		return error_errno(err, errno, "cannot make the journal %s/journal", path);
	if (fsync(dir) < 0)
		return error_errno(err, errno, "cannot sync the journal directory %s", path);
	return 0;
}

int journal_create(const char *directory, const struct uuid *id, const struct journal_subject *subject,
		   struct journal **ret, struct error *err)
{
	struct journal *j = calloc(1, sizeof(*j));
	json_t *record;
	int r;

	if (!j)
		return error_set(err, ENOMEM, "no memory for a journal");
	j->fd = -1;
	j->side = subject->side;
	uuid_format(id, j->id);
	r = journal_open_new(directory, j->id, &j->fd, err);
	if (r < 0)
		goto fail;
	record = json_object();
	json_object_set_new(record, "version", json_integer(1));
	json_object_set_new(record, "id", json_string(j->id));
	json_object_set_new(record, "side", json_string(subject->side == SIDE_SOURCE ? "source" : "target"));
	json_object_set_new(record, "state", json_string(state_name(STATE_PLANNED)));
	json_object_set_new(record, "type", json_text(subject->type));
	json_object_set_new(record, "workload", json_text(subject->workload));
	json_object_set_new(record, "peer", json_text(subject->peer));
	json_object_set_new(record, "peer_identity", json_text(subject->peer_identity));
	r = journal_append(j, record, err);
	if (r < 0)
		goto fail;
	j->state = STATE_PLANNED;
	*ret = j;
	return 0;
fail:
	journal_free(j);
	return r;
}

int journal_enter(struct journal *j, enum migration_state state, const char *reason, struct error *err)
{
	json_t *record;
	int r;

	if (!state_may_follow(j->side, j->state, state))
		return error_set(err, EINVAL, "migration %s cannot go from %s to %s", j->id, state_name(j->state),
				 state_name(state));
	record = json_object();
	json_object_set_new(record, "state", json_string(state_name(state)));
	if (reason)
		json_object_set_new(record, "reason", json_text(reason));
	r = journal_append(j, record, err);
	if (r < 0)
		return r;
	log_debug("migration %s: %s -> %s%s%s", j->id, state_name(j->state), state_name(state), reason ? ": " : "",
		  reason ? reason : "");
	j->state = state;
	return 0;
}

int journal_note(struct journal *j, const char *key, int64_t value, struct error *err)
{
	json_t *record = json_object();

	json_object_set_new(record, "note", json_string(key));
	json_object_set_new(record, "value", json_integer(value));
	return journal_append(j, record, err);
}

enum migration_state journal_state(const struct journal *j)
{
	return j->state;
}

void journal_free(struct journal *j)
{
	if (!j)
		return;
	close_fd(&j->fd);
	free(j);
}

static void copy_member(const json_t *record, const char *key, char *to, size_t size)
{
	const char *text = json_string_value(json_object_get(record, key));

	if (text)
		snprintf(to, size, "%s", text);
}

/* One line without its newline; false when it is not a whole record. */
static bool summary_take_line(struct journal_summary *s, char *line)
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
	json_decref(record);
	return true;
}

int journal_read(const char *directory, const struct uuid *id, struct journal_summary *ret, struct error *err)
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
	line = (char *)text.data;
	for (char *end; line && *line; line = end + 1) {
		end = strchr(line, '\n');
		if (end)
			*end = 0;
		/* Only the very last line may be torn: anything else means that somebody changed the file. */
		if (!end || !summary_take_line(&s, line)) {
			s.torn = true;
			if (end && end[1])
				return error_set(err, EBADMSG, "the journal %s is damaged in the middle", path);
			break;
		}
	}
	/* Zeros at the end are what a crash may leave there; records behind zeros are not. */
	for (; !s.torn && line && line < (char *)text.data + text.length; line++)
		if (*line)
			return error_set(err, EBADMSG, "the journal %s is damaged in the middle", path);
	if (s.state == STATE_INVALID || s.side == SIDE_INVALID)
		return error_set(err, EBADMSG, "the journal %s has no usable record", path);
	*ret = s;
	return 0;
}

static int summary_compare(const void *a, const void *b)
{
	return memcmp(((const struct journal_summary *)a)->id.bytes, ((const struct journal_summary *)b)->id.bytes, 16);
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
