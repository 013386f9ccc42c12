/*
 * See breakpoints.h. No state; any thread. Source: perf_event_open(2), PERF_COUNT_SW_DUMMY.
 */
#include "criu/breakpoints.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

int breakpoints_prepare(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
					.size = sizeof(attr),
					.config = PERF_COUNT_SW_DUMMY,
					.disabled = 1,
					.exclude_kernel = 1,
					.exclude_hv = 1 };
	int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		log_debug("CRIU's first breakpoint will take longer: %s", strerror(errno));
	return fd;
}
