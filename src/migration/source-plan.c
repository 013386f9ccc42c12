/*
 * The source before anything is touched: describe the workload, reach the target, make the plan.
 *
 * Invariant: nothing in this file changes the workload, the network or the target.
 *
 * Threads: that of source.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "fs/sync.h"
#include "migration/convert.h"
#include "migration/source-internal.h"
#include "migration/work-directory.h"

#define DIAL_TIMEOUT_MS 10000
#define ENGINE_MS 60000

static int check_page_size(struct error *err)
{
	long bytes = sysconf(_SC_PAGESIZE);

	if (bytes != (long)PAGE_BYTES)
		return error_set(err, ENOTSUP, "this kernel uses pages of %ld bytes; phaul moves only 4096", bytes);
	return 0;
}

int source_stage_describe(struct source *s, struct error *err)
{
	const struct migration_options *o = s->options;
	int r;

	if (geteuid() != 0)
		return error_set(err, EPERM, "phaul must run as root to freeze, read and stop other processes");
	r = check_page_size(err);
	if (r < 0)
		return r;
	s->driver = driver_find(o->type);
	if (!s->driver)
		return error_set(err, EINVAL, "there is no driver for workloads of type \"%s\"", o->type);
	return s->driver->describe(o->id, &s->driver_options, &s->workload, err);
}

static int open_channel(struct source *s, const uint8_t *route, struct channel **ret, struct error *err)
{
	struct dial_options dial = { .identity = s->identity,
				     .timeout_ms = MIN(s->options->timeout_ms, (int64_t)DIAL_TIMEOUT_MS),
				     .cancel_fd = s->options->cancel_fd };
	int r = endpoint_dial(&s->options->target, &dial, route, ret, err);

	if (r < 0)
		return r;
	channel_set_timeout(*ret, s->options->timeout_ms);
	channel_set_cancel_fd(*ret, s->options->cancel_fd);
	return 0;
}

void source_engine_patience(struct source *s, bool patient)
{
	if (s->driver->prepare && s->options->timeout_ms >= 0)
		channel_set_timeout(s->session.control, s->options->timeout_ms + (patient ? ENGINE_MS : 0));
}

static int say_hello(struct source *s, struct error *err)
{
	Phaul__Wire__Hello hello = PHAUL__WIRE__HELLO__INIT;
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	struct utsname name;
	CONTROL_OF(request, hello, HELLO, &hello);
	int r;

	uname(&name);
	hello.version = hello.lowest_version = FRAME_VERSION;
	hello.software = (char *)PHAUL_VERSION;
	hello.migration_id.data = s->result.id.bytes;
	hello.migration_id.len = sizeof(s->result.id.bytes);
	hello.host = name.nodename;
	hello.purpose =
		s->options->check_only ? PHAUL__WIRE__PURPOSE__PURPOSE_CHECK : PHAUL__WIRE__PURPOSE__PURPOSE_MIGRATE;
	r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_HELLO_REPLY, &reply, err);
	if (r < 0)
		return r;
	memcpy(s->route, reply->hello_reply->route.data, ROUTE_BYTES);
	s->encodings = s->options->encodings & (reply->hello_reply->encodings | ENCODING_BIT(ENCODING_LZ4));
	s->compare_cpus = !s->options->skip_cpu_check && !strcmp(reply->hello_reply->machine, name.machine) &&
			  (!reply->hello_reply->criu_problem[0] || s->options->skip_criu_check);
	if (reply->hello_reply->page_bytes != PAGE_BYTES || strcmp(reply->hello_reply->machine, name.machine) != 0)
		return obstacles_add(
			&s->obstacles, OBSTACLE_REFUSES, true, "choose a target of the same architecture",
			"the target's architecture is %s, with pages of %u bytes; this host's is %s, with %llu",
			reply->hello_reply->machine, reply->hello_reply->page_bytes, name.machine, PAGE_BYTES);
	if (reply->hello_reply->criu_problem[0] && !s->options->skip_criu_check && !s->options->restart)
		return obstacles_add(&s->obstacles, OBSTACLE_REFUSES, true,
				     "install CRIU 4.1 or later there (scripts/setup)", "at the target: %s",
				     reply->hello_reply->criu_problem);
	/* CRIU reads what older versions wrote, not the other way round. */
	if (s->criu_version > (int)reply->hello_reply->criu_version && !s->options->skip_criu_check)
		return obstacles_add(
			&s->obstacles, OBSTACLE_REFUSES, true, "update CRIU at the target",
			"CRIU here (%d.%d.%d) is newer than the target's (%u.%u.%u)", s->criu_version / 10000,
			s->criu_version / 100 % 100, s->criu_version % 100, reply->hello_reply->criu_version / 10000,
			reply->hello_reply->criu_version / 100 % 100, reply->hello_reply->criu_version % 100);
	return 0;
}

