/*
 * Unit tests of the target against a source that breaks the protocol: a real session over a socket pair, nothing is restored.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/fd.h"
#include "migration/migration.h"
#include "migration/session.h"

#define PATIENCE_MS 20000

struct world {
	char directory[64];
	struct session source;
	struct channel *target;
	struct target_options options;
	pthread_t thread;
	int result;
};

static void *target_main(void *arg)
{
	static const uint8_t route[ROUTE_BYTES] = { 1 };
	struct world *w = arg;
	struct error err = { 0 };

	w->result = target_run(w->target, NULL, route, &w->options, &err);
	return NULL;
}

static int world_setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	int fds[2];

	strcpy(w->directory, "/tmp/phaul-target.XXXXXX");
	assert_non_null(mkdtemp(w->directory));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(channel_new_plain(fds[0], fds[0], "beta", &w->source.control, NULL), 0);
	assert_int_equal(channel_new_plain(fds[1], fds[1], "alpha", &w->target, NULL), 0);
	channel_set_timeout(w->source.control, PATIENCE_MS);
	w->options = (struct target_options){ .state_directory = w->directory,
					      .run_directory = w->directory,
					      .timeout_ms = PATIENCE_MS,
					      .cancel_fd = -1 };
	assert_int_equal(pthread_create(&w->thread, NULL, target_main, w), 0);
	*state = w;
	return 0;
}

static int world_teardown(void **state)
{
	struct world *w = *state;

	session_free(&w->source);
	pthread_join(w->thread, NULL);
	assert_int_equal(dir_remove(w->directory), 0);
	free(w);
	return 0;
}

static void greet(struct world *w)
{
	static uint8_t id[16] = { 7 };
	Phaul__Wire__Hello hello = PHAUL__WIRE__HELLO__INIT;
	CONTROL_OF(request, hello, HELLO, &hello);
	struct error err = { 0 };

	hello.version = hello.lowest_version = FRAME_VERSION;
	hello.migration_id = (ProtobufCBinaryData){ .data = id, .len = sizeof(id) };
	hello.purpose = PHAUL__WIRE__PURPOSE__PURPOSE_MIGRATE;
	if (session_call(&w->source, &request, PHAUL__WIRE__CONTROL__KIND_HELLO_REPLY, NULL, &err) < 0)
		fail_msg("%s", err.text);
}

/* A plan for a type of workload that no driver knows, with as many paths as a plan may have. */
static int send_plan(struct world *w, struct error *err)
{
	static char paths[MIGRATION_SYNC_PATHS_MAX][32], *pointers[MIGRATION_SYNC_PATHS_MAX];
	Phaul__Wire__Workload workload = PHAUL__WIRE__WORKLOAD__INIT;
	Phaul__Wire__Plan plan = PHAUL__WIRE__PLAN__INIT;
	CONTROL_OF(request, plan, PLAN, &plan);

	for (size_t i = 0; i < MIGRATION_SYNC_PATHS_MAX; i++) {
		snprintf(paths[i], sizeof(paths[i]), "/srv/path-%zu", i);
		pointers[i] = paths[i];
	}
	workload.type = (char *)"jail";
	workload.id = (char *)"1";
	workload.root_pid = 1;
	plan.workload = &workload;
	plan.sync_paths = pointers;
	plan.n_sync_paths = MIGRATION_SYNC_PATHS_MAX;
	return session_call(&w->source, &request, PHAUL__WIRE__CONTROL__KIND_PLAN_REPLY, NULL, err);
}

static void test_two_plans(void **state)
{
	struct world *w = *state;
	struct error err = { 0 };

	greet(w);
	if (send_plan(w, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(send_plan(w, &err), -EPROTO);
	assert_non_null(strstr(err.text, "two plans"));
}

static void test_no_greeting(void **state)
{
	struct world *w = *state;
	struct error err = { 0 };

	assert_int_equal(send_plan(w, &err), -EPROTO);
	assert_non_null(strstr(err.text, "not with a greeting"));
}

static void test_begin_without_driver(void **state)
{
	Phaul__Wire__Begin begin = PHAUL__WIRE__BEGIN__INIT;
	CONTROL_OF(request, begin, BEGIN, &begin);
	struct world *w = *state;
	struct error err = { 0 };

	greet(w);
	if (send_plan(w, &err) < 0)
		fail_msg("%s", err.text);
	begin.data_channels = 1;
	assert_int_equal(session_call(&w->source, &request, PHAUL__WIRE__CONTROL__KIND_READY, NULL, &err), -EPROTO);
	assert_non_null(strstr(err.text, "without a plan"));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(test_two_plans), TEST(test_no_greeting),
					    TEST(test_begin_without_driver) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
