/*
 * The source's half of large files that go block by block (fs/blocks.h): a database that writes here and there, whose files rsync would look
 * through on both hosts while the tasks stand still.
 *
 *   files    which large files were written not long ago is noted: a database writes some of them only now and then
 *   copy     and which are on the lists of the passes
 *   arm      the target says what it has of them: no pass touches them any more but the last one
 *   freeze   each that differs by size or time stamp is read through here, what is not as the target said is sent, and gets the time stamp
 *            that it has here; then the last pass begins, and rsync takes it for the same. All but the content is rsync's as ever
 *
 * Invariant: a file gets its time stamp at the target only when all of it was compared and did not change meanwhile; one that is not known, or
 * not a single file with one name, is left to rsync whole.
 *
 * Threads: that of source.c; source_blocks_final() may be another's, while source.c's waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "fs/blocks.h"
#include "migration/source-internal.h"

#define FILES_MAX 1024		      /* of a tree */
#define SUMS_MAX_BYTES (64ULL << 20)  /* of a tree: 32 GiB of files */
#define RECENT_S 900		      /* beyond the checkpoints of usual databases */
#define RECENT_MAX_BYTES (2ULL << 30) /* of a tree: what is read at the target on the mere chance */

#define CALL(s, request, KIND_NAME, ret, err)                                                                          \
	session_call(&(s)->blocks, request, PHAUL__WIRE__CONTROL__KIND_##KIND_NAME, ret, err)

static ProtobufCBinaryData name_bytes(const struct large_file *f)
{
	return (ProtobufCBinaryData){ .len = strlen(f->name), .data = (uint8_t *)f->name };
}

static struct large_file *find(const struct source_tree *t, const char *name)
{
	for (size_t i = 0; i < t->n_large; i++)
		if (!strcmp(t->large[i].name, name))
			return &t->large[i];
	return NULL;
}

/* Without memory it is rsync's. */
static void note(struct source_tree *t, const char *name)
{
	if (t->n_large >= FILES_MAX || find(t, name) ||
	    array_grow(&t->large, t->n_large, &t->n_large_allocated, 16, sizeof(*t->large)) < 0)
		return;
	t->large[t->n_large] = (struct large_file){ .name = strdup(name) };
	t->n_large += t->large[t->n_large].name != NULL;
}

struct recent {
	struct source_tree *tree;
	uint64_t bytes;
};

static void note_recent(void *context, const char *name, uint64_t size)
{
	struct recent *recent = context;

	if (size > RECENT_MAX_BYTES - recent->bytes)
		return;
	recent->bytes += size;
	note(recent->tree, name);
}

void source_blocks_begin(struct source_tree *t)
{
	struct recent recent = { .tree = t };

	if (!t->file)
		blocks_find(&t->tree, time(NULL) - RECENT_S, note_recent, &recent);
}

void source_blocks_note(struct source_tree *t, const struct buffer *list)
{
	_cleanup_close_ int fd = open(t->tree.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (size_t at = 0; at < list->length; at += strlen((const char *)list->data + at) + 1) {
		const char *name = (const char *)list->data + at;
		struct stat st;

		if (!strncmp(name, "./", 2))
			name += 2;
		if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && blocks_suit(&st))
			note(t, name);
	}
}

/* What the target has is not known any more. */
static void forget(struct source_tree *t)
{
	for (size_t i = 0; i < t->n_large; i++) {
		buffer_free(&t->large[i].sums);
		t->large[i].known = false;
	}
}

void source_blocks_unlink(struct source *s)
{
	for (size_t i = 0; i < s->n_trees; i++)
		forget(&s->trees[i]);
	if (s->blocks.control)
		s->result.bytes_wire += channel_bytes_out(s->blocks.control) + channel_bytes_in(s->blocks.control);
	session_free(&s->blocks);
}

void source_blocks_free(struct source *s)
{
	source_blocks_unlink(s);
	for (size_t i = 0; i < s->n_trees; i++) {
		for (size_t k = 0; k < s->trees[i].n_large; k++)
			free(s->trees[i].large[k].name);
		free(s->trees[i].large);
	}
}

static int open_channel(struct source *s, struct error *err)
{
	Phaul__Wire__Blocks part = PHAUL__WIRE__BLOCKS__INIT;
	CONTROL_OF(request, blocks, BLOCKS, &part);
	int r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_READY, NULL, err);

	return r < 0 ? r : source_open_channel(s, CHANNEL_KIND_BLOCKS, 0, &s->blocks.control, err);
}

