/*
 * See net-internal.h. Threads: any; each descriptor has one of its own for the time that its end takes.
 */
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

#include "base/fd.h"
#include "net/net-internal.h"

static void *close_it(void *fd)
{
	close((int)(intptr_t)fd);
	return NULL;
}

void net_packet_close(int *fd)
{
	pthread_t thread;

	if (*fd >= 0 && pthread_create(&thread, NULL, close_it, (void *)(intptr_t)*fd) == 0) {
		pthread_detach(thread);
		*fd = -1;
	}
	close_fd(fd);
}
