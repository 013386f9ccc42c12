/*
 * See apart.h. The thread stays until the end, so that it is the one to take the namespace down, for which the kernel waits, and not a process that
 * others wait for.
 */
#include "fs/apart.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

struct apart {
	pthread_t thread;
	int (*start)(void *arg);
	void *arg;
	int result;
	sem_t begun;
	int over[2]; /* the thread waits for the end of this pipe */
};

static void *apart_main(void *arg)
{
	struct apart *a = arg;
	char byte;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		log_debug("no mount namespace of its own for a file pass: %s", strerror(errno));
	a->result = a->start(a->arg);
	sem_post(&a->begun);
	while (read(a->over[0], &byte, 1) < 0 && errno == EINTR)
		;
	return NULL;
}

int apart_begin(int (*start)(void *arg), void *arg, struct apart **ret, struct error *err)
{
	struct apart *a = malloc(sizeof(*a));
	int e;

	if (!a)
		return error_set(err, ENOMEM, "no memory for a thread");
	*a = (struct apart){ .start = start, .arg = arg };
	if (pipe2(a->over, O_CLOEXEC) < 0) {
		e = errno;
		free(a);
		return error_errno(err, e, "cannot make a pipe");
	}
	sem_init(&a->begun, 0, 0);
	e = pthread_create(&a->thread, NULL, apart_main, a);
	if (e) {
		close_fd(&a->over[0]);
		close_fd(&a->over[1]);
		sem_destroy(&a->begun);
		free(a);
		return error_errno(err, e, "cannot start a thread");
	}
	while (sem_wait(&a->begun) < 0 && errno == EINTR)
		;
	*ret = a;
	return a->result;
}

void apart_end(struct apart *a)
{
	if (!a)
		return;
	close_fd(&a->over[1]);
	pthread_join(a->thread, NULL);
	close_fd(&a->over[0]);
	sem_destroy(&a->begun);
	free(a);
}
