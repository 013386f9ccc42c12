/*
 * What a link takes per second, as a thread sees it that makes something and then writes it, in turn.
 *
 * While it makes the next bytes those in the socket leave, so the time spent in writing alone would say too much. Where the link is what is
 * waited for, all of the time counts. Where it is not, no more is known than that the link takes what it gets: the first sample is what
 * writing costs, and then the rate is raised step by step until the link is waited for. Pure; one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct link_meter {
	uint64_t bytes, waited_bytes, write_ns, since_ns; /* since_ns: 0, a pause; the next write begins anew */
	uint64_t rate;					  /* bytes per second; 0: not known yet */
};

/* After a pause. */
static inline void link_meter_begin(struct link_meter *m)
{
	m->bytes = m->waited_bytes = m->write_ns = m->since_ns = 0;
}

/* These bytes were written from before_ns to after_ns; waited: the link had not yet taken what was written before. True: the rate is
 * a new one. */
bool link_meter_add(struct link_meter *m, uint64_t bytes, bool waited, uint64_t before_ns, uint64_t after_ns);