static uint64_t sums_bytes(uint64_t size)
{
	return (size + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_SUM_BYTES;
}

/* All of one file's, a span at a time: the other channel must not be silent for long. What has more than `room` bytes of them is rsync's. */
static int ask(struct source *s, uint32_t i, struct large_file *f, uint64_t room, struct error *err)
{
	Phaul__Wire__Sums part = PHAUL__WIRE__SUMS__INIT;
	CONTROL_OF(request, sums, SUMS, &part);
	int r = 0;

	part.path = i;
	part.name = name_bytes(f);
	part.length = MESSAGE_SPAN_MAX;
	for (uint64_t size = 1; part.offset < size && !r; part.offset += part.length) {
		_cleanup_message_ Phaul__Wire__Control *reply = NULL;

		if (fd_wait(s->options->cancel_fd, POLLIN, 0) == 1)
			return error_set(err, ECANCELED, "canceled while files were compared");
		r = CALL(s, &request, SUMS_REPLY, &reply, err);
		if (r < 0 || !reply->sums_reply->patchable || sums_bytes(reply->sums_reply->size) > room)
			break;
		size = reply->sums_reply->size;
		f->size = (int64_t)size;
		f->mtime = (struct timespec){ .tv_sec = reply->sums_reply->mtime_s,
					      .tv_nsec = reply->sums_reply->mtime_ns };
		f->known = true;
		if (buffer_append(&f->sums, reply->sums_reply->sums.data, reply->sums_reply->sums.len) < 0)
			r = error_set(err, ENOMEM, "no memory to compare files");
		if (!r)
			r = source_keep_alive(s, err);
	}
	return r;
}

int source_blocks_arm(struct source *s, struct error *err)
{
	uint64_t began = clock_now_ns();
	size_t files = 0;
	int r = 0;

	for (uint32_t i = 0; i < s->n_trees && !r; i++) {
		struct source_tree *t = &s->trees[i];
		uint64_t bytes = 0;

		forget(t);
		for (size_t k = 0; k < t->n_large && bytes < SUMS_MAX_BYTES && !r; k++) {
			if (!s->blocks.control)
				r = open_channel(s, err);
			if (!r)
				r = ask(s, i, &t->large[k], SUMS_MAX_BYTES - bytes, err);
			bytes += t->large[k].sums.length;
			files += t->large[k].known;
		}
	}
	if (files)
		log_debug("the target said what it has of %zu large files, in %.1f ms", files,
			  (double)(clock_now_ns() - began) / (double)NS_PER_MS);
	return r;
}

struct patch {
	struct source *s;
	uint32_t tree;
	const struct large_file *file;
};

static int send_run(void *context, uint64_t offset, const void *data, size_t length, struct error *err)
{
	Phaul__Wire__Patch part = PHAUL__WIRE__PATCH__INIT;
	CONTROL_OF(message, patch, PATCH, &part);
	const struct patch *p = context;

	part.path = p->tree;
	part.name = name_bytes(p->file);
	part.offset = offset;
	part.data = (ProtobufCBinaryData){ .len = length, .data = (uint8_t *)data };
	p->s->result.sync_patched_bytes += length;
	return session_send(&p->s->blocks, &message, err);
}

static int send_end(const struct patch *p, const struct stat *st, struct error *err)
{
	Phaul__Wire__PatchEnd part = PHAUL__WIRE__PATCH_END__INIT;
	CONTROL_OF(message, patch_end, PATCH_END, &part);

	part.path = p->tree;
	part.name = name_bytes(p->file);
	part.size = (uint64_t)st->st_size;
	part.mtime_s = st->st_mtim.tv_sec;
	part.mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
	p->s->result.sync_patched_files++;
	return session_send(&p->s->blocks, &message, err);
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* One file, if rsync would look through it. */
static int patch_file(const struct patch *p, int directory_fd, struct error *err)
{
	const struct large_file *f = p->file;
	struct stat st, after;
	_cleanup_close_ int fd = blocks_open(directory_fd, f->name, O_RDONLY, &st);
	int r;

	/* Gone, or something else by now; or as it is there. */
	if (fd < 0 || (st.st_size == f->size && same_time(&st.st_mtim, &f->mtime)))
		return 0;
	r = blocks_compare(fd, &f->sums, send_run, (void *)p, err);
	if (r < 0)
		return r;
	/* Somebody beside the workload writes to it: rsync sees what it can. */
	if (fstat(fd, &after) < 0 || after.st_size != st.st_size || !same_time(&after.st_mtim, &st.st_mtim))
		return 0;
	return send_end(p, &st, err);
}

int source_blocks_final(struct source *s, struct source_tree *t, struct error *err)
{
	Phaul__Wire__Ping ping = PHAUL__WIRE__PING__INIT;
	CONTROL_OF(request, ping, PING, &ping);
	struct patch p = { .s = s, .tree = (uint32_t)(t - s->trees) };
	_cleanup_close_ int fd = -1;
	bool any = false;
	int r = 0;

	for (size_t k = 0; k < t->n_large && !r; k++) {
		p.file = &t->large[k];
		if (!p.file->known)
			continue;
		if (fd < 0)
			fd = open(t->tree.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = patch_file(&p, fd, err);
		any = true;
	}
	/* rsync must find it done. */
	if (!r && any)
		r = CALL(s, &request, PING, NULL, err);
	return r;
}
