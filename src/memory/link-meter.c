/*
 * The rate of a link: see link-meter.h. Pure; one thread.
 */
#include "memory/link-meter.h"

#include "base/cleanup.h"

#define FIRST_BYTES (2ULL << 20)
#define SAMPLE_BYTES (8ULL << 20)
#define SAMPLE_NS 100000000ULL /* a narrow link: not only after minutes */
#define RAISED 1.25

static uint64_t per_second(uint64_t bytes, uint64_t ns)
{
	return (uint64_t)((double)bytes * 1e9 / (double)(ns + 1)) + 1;
}

bool link_meter_add(struct link_meter *m, uint64_t bytes, bool waited, uint64_t before_ns, uint64_t after_ns)
{
	uint64_t ns;

	if (!m->since_ns)
		m->since_ns = before_ns;
	m->bytes += bytes;
	m->waited_bytes += waited ? bytes : 0;
	m->write_ns += after_ns - before_ns;
	ns = after_ns - m->since_ns;
	if (m->bytes < (m->rate ? SAMPLE_BYTES : FIRST_BYTES) && ns < SAMPLE_NS)
		return false;
	if (m->waited_bytes > m->bytes / 2)
		m->rate = per_second(m->bytes, ns);
	else if (!m->rate)
		m->rate = per_second(m->bytes, m->write_ns);
	else
		m->rate = MAX(MIN((uint64_t)((double)m->rate * RAISED), per_second(m->bytes, m->write_ns)),
			      MAX(m->rate, per_second(m->bytes, ns)));
	m->bytes = m->waited_bytes = m->write_ns = 0;
	m->since_ns = after_ns;
	return true;
}
