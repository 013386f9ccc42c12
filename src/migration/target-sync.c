/*
 * The target's half of the file passes, and of the question whether a directory is the same on both hosts.
 *
 * A pass goes on in the background (pass.h) from SYNC to SYNC_END, so that one that waits for its list does not hold up what else is asked.
 * Where to is what target_pass_path() says, never the source. Large files may go block by block before the last pass (patcher.h). The last ones have brought all their files when FINISH comes; that their
 * rsyncs end, and well, is waited for before the target is prepared. Invariant: none goes on when something is undone.
 *
 * Threads: that of target.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "migration/shared.h"
#include "migration/target-internal.h"

int target_on_sync(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	const char *path = target_pass_path(t, m->sync->path, err);
	struct channel *channel;
	int r;

	if (!path)
		return -err->number;
	channel = t->fs_channels[m->sync->path];
	if (!channel || t->passes[m->sync->path])
		return error_set(err, EPROTO, "the peer wants to bring files %s",
				 channel ? "that are on their way" : "without a channel for them");
	r = pass_receive(path, t->driver->capabilities & DRIVER_STORAGE_REBOUND, channel, t->options->timeout_ms,
			 &t->passes[m->sync->path], err);
	return r < 0 ? r : session_send_ready(&t->session, err);
}

static const char *tree_path(const void *context, uint32_t i, struct error *err)
{
	return target_pass_path(context, i, err);
}

int target_on_blocks(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	_cleanup_channel_ struct channel *channel = NULL;
	enum frame_channel_kind kind;
	uint32_t index;
	int r = session_send_ready(&t->session, err);

	(void)m;
	if (!r)
		r = target_accept_channel(t, deadline_in_ms(CHANNEL_TIMEOUT_MS), &channel, &kind, &index, err);
	if (r < 0)
		return r;
	if (kind != CHANNEL_KIND_BLOCKS)
		return error_set(err, EPROTO, "%s opened a channel that is not due", channel_peer(channel));
	channel_set_timeout(channel, -1); /* it is used in the freeze only */
	patcher_free(TAKE_PTR(t->patcher));
	return patcher_new(TAKE_PTR(channel), tree_path, t, &t->patcher, err);
}

/* The source's half has ended; a source that lies is not waited for longer than any other silence. */
static int await_end(struct target *t, struct pass **pass, struct error *err)
{
	int r = pass_wait(*pass, t->options->cancel_fd,
			  t->options->timeout_ms < 0 ? DEADLINE_NEVER : deadline_in_ms(t->options->timeout_ms), err);

	if (r == 0)
		r = error_set(err, ETIMEDOUT, "the peer ended a file pass whose files are still coming");
	return r < 0 ? r : pass_end(TAKE_PTR(*pass), NULL, err);
}

int target_on_sync_end(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	Phaul__Wire__SyncDone part = PHAUL__WIRE__SYNC_DONE__INIT;
	CONTROL_OF(reply, sync_done, SYNC_DONE, &part);
	struct pass **pass = &t->passes[m->sync_end->path];
	int r = 0;

	if (!*pass)
		return error_set(err, EPROTO, "the peer ends a file pass that it did not begin");
	if (m->sync_end->unused)
		pass_free(TAKE_PTR(*pass));
	else
		r = await_end(t, pass, err);
	return r < 0 ? r : session_send(&t->session, &reply, err);
}

int target_await_passes(struct target *t, struct error *err)
{
	int r = 0;

	patcher_free(TAKE_PTR(t->patcher));
	for (size_t i = 0; i < MIGRATION_PASSES_MAX && !r; i++)
		if (t->passes[i])
			r = await_end(t, &t->passes[i], err);
	return r;
}

void target_end_passes(struct target *t)
{
	patcher_free(TAKE_PTR(t->patcher));
	for (size_t i = 0; i < MIGRATION_PASSES_MAX; i++) {
		pass_free(TAKE_PTR(t->passes[i]));
		channel_free(TAKE_PTR(t->fs_channels[i]));
	}
}

int target_on_probe(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	Phaul__Wire__ProbeReply part = PHAUL__WIRE__PROBE_REPLY__INIT;
	CONTROL_OF(reply, probe_reply, PROBE_REPLY, &part);
	struct error ignored;
	const char *path = target_pass_path(t, m->probe->path, &ignored);

	part.same = path && shared_seen(path, m->probe->file, m->probe->name.data, m->probe->content.data);
	return session_send(&t->session, &reply, err);
}
