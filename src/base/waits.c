/*
 * See waits.h. No state; any thread.
 */
#include "base/waits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"

int waits_read(uint64_t *ret_ran_ns, uint64_t *ret_waited_ns)
{
	_cleanup_close_ int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	unsigned long long ran, waited;
	char text[128];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = 0;
	if (sscanf(text, "%llu %llu", &ran, &waited) != 2)
		return -ENODATA;
	*ret_ran_ns = ran;
	*ret_waited_ns = waited;
	return 0;
}

int machine_ticks_read(struct machine_ticks *ret)
{
	_cleanup_close_ int fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
	unsigned long long user, nice, system, idle, iowait, irq, softirq;
	char text[256];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = 0;
	if (sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &iowait, &irq,
		   &softirq) != 7)
		return -ENODATA;
	*ret = (struct machine_ticks){ .not_nice = user,
				       .busy = user + nice + system + irq + softirq,
				       .idle = idle + iowait };
	return 0;
}
