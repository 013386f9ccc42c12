/*
 * The rate of a link: see link-meter.h. Pure; one thread.
 */
#include "memory/link-meter.h"

#include "base/cleanup.h"

#define FIRST_BYTES (2ULL << 20)
#define SAMPLE_BYTES (8ULL << 20)
#define SAMPLE_NS 100000000ULL /* a narrow link: not only after minutes */
#define RAISED 1.25
#define WAIT_MAX 16.0
#define MAKE_NS_MIN 1000000 /* less work tells nothing */

static uint64_t per_second(uint64_t bytes, uint64_t ns)
{
	return (uint64_t)((double)bytes * 1e9 / (double)(ns + 1)) + 1;
}

/* The time between the writes against what of it was spent working. */
static double waits(const struct link_meter *m)
{
	double times = (double)m->make_ns / (double)(m->make_cpu_ns + 1);

	return m->make_cpu_ns < MAKE_NS_MIN ? MAX(m->wait, 1.0) : MAX(MIN(times, WAIT_MAX), 1.0);
}

bool link_meter_add(struct link_meter *m, const struct link_write *w)
{
	uint64_t ns;

	if (!m->since_ns)
		m->since_ns = w->before_ns;
	else
		m->make_ns += w->before_ns - m->last_ns, m->make_cpu_ns += w->before_cpu_ns - m->last_cpu_ns;
	m->last_ns = w->after_ns;
	m->last_cpu_ns = w->after_cpu_ns;
	m->bytes += w->bytes;
	m->waited_bytes += w->waited ? w->bytes : 0;
	m->write_ns += w->after_ns - w->before_ns;
	ns = w->after_ns - m->since_ns;
	if (m->bytes < (m->rate ? SAMPLE_BYTES : FIRST_BYTES) && ns < SAMPLE_NS)
		return false;
	if (m->waited_bytes > m->bytes / 2)
		m->rate = per_second(m->bytes, ns);
	else if (!m->rate)
		m->rate = per_second(m->bytes, m->write_ns);
	else
		m->rate = MAX(MIN((uint64_t)((double)m->rate * RAISED), per_second(m->bytes, m->write_ns)),
			      MAX(m->rate, per_second(m->bytes, ns)));
	m->wait = waits(m);
	link_meter_begin(m);
	m->since_ns = m->last_ns = w->after_ns;
	m->last_cpu_ns = w->after_cpu_ns;
	return true;
}
