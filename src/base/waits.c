/*
 * See waits.h. No state; any thread.
 */
#include "base/waits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/fd.h"

int waits_read(uint64_t *ret_ran_ns, uint64_t *ret_waited_ns)
{
	unsigned long long ran, waited;
	char text[128];

	(void)fd_read_head(AT_FDCWD, "/proc/thread-self/schedstat", text, sizeof(text));
	if (sscanf(text, "%llu %llu", &ran, &waited) != 2)
		return -ENODATA;
	*ret_ran_ns = ran;
	*ret_waited_ns = waited;
	return 0;
}

int machine_ticks_read(struct machine_ticks *ret)
{
	unsigned long long user, nice, system, idle, iowait, irq, softirq;
	char text[256];

	(void)fd_read_head(AT_FDCWD, "/proc/stat", text, sizeof(text));
	if (sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &iowait, &irq,
		   &softirq) != 7)
		return -ENODATA;
	*ret = (struct machine_ticks){ .not_nice = user,
				       .busy = user + nice + system + irq + softirq,
				       .idle = idle + iowait };
	return 0;
}
