/*
 * The rate of a link: see link-meter.h. Pure; one thread.
 */
#include "memory/link-meter.h"

#include "base/cleanup.h"

#define SAMPLE_BYTES (8ULL << 20)
#define SAMPLE_NS 100000000ULL /* a narrow link: not only after minutes */
#define WAITING 8	       /* a part in so many of the time spent in writing: it is waited for */
#define RAISED 2

static uint64_t per_second(uint64_t bytes, uint64_t ns)
{
	return (uint64_t)((double)bytes * 1e9 / (double)(ns + 1)) + 1;
}

bool link_meter_add(struct link_meter *m, uint64_t bytes, uint64_t before_ns, uint64_t after_ns)
{
	uint64_t ns;

	if (!m->since_ns)
		m->since_ns = before_ns;
	m->bytes += bytes;
	m->write_ns += after_ns - before_ns;
	ns = after_ns - m->since_ns;
	if (m->bytes < SAMPLE_BYTES && ns < SAMPLE_NS)
		return false;
	if (m->write_ns >= ns / WAITING)
		m->rate = per_second(m->bytes, ns);
	else if (m->rate)
		m->rate = MAX(m->rate, MIN(m->rate * RAISED, per_second(m->bytes, m->write_ns)));
	else
		m->rate = per_second(m->bytes, m->write_ns);
	m->bytes = m->write_ns = 0;
	m->since_ns = after_ns;
	return true;
}
