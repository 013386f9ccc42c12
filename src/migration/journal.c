/*
 * The journal of one migration on one side: see journal.h. One thread per journal.
 *
 * Invariants: the file only grows; the descriptor is at its end; `state` is what the last synced record says. When a record cannot be
 * written whole and synced, the state does not change and the caller must not act on it.
 */
#include "migration/journal-internal.h"

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
	{ SIDE_SOURCE, STATE_PLANNED, STATE_COPYING },
	{ SIDE_SOURCE, STATE_COPYING, STATE_FROZEN },
	{ SIDE_SOURCE, STATE_FROZEN, STATE_COMMITTED },
	{ SIDE_SOURCE, STATE_COMMITTED, STATE_SETTLED },
	{ SIDE_SOURCE, STATE_PLANNED, STATE_ABORTED },
	{ SIDE_SOURCE, STATE_COPYING, STATE_ABORTED },
	{ SIDE_SOURCE, STATE_FROZEN, STATE_ABORTED },
	{ SIDE_TARGET, STATE_PLANNED, STATE_RECEIVING },
	{ SIDE_TARGET, STATE_RECEIVING, STATE_PREPARED },
	{ SIDE_TARGET, STATE_PREPARED, STATE_RESUMING },
	{ SIDE_TARGET, STATE_RESUMING, STATE_RUNNING },
	{ SIDE_TARGET, STATE_PLANNED, STATE_ABORTED },
	{ SIDE_TARGET, STATE_RECEIVING, STATE_ABORTED },
	{ SIDE_TARGET, STATE_PREPARED, STATE_ABORTED },
	/* Only by the word of the other side's journal, of a fence, or of the operator (after.c). */
	{ SIDE_SOURCE, STATE_COMMITTED, STATE_ABORTED },
	/* Only when what was restored was provably never let go, or by the operator. */
	{ SIDE_TARGET, STATE_RESUMING, STATE_ABORTED },
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

bool state_finished(enum migration_state state)
{
	return state == STATE_SETTLED || state == STATE_RUNNING || state == STATE_ABORTED;
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

/* Writes one record; takes `record` over. */
static int journal_write(struct journal *j, json_t *record, bool sync, struct error *err)
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
	if (!r && sync && fsync(j->fd) < 0)
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

static int journal_append(struct journal *j, json_t *record, struct error *err)
{
	return journal_write(j, record, true, err);
}

/* Whoever drives a migration holds this lock; it ends with the last process that has the descriptor. */
int journal_lock(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

void boot_id(char text[BOOT_ID_SIZE])
{
	_cleanup_buffer_ struct buffer b = { 0 };

	text[0] = 0;
	if (fd_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 128, &b) == 0 && b.length >= BOOT_ID_SIZE - 1)
		snprintf(text, BOOT_ID_SIZE, "%.36s", (const char *)b.data);
}

/* json_string() refuses what is not UTF-8: such bytes are shown as '?'. */
static json_t *json_text(const char *text)
{
	char plain[512]; /* longer ones are ours and ASCII */
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
	char boot[BOOT_ID_SIZE];
	json_t *record;
	int r;

	if (!j)
		return error_set(err, ENOMEM, "no memory for a journal");
	j->fd = -1;
	j->side = subject->side;
	uuid_format(id, j->id);
	snprintf(j->place, sizeof(j->place), "%.4000s/%s", directory, j->id);
	r = journal_open_new(directory, j->id, &j->fd, err);
	if (!r && journal_lock(j->fd) < 0)
		r = error_errno(err, errno, "cannot lock the journal of migration %s", j->id);
	if (r < 0)
		goto fail;
	boot_id(boot);
	record = json_object();
	json_object_set_new(record, "version", json_integer(1));
	json_object_set_new(record, "id", json_string(j->id));
	json_object_set_new(record, "side", json_string(subject->side == SIDE_SOURCE ? "source" : "target"));
	json_object_set_new(record, "state", json_string(state_name(STATE_PLANNED)));
	json_object_set_new(record, "type", json_text(subject->type));
	json_object_set_new(record, "workload", json_text(subject->workload));
	json_object_set_new(record, "boot", json_string(boot));
	json_object_set_new(record, "pid", json_integer(getpid()));
	json_object_set_new(record, "peer", json_text(subject->peer));
	json_object_set_new(record, "peer_identity", json_text(subject->peer_identity));
	r = journal_append(j, record, err);
	if (r < 0)
		goto fail;
	j->state = STATE_PLANNED;
	*ret = j;
	return 0;
fail:
	/* Nothing has begun: no journal without a record is left, on a full disk for one. Somebody else's is not ours. */
	if (j->fd >= 0)
		dir_remove(j->place);
	else
		rmdir(j->place); /* does nothing to one that holds something */
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

int journal_note_text(struct journal *j, const char *key, const char *text, struct error *err)
{
	json_t *record = json_object();

	if (!j->facts)
		j->facts = json_object();
	json_object_set_new(j->facts, key, json_text(text));
	json_object_set_new(record, "note", json_string(key));
	json_object_set_new(record, "value", json_text(text));
	return journal_write(j, record, false, err);
}

int journal_mark(struct journal *j, const char *key, struct error *err)
{
	json_t *record = json_object();

	json_object_set_new(record, "note", json_string(key));
	json_object_set_new(record, "value", json_integer(1));
	return journal_write(j, record, false, err);
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
	json_decref(j->facts);
	free(j);
}
