/*
 * Whether copying spares the workload: a workload that uses processors is slowed by everything that runs beside it where they are short, and the first
 * round, which is all of memory, may take its time (base/gentle.h: the senders rest). One that sleeps has nothing of that, and is copied as fast as it goes.
 *
 * Threads: that of source.c.
 */
#include "base/clock.h"
#include "base/process.h"
#include "migration/source-internal.h"

#define BUSY_PART 10	  /* of a processor, the inverse: who uses less is not slowed to speak of */
#define LOOK_MS 400	  /* the kernel counts in steps of 10 ms */
#define PROCESSES_MAX 256 /* to look at more takes too long */

int source_spare_look(struct source *s, struct error *err)
{
	_cleanup_free_ pid_t *pids = NULL, *image_pids = NULL;
	uint64_t now = clock_now_ns(), cpu = 0, passed = now - s->spare_looked_ns;
	size_t n;
	int r;

	if (s->round != 1 || s->n_processes > PROCESSES_MAX || (s->spare_looked_ns && passed < LOOK_MS * NS_PER_MS))
		return 0;
	r = s->driver->processes(&s->workload, &pids, &image_pids, &n, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		cpu += process_cpu_ns(pids[i]);
	/* With a process less the sum may be less. */
	if (s->spare_looked_ns)
		sender_set_sparing(s->sender, cpu > s->spare_cpu_ns && (cpu - s->spare_cpu_ns) * BUSY_PART > passed);
	s->spare_looked_ns = now;
	s->spare_cpu_ns = cpu;
	return 0;
}
