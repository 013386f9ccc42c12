/*
 * Attaching: beginning to track the writes of a process, of many side by side.
 *
 * To attach is to wait: the process is stopped and let go six times for the two calls it makes for us (inject.c), and each time one of the
 * two sides sleeps. So several are attached at a time, by threads that live only for that. Each deals with processes of its own; of the
 * tracker they only read.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "memory/tracker-internal.h"

#define ATTEMPTS_MAX 3
#define THREADS_MAX 4UL

void tracked_attach(const struct tracker *t, struct tracked *p, const struct maps *maps)
{
	struct error why = { 0 };
	int r;

	if (p->attached || p->attempts >= ATTEMPTS_MAX)
		return;
	r = t->ops->attach(p, maps, &why);
	/* Only what may pass by itself is tried again in later rounds. */
	p->attempts = r == -ETIMEDOUT || r == -EAGAIN ? p->attempts + 1 : ATTEMPTS_MAX;
	if (r < 0)
		tracked_set_reason(p, -r, why.text);
	else
		p->reason_number = 0;
}

struct crew {
	const struct tracker *tracker;
	_Atomic size_t next; /* which of the tracker's processes nobody has taken yet */
};

static void *attach_some(void *argument)
{
	struct crew *crew = argument;
	size_t i;

	while ((i = atomic_fetch_add(&crew->next, 1)) < crew->tracker->n_processes) {
		struct tracked *p = crew->tracker->processes[i];
		_cleanup_maps_ struct maps maps = { 0 };

		/* Whatever is wrong with it, the update that follows says so. */
		if (!p->attached && p->attempts < ATTEMPTS_MAX && maps_read(p->pid, &maps, NULL) == 0)
			tracked_attach(crew->tracker, p, &maps);
	}
	return NULL;
}

void tracked_attach_new(const struct tracker *t)
{
	struct crew crew = { .tracker = t };
	pthread_t threads[THREADS_MAX - 1] = { 0 };
	size_t n_new = 0, n_threads = 0;
	sigset_t all, old;

	for (size_t i = 0; i < t->n_processes; i++)
		n_new += !t->processes[i]->attached && t->processes[i]->attempts < ATTEMPTS_MAX;
	if (n_new < 2) /* the update itself does it */
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (n_threads < MIN(n_new, THREADS_MAX) - 1 &&
	       pthread_create(&threads[n_threads], NULL, attach_some, &crew) == 0)
		n_threads++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	attach_some(&crew);
	for (size_t i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
}
