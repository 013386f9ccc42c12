/*
 * See sync-rig.h.
 */
#include "sync-rig.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"

void *sync_rig_finish(void *context)
{
	struct half *h = context;

	h->result = sync_finish(h->sync, -1, deadline_in_ms(PASS_MS), &h->stats, &h->err);
	return NULL;
}

void sync_rig_pass(const struct sync_tree *from, struct buffer *list, const char *to, struct half *source,
		   struct half *target)
{
	pthread_t thread;
	int ends[2];

	*source = *target = (struct half){ 0 };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(sync_receive_start(to, false, ends[1], &target->sync, &target->err), 0);
	assert_int_equal(sync_send_start(from, list != NULL, ends[0], &source->sync, &source->err), 0);
	assert_int_equal(pthread_create(&thread, NULL, sync_rig_finish, target), 0);
	if (list)
		sync_feed(source->sync, list);
	sync_rig_finish(source);
	pthread_join(thread, NULL);
	sync_free(source->sync);
	sync_free(target->sync);
	close(ends[0]);
	close(ends[1]);
}

void run_pass(const char *from, const char *to, struct half *source, struct half *target)
{
	sync_rig_pass(&(struct sync_tree){ from, NULL }, NULL, to, source, target);
}

void pass_succeeds(const char *from, const char *to, struct half *source)
{
	struct half target;

	run_pass(from, to, source, &target);
	if (source->result || target.result)
		print_error("source: %s\ntarget: %s\n", source->err.text, target.err.text);
	assert_int_equal(source->result, 0);
	assert_int_equal(target.result, 0);
}

void write_file(const char *path, const char *text)
{
	assert_int_equal(fd_write_file(AT_FDCWD, path, text, strlen(text), 0640), 0);
}

void assert_content(const char *path, const char *text)
{
	_cleanup_buffer_ struct buffer b = { 0 };

	assert_int_equal(fd_read_file(AT_FDCWD, path, 65536, &b), 0);
	assert_int_equal(b.length, strlen(text));
	assert_memory_equal(b.data, text, b.length);
}

const char *in(const char *dir, const char *name)
{
	static char places[8][256];
	static int turn;

	turn = (turn + 1) % 8;
	snprintf(places[turn], sizeof(places[turn]), "%s/%s", dir, name);
	return places[turn];
}

int sync_rig_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	snprintf(f->top, sizeof(f->top), "/var/tmp/phaul-sync-XXXXXX");
	assert_non_null(mkdtemp(f->top));
	snprintf(f->source, sizeof(f->source), "%s/source", f->top);
	snprintf(f->target, sizeof(f->target), "%s/target", f->top);
	assert_int_equal(mkdir(f->source, 0755), 0);
	*state = f;
	return 0;
}

int sync_rig_teardown(void **state)
{
	struct fixture *f = *state;
	int r = dir_remove(f->top);

	free(f);
	return r;
}
