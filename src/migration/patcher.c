/*
 * The target's side of large files that go block by block: see patcher.h.
 *
 * The thread owns the session; the caller only breaks the channel and joins. Invariants: a file is reached from the path that this host chose, without
 * following a symbolic link; only a regular file with one name is read or written; its time stamp is set last, so that one that
 * was not finished is looked at by rsync.
 */
#include "migration/patcher.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "fs/blocks.h"
#include "migration/session.h"

#define KIND(name) PHAUL__WIRE__CONTROL__KIND_##name

struct patcher {
	struct session session;
	patcher_path_fn path;
	const void *context;
	pthread_t thread;
	/* The file that was spoken of last, open for writing. */
	uint32_t tree;
	char *name;
	int fd;
	struct stat st;
};

static void close_file(struct patcher *p)
{
	close_fd(&p->fd);
	free(TAKE_PTR(p->name));
}

/* The file is p->fd; 0: it is not one that can be patched. Negative errno. */
static int open_file(struct patcher *p, uint32_t tree, const ProtobufCBinaryData *name, struct error *err)
{
	_cleanup_close_ int root = -1, directory = -1;
	const char *path;

	if (p->name && p->tree == tree && strlen(p->name) == name->len && !memcmp(p->name, name->data, name->len))
		return 1;
	close_file(p);
	path = p->path(p->context, tree, err);
	if (!path)
		return -err->number;
	p->tree = tree;
	p->name = strndup((const char *)name->data, name->len);
	if (!p->name)
		return error_set(err, ENOMEM, "no memory to patch a file");
	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	directory = fd_open_beneath(root, path + strspn(path, "/"), O_RDONLY | O_DIRECTORY, 0);
	p->fd = directory < 0 ? directory : blocks_open(directory, p->name, O_RDWR, &p->st);
	if (p->fd >= 0)
		return 1;
	log_debug("%s/%s is not patched: %s", path, p->name, strerror(-p->fd));
	close_file(p);
	return 0;
}

static int failed(const struct patcher *p, int number, const char *what, struct error *err)
{
	return error_errno(err, number, "cannot %s %s at the target", what, p->name);
}

static int on_sums(struct patcher *p, const Phaul__Wire__Control *control, struct error *err)
{
	const Phaul__Wire__Sums *m = control->sums;
	Phaul__Wire__SumsReply part = PHAUL__WIRE__SUMS_REPLY__INIT;
	CONTROL_OF(reply, sums_reply, SUMS_REPLY, &part);
	_cleanup_buffer_ struct buffer sums = { 0 };
	int r = open_file(p, m->path, &m->name, err), summed;

	if (r < 0)
		return r;
	if (r) {
		summed = blocks_sum(p->fd, m->offset, m->length, &sums);
		if (summed < 0)
			return failed(p, -summed, "read", err);
		part.patchable = true;
		part.size = (uint64_t)p->st.st_size;
		part.mtime_s = p->st.st_mtim.tv_sec;
		part.mtime_ns = (uint32_t)p->st.st_mtim.tv_nsec;
		part.sums.data = sums.data;
		part.sums.len = sums.length;
	}
	return session_send(&p->session, &reply, err);
}

/* It was patchable when it was asked for, and nobody else writes here. */
static int open_known(struct patcher *p, uint32_t tree, const ProtobufCBinaryData *name, struct error *err)
{
	int r = open_file(p, tree, name, err);

	return r ? MIN(r, 0)
		 : error_set(err, ESTALE, "the file %.*s cannot be patched at the target any more", (int)name->len,
			     (const char *)name->data);
}

static int on_patch(struct patcher *p, const Phaul__Wire__Control *control, struct error *err)
{
	const Phaul__Wire__Patch *m = control->patch;
	int r = open_known(p, m->path, &m->name, err);

	for (size_t done = 0; done < m->data.len && !r;) {
		ssize_t n = pwrite(p->fd, m->data.data + done, m->data.len - done, (off_t)(m->offset + done));

		if (n < 0 && errno != EINTR)
			r = failed(p, errno, "write to", err);
		done += n > 0 ? (size_t)n : 0;
	}
	return r;
}

static int on_patch_end(struct patcher *p, const Phaul__Wire__Control *control, struct error *err)
{
	const Phaul__Wire__PatchEnd *m = control->patch_end;
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = m->mtime_s, .tv_nsec = m->mtime_ns } };
	int r = open_known(p, m->path, &m->name, err);

	if (r < 0)
		return r;
	if (ftruncate(p->fd, (off_t)m->size) < 0)
		return failed(p, errno, "set the length of", err);
	if (futimens(p->fd, times) < 0)
		return failed(p, errno, "set the time of", err);
	close_file(p);
	return 0;
}

/* All before it is in place. */
static int on_ping(struct patcher *p, const Phaul__Wire__Control *control, struct error *err)
{
	return session_send(&p->session, control, err);
}

static const struct {
	Phaul__Wire__Control__KindCase kind;
	int (*handle)(struct patcher *p, const Phaul__Wire__Control *control, struct error *err);
} table[] = {
	{ KIND(SUMS), on_sums },
	{ KIND(PATCH), on_patch },
	{ KIND(PATCH_END), on_patch_end },
	{ KIND(PING), on_ping },
};

static int answer(struct patcher *p, const Phaul__Wire__Control *m, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].kind == m->kind_case)
			return table[i].handle(p, m, err);
	return error_set(err, EPROTO, "the peer sent %s on the channel of large files", message_name(m->kind_case));
}

/* 1: the channel has ended. */
static int serve_one(struct patcher *p, struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *m = NULL;
	struct error ended = { 0 };
	struct frame_header header;
	int r;

	if (session_read_frame(&p->session, &header, &ended) < 0)
		return 1;
	if (header.type != FRAME_CONTROL)
		return error_set(err, EPROTO, "the peer sent a frame of type %d on the channel of large files",
				 (int)header.type);
	r = message_decode(p->session.body.data, p->session.body.length, &m, err);
	return r < 0 ? r : answer(p, m, err);
}

static void *patcher_main(void *arg)
{
	struct patcher *p = arg;
	struct error err = { 0 }, ignored = { 0 };
	struct frame_header header;
	int r = 0;

	while (!r)
		r = serve_one(p, &err);
	if (r < 0) {
		log_warning("%s", err.text);
		(void)session_send_failure(&p->session, "files", &err, &ignored);
		/* Closing with unread bytes would take our word back: until the source has heard it. */
		while (session_read_frame(&p->session, &header, &ignored) == 0)
			;
	}
	return NULL;
}

int patcher_new(struct channel *channel, patcher_path_fn path, const void *context, struct patcher **ret,
		struct error *err)
{
	struct patcher *p = calloc(1, sizeof(*p));
	int r = ENOMEM;

	if (p) {
		*p = (struct patcher){ .session = { .control = channel }, .path = path, .context = context, .fd = -1 };
		r = pthread_create(&p->thread, NULL, patcher_main, p);
	}
	if (r) {
		channel_free(channel);
		free(p);
		return error_errno(err, r, "cannot start a thread for large files");
	}
	*ret = p;
	return 0;
}

void patcher_free(struct patcher *p)
{
	if (!p)
		return;
	channel_shutdown(p->session.control);
	pthread_join(p->thread, NULL);
	close_file(p);
	session_free(&p->session);
	free(p);
}