static int check_criu_here(struct source *s, struct error *err)
{
	struct error why = { 0 };
	int r = criu_version(&s->criu_version, &why);

	if (s->options->restart)
		return 0;
	if (!r && s->criu_version < CRIU_VERSION_MINIMUM)
		r = error_set(&why, ENOTSUP, "CRIU %d.%d.%d is too old, 4.1 is needed", s->criu_version / 10000,
			      s->criu_version / 100 % 100, s->criu_version % 100);
	if (!r && !s->options->skip_criu_check)
		r = criu_lazy_supported(&why);
	if (r < 0)
		return obstacles_add(&s->obstacles, OBSTACLE_REFUSES, false,
				     "install CRIU 4.1 or later (scripts/setup)", "%s", why.text) < 0
			       ? error_set(err, ENOMEM, "no memory for the plan")
			       : 0;
	snprintf(s->result.engine, sizeof(s->result.engine), "criu %d.%d.%d", s->criu_version / 10000,
		 s->criu_version / 100 % 100, s->criu_version % 100);
	return 0;
}

/* Half of the shortest of a few round trips joins the clocks of both sides. */
static int measure_round_trip(struct source *s, struct error *err)
{
	s->round_trip_ns = UINT64_MAX;
	for (uint64_t i = 0; i < 5; i++) {
		Phaul__Wire__Ping ping = PHAUL__WIRE__PING__INIT;
		CONTROL_OF(request, ping, PING, &ping);
		uint64_t before = clock_now_ns();
		int r;

		ping.number = i;
		r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_PING, NULL, err);
		if (r < 0)
			return r;
		s->round_trip_ns = MIN(s->round_trip_ns, clock_now_ns() - before);
	}
	return 0;
}

int source_stage_connect(struct source *s, struct error *err)
{
	int r = check_criu_here(s, err);

	if (!r && s->options->target.kind == ENDPOINT_TLS)
		r = tls_identity_load(s->options->pki_directory, &s->identity, err);
	if (!r)
		r = open_channel(s, NULL, &s->session.control, err);
	if (r < 0)
		return r;
	r = say_hello(s, err);
	if (r < 0)
		return r == -ENOMEM ? error_set(err, ENOMEM, "no memory for the plan") : r;
	return measure_round_trip(s, err);
}

void source_undo_connect(struct source *s)
{
	if (!s->session.control)
		return;
	s->result.bytes_wire += channel_bytes_out(s->session.control) + channel_bytes_in(s->session.control);
	session_free(&s->session);
}

static bool said_already(const struct source *s, const char *what)
{
	for (size_t i = 0; i < s->obstacles.n; i++)
		if (!strcmp(s->obstacles.list[i].what, what))
			return true;
	return false;
}

/* Some things are looked at on both sides, for the target does not rely on us. */
static int take_obstacles(struct source *s, const Phaul__Wire__PlanReply *reply)
{
	for (size_t i = 0; i < reply->n_obstacles; i++) {
		const Phaul__Wire__Obstacle *o = reply->obstacles[i];
		int r;

		if (said_already(s, o->what))
			continue;
		r = obstacles_add(&s->obstacles, o->refuses ? OBSTACLE_REFUSES : OBSTACLE_WARNS, true, o->cure, "%s",
				  o->what);
		if (r < 0)
			return r;
	}
	return 0;
}

