/*
 * One side of a file pass, in the background: rsync's half (fs/sync.h), its bytes pumped over a file channel (stream.h).
 *
 * A pass is started, fed if it goes by a list, waited for and ended, all by one thread; what goes on meanwhile has threads of its own. The channel
 * is the pass's until it has ended, and can carry the next one then, unless this one failed.
 */
#pragma once

#include "fs/sync.h"
#include "transport/channel.h"

struct pass;

/* Source. listed: waits for pass_feed(), with both rsyncs started. silence_ms: as in stream.h. tree must stay until the end. */
int pass_send(const struct sync_tree *tree, bool listed, struct channel *channel, int64_t silence_ms, struct pass **ret,
	      struct error *err);

/* The names of a listed pass, taken over. Once. */
int pass_feed(struct pass *p, struct buffer *list, struct error *err);

/* Target: into this path, whatever the source calls it. stay_apart: as in fs/sync.h. */
int pass_receive(const char *path, bool stay_apart, struct channel *channel, int64_t silence_ms, struct pass **ret,
		 struct error *err);

/* 1: it has ended, well or not; 0: the deadline passed; -ECANCELED: cancel_fd (-1: none) became readable. */
int pass_wait(struct pass *p, int cancel_fd, uint64_t deadline_ns, struct error *err);

/* Source, the same: the target has all files of this pass in place (1), or it failed. The rest is that its rsync ends, and says so. */
int pass_wait_placed(struct pass *p, int cancel_fd, uint64_t deadline_ns, struct error *err);

/* How it ended; waits for that. Frees p. ret may be NULL. */
int pass_end(struct pass *p, struct sync_stats *ret, struct error *err);

/* Ends it at once, whatever it is doing. The channel is of no use any more. */
void pass_free(struct pass *p);
