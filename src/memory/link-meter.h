/*
 * What a link takes per second, as a thread sees it that makes something and then writes it, in turn.
 *
 * While it makes the next bytes those in the socket leave, so the time spent in writing alone would say too much. Where the link is what is
 * waited for, all of the time counts. Where it is not, no more is known than that the link takes what it gets: the first sample is what
 * writing costs, and then the rate is raised step by step until the link is waited for.
 *
 * Where others want the processors, too, what the thread makes takes longer than its own processor time: so many times is its `wait`. Pure;
 * one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* One write. */
struct link_write {
	uint64_t bytes;
	uint64_t before_ns, after_ns;	      /* when */
	uint64_t before_cpu_ns, after_cpu_ns; /* the thread's processor time then */
	bool waited;			      /* the link had not yet taken what was written before */
};

struct link_meter {
	uint64_t bytes, waited_bytes, write_ns, since_ns; /* since_ns: 0, a pause; the next write begins anew */
	uint64_t last_ns, last_cpu_ns, make_ns, make_cpu_ns;
	uint64_t rate; /* bytes per second; 0: not known yet */
	double wait;   /* 1 and more, once the rate is known */
};

/* After a pause. */
static inline void link_meter_begin(struct link_meter *m)
{
	*m = (struct link_meter){ .rate = m->rate, .wait = m->wait };
}

/* True: the rate is a new one. */
bool link_meter_add(struct link_meter *m, const struct link_write *w);

/* The rate beside the thread's own speed: what a link would carry that is as slow to a thread that has a processor for itself. */
static inline uint64_t link_meter_rate(const struct link_meter *m)
{
	return (uint64_t)((double)m->rate * m->wait);
}