static const char *text_or_empty(const char *text)
{
	return text ? text : "";
}

static int ask_target(struct source *s, struct error *err)
{
	Phaul__Wire__Workload workload;
	Phaul__Wire__Plan plan = PHAUL__WIRE__PLAN__INIT;
	Phaul__Wire__EngineOptions engine = PHAUL__WIRE__ENGINE_OPTIONS__INIT;
	Phaul__Wire__Address addresses[MIGRATION_ADDRESSES_MAX], *pointers[MIGRATION_ADDRESSES_MAX];
	Phaul__Wire__Neighbour neighbours[NET_NEIGHBOURS_MAX], *these[NET_NEIGHBOURS_MAX];
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	_cleanup_buffer_ struct buffer cpuinfo = { 0 };
	CONTROL_OF(request, plan, PLAN, &plan);
	int r = convert_workload_to_wire(&s->workload, &workload, err);

	if (r < 0)
		return r;
	plan.workload = &workload;
	plan.criu_version = (uint32_t)s->criu_version;
	plan.shell_job = s->options->shell_job;
	for (size_t i = 0; i < s->options->n_addresses; i++) {
		convert_address_to_wire(&s->options->addresses[i], &addresses[i]);
		pointers[i] = &addresses[i];
	}
	plan.addresses = pointers;
	plan.n_addresses = s->options->n_addresses;
	for (size_t i = 0; i < s->n_neighbours; i++) {
		convert_neighbour_to_wire(&s->neighbours[i], &neighbours[i]);
		these[i] = &neighbours[i];
	}
	plan.neighbours = these;
	plan.n_neighbours = s->n_neighbours;
	plan.sync_paths = (char **)s->options->sync_paths;
	plan.n_sync_paths = s->driver_options.n_synced_paths;
	engine.runtime = (char *)text_or_empty(s->options->runtime);
	engine.engine = (char *)text_or_empty(s->options->target_engine);
	engine.id = (char *)text_or_empty(s->options->target_id);
	engine.bundle = (char *)text_or_empty(s->options->target_bundle);
	plan.engine = &engine;
	plan.restart = s->options->restart;
	if (s->compare_cpus && s->criu_version)
		r = criu_cpuinfo_dump(s->work_directory, &cpuinfo, err);
	plan.cpuinfo.data = cpuinfo.data;
	plan.cpuinfo.len = cpuinfo.length;
	if (!r)
		r = session_call(&s->session, &request, PHAUL__WIRE__CONTROL__KIND_PLAN_REPLY, &reply, err);
	convert_workload_wire_free(&workload);
	if (!r && take_obstacles(s, reply->plan_reply) < 0)
		r = error_set(err, ENOMEM, "no memory for the plan");
	return r;
}

static int check_addresses(struct source *s, struct error *err)
{
	for (size_t i = 0; i < s->options->n_addresses; i++) {
		char text[NET_ADDRESS_TEXT_MAX];
		struct error why = { 0 };
		int r = net_address_present(&s->options->addresses[i], &why);

		net_address_format(&s->options->addresses[i], text);
		if (r < 0)
			r = obstacles_add(&s->obstacles, OBSTACLE_REFUSES, false, "", "%s", why.text);
		else if (!r)
			r = obstacles_add(&s->obstacles, OBSTACLE_REFUSES, false,
					  "name an address that this host holds", "the address %s is not on this host",
					  text);
		else
			r = 0;
		if (r < 0)
			return error_set(err, ENOMEM, "no memory for the plan");
	}
	return 0;
}

