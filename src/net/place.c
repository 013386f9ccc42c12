/*
 * Network namespaces and what is in them: see place.h. No state; any thread.
 *
 * setns(2) changes the calling thread only, so a thread of its own goes there: nothing can leave the caller in the wrong place.
 */
#include "net/place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/fd.h"

int net_place_open_path(const char *path, struct net_place *ret, struct error *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return error_errno(err, errno, "cannot open the network namespace %s", path);
	if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
		return error_set(err, EINVAL, "%s is not a network namespace", path);
	ret->netns_fd = TAKE_FD(fd);
	return 0;
}

int net_place_open_pid(pid_t pid, struct net_place *ret, struct error *err)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	return net_place_open_path(path, ret, err);
}

void net_place_close(struct net_place *place)
{
	if (place)
		close_fd(&place->netns_fd);
}

int net_place_is_own(const struct net_place *place, struct error *err)
{
	struct stat own, other;

	if (!place || place->netns_fd < 0)
		return 1;
	if (stat("/proc/thread-self/ns/net", &own) < 0 || fstat(place->netns_fd, &other) < 0)
		return error_errno(err, errno, "cannot compare network namespaces");
	return own.st_dev == other.st_dev && own.st_ino == other.st_ino;
}

struct visit {
	int netns_fd;
	int (*work)(void *context, struct error *err);
	void *context;
	int result;
	struct error error;
};

static void *visit_thread(void *context)
{
	struct visit *v = context;

	if (setns(v->netns_fd, CLONE_NEWNET) < 0)
		v->result = error_errno(&v->error, errno, "cannot enter a network namespace");
	else
		v->result = v->work(v->context, &v->error);
	return NULL;
}

int net_place_call(const struct net_place *place, int (*work)(void *context, struct error *err), void *context,
		   struct error *err)
{
	struct visit v = { .netns_fd = place ? place->netns_fd : -1, .work = work, .context = context };
	sigset_t all, before;
	pthread_t thread;
	int r;

	if (v.netns_fd < 0)
		return work(context, err);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, NULL, visit_thread, &v);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		return error_errno(err, r, "cannot start a thread to enter a network namespace");
	pthread_join(thread, NULL);
	if (v.result < 0 && err)
		*err = v.error;
	return v.result;
}

struct announcing {
	const struct net_place_address *addresses;
	size_t n;
};

static int announce_these(void *context, struct error *err)
{
	const struct announcing *a = context;
	struct error later;
	int first = 0;

	for (size_t i = 0; i < a->n; i++) {
		const struct net_place_address *one = &a->addresses[i];
		int r = one->up && !one->tentative ? net_address_announce(&one->address, first ? &later : err) : 0;

		if (!first)
			first = r;
	}
	return first;
}

int net_announce_all(const struct net_place *place, struct error *err)
{
	_cleanup_free_ struct net_place_address *list = NULL;
	struct announcing a = { 0 };
	int r = net_place_addresses(place, &list, &a.n, err);

	a.addresses = list;
	return r < 0 ? r : net_place_call(place, announce_these, &a, err);
}
