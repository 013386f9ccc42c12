/*
 * Something begun where mounts stay as they are: in a mount namespace of its own, which lasts as long as whoever began it wants.
 *
 * Some engines bind their storage onto itself and take that away again whenever a command of theirs finds no container mounted. A
 * process whose directory lies on a mount that is gone does not know any more where it is (getcwd(3): ENOENT), and rsync gives up then.
 */
#pragma once

#include "base/error.h"

struct apart;

/*
 * Runs start(arg) in a thread that has such a namespace, and returns what it returned; processes that it starts are in there, too, as are
 * paths that it opens. Where that cannot be had (no privilege), it runs among the others' mounts. *ret is set in any case but when the
 * thread does not begin.
 */
int apart_begin(int (*start)(void *arg), void *arg, struct apart **ret, struct error *err);

/* Lets go of the namespace; NULL is none. What was started keeps it as long as it runs. */
void apart_end(struct apart *a);