static int check_paths(struct source *s, struct error *err)
{
	struct error why = { 0 };

	if (source_passes(s) && sync_check(&why) < 0 &&
	    obstacles_add(&s->obstacles, OBSTACLE_REFUSES, false, "install rsync", "%s", why.text) < 0)
		return error_set(err, ENOMEM, "no memory for the plan");
	for (const char *const *path = s->options->sync_paths; *path; path++)
		if (access(*path, F_OK) < 0 &&
		    obstacles_add(&s->obstacles, OBSTACLE_REFUSES, false, "",
				  "the path %s of --sync cannot be read: %s", *path, strerror(errno)) < 0)
			return error_set(err, ENOMEM, "no memory for the plan");
	return 0;
}

static int check_tracking(struct source *s, struct error *err)
{
	struct error why = { 0 };

	if (!s->options->pre_copy || s->options->restart || tracker_probe(&why) != TRACKER_NONE)
		return 0;
	if (obstacles_add(&s->obstacles, OBSTACLE_WARNS, false, "use a kernel from 6.7 on, or one with soft-dirty",
			  "this kernel cannot track written pages (%s): all %llu MiB are copied in the freeze",
			  why.text, (unsigned long long)(s->workload.resident_bytes >> 20)) < 0)
		return error_set(err, ENOMEM, "no memory for the plan");
	return 0;
}

static int make_work_directory(struct source *s, struct error *err)
{
	char journals[512];
	int r;

	snprintf(s->work_directory, sizeof(s->work_directory), "%s/%s", s->options->run_directory, s->id_text);
	snprintf(s->images_directory, sizeof(s->images_directory), "%s/images", s->work_directory);
	snprintf(journals, sizeof(journals), "%s/migrations", s->options->state_directory);
	r = work_directory_make(s->options->run_directory, s->id_text, journals, &s->work_lock, err);
	if (r < 0)
		return r;
	r = dir_make(s->images_directory, 0700);
	return r < 0 ? error_errno(err, -r, "cannot make the work directory %s", s->images_directory) : 0;
}

/* A path that both hosts see must not be copied onto itself. */
static int find_shared(struct source *s, struct error *err)
{
	int r = 0;

	for (uint32_t i = 0; i < s->driver_options.n_synced_paths && !r; i++) {
		r = source_sync_probe(s, i, err);
		if (!r && s->trees[i].shared &&
		    obstacles_add(&s->obstacles, OBSTACLE_WARNS, false, "leave out --sync for it",
				  "%s is the same on both hosts: it is not copied", s->trees[i].tree.path) < 0)
			r = error_set(err, ENOMEM, "no memory for the plan");
	}
	return r;
}

static int make_plan(struct source *s, struct error *err)
{
	int r = make_work_directory(s, err);

	if (!r)
		r = source_sync_trees(s, err);
	if (!r && !s->options->restart) /* those are obstacles of CRIU's dump */
		r = s->driver->check_source(&s->workload, &s->driver_options, &s->obstacles, err);
	if (!r)
		r = check_addresses(s, err);
	if (!r)
		r = check_paths(s, err);
	if (!r)
		r = check_tracking(s, err);
	if (!r)
		r = source_net_describe(s, err);
	if (!r)
		r = ask_target(s, err);
	if (!r)
		r = find_shared(s, err);
	return r < 0 || s->options->restart ? r : s->driver->way(&s->workload, &s->driver_options, &s->way, err);
}

/* Tells the obstacles one by one, then goes on or refuses. */
int source_stage_plan(struct source *s, struct error *err)
{
	if (!s->work_directory[0]) {
		int r = make_plan(s, err);

		if (r < 0)
			return r;
	}
	if (s->obstacle_next < s->obstacles.n) {
		s->event->kind = EVENT_OBSTACLE;
		s->event->obstacle = s->obstacles.list[s->obstacle_next++];
		return STAGE_AGAIN;
	}
	if (!obstacles_refuse(&s->obstacles) || s->options->force)
		return STAGE_DONE;
	s->result.outcome = OUTCOME_REFUSED;
	for (size_t i = 0; i < s->obstacles.n; i++)
		if (s->obstacles.list[i].kind == OBSTACLE_REFUSES)
			return error_set(err, ENOTSUP, "%s", s->obstacles.list[i].what);
	return error_set(err, ENOTSUP, "the plan refuses the migration");
}
