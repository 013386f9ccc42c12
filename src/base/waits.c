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
