/*
 * The target before anything is kept for a migration: greeting and plan. Nothing here changes the host.
 *
 * Threads: that of target.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "fs/sync.h"
#include "migration/convert.h"
#include "migration/target-internal.h"
#include "migration/work-directory.h"

int target_on_hello(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	Phaul__Wire__HelloReply part = PHAUL__WIRE__HELLO_REPLY__INIT;
	CONTROL_OF(reply, hello_reply, HELLO_REPLY, &part);
	const Phaul__Wire__Hello *hello = m->hello;
	struct error why = { 0 };
	struct utsname name;
	int version = 0;

	if (t->greeted)
		return error_set(err, EPROTO, "the peer greeted twice");
	if (t->options->accept_identity &&
	    strcmp(channel_peer_identity(t->session.control), t->options->accept_identity) != 0)
		return error_set(err, EACCES, "the target takes migrations only from %s, not from %s",
				 t->options->accept_identity, channel_peer(t->session.control));
	if (hello->lowest_version > FRAME_VERSION)
		return error_set(err, EPROTO, "the source speaks protocol versions %u to %u, this phaul %s speaks %d",
				 hello->lowest_version, hello->version, PHAUL_VERSION, FRAME_VERSION);
	memcpy(t->id.bytes, hello->migration_id.data, sizeof(t->id.bytes));
	uuid_format(&t->id, t->id_text);
	t->check_only = hello->purpose == PHAUL__WIRE__PURPOSE__PURPOSE_CHECK;
	t->resume_only = hello->purpose == PHAUL__WIRE__PURPOSE__PURPOSE_RESUME;
	t->greeted = true;
	log_info("%s of %s wants to %s", channel_peer(t->session.control), hello->host,
		 t->resume_only	 ? "settle"
		 : t->check_only ? "check"
				 : "migrate");
	uname(&name);
	part.version = FRAME_VERSION;
	part.software = (char *)PHAUL_VERSION;
	part.host = name.nodename;
	part.route.data = t->route_id;
	part.route.len = ROUTE_BYTES;
	if (criu_version(&version, &why) < 0 || criu_check(&why) < 0)
		part.criu_problem = why.text;
	else if (version < CRIU_VERSION_MINIMUM)
		part.criu_problem = (char *)"CRIU is older than 4.1";
	part.criu_version = (uint32_t)version;
	part.kernel = name.release;
	part.machine = name.machine;
	part.encodings = ENCODINGS_ALL & ~ENCODING_BIT(ENCODING_LZ4);
	part.page_bytes = (uint32_t)sysconf(_SC_PAGESIZE);
	part.cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	return session_send(&t->session, &reply, err);
}

int target_on_ping(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	/* From ARM on, which makes the pager, nothing stands back any more. */
	if (t->receiver && !t->pager)
		receiver_set_gentle(t->receiver, !m->ping->hurry);
	return session_send(&t->session, m, err);
}

static int take_engine(struct target *t, const Phaul__Wire__EngineOptions *m, struct error *err)
{
	const struct {
		const char *text;
		const char **to;
	} texts[] = { { m->runtime, &t->driver_options.runtime },
		      { m->engine, &t->driver_options.engine },
		      { m->id, &t->driver_options.target_id },
		      { m->bundle, &t->driver_options.target_bundle } };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (!texts[i].text[0])
			continue;
		t->engine_texts[i] = strdup(texts[i].text);
		if (!t->engine_texts[i])
			return error_set(err, ENOMEM, "no memory for the plan");
		*texts[i].to = t->engine_texts[i];
	}
	return 0;
}

static int take_plan(struct target *t, const Phaul__Wire__Plan *plan, struct error *err)
{
	int r = convert_workload_from_wire(plan->workload, &t->workload, err);

	if (r < 0)
		return r;
	t->driver = driver_find(t->workload.type);
	t->shell_job = plan->shell_job;
	t->n_addresses = plan->n_addresses;
	for (size_t i = 0; i < plan->n_addresses; i++)
		convert_address_from_wire(plan->addresses[i], &t->addresses[i]);
	t->n_neighbours = plan->n_neighbours;
	for (size_t i = 0; i < plan->n_neighbours; i++)
		convert_neighbour_from_wire(plan->neighbours[i], &t->neighbours[i]);
	for (size_t i = 0; i < plan->n_sync_paths; i++) {
		t->sync_paths[i] = strdup(plan->sync_paths[i]);
		if (!t->sync_paths[i])
			return error_set(err, ENOMEM, "no memory for the plan");
		t->n_sync_paths++;
	}
	t->driver_options = (struct driver_options){ .synced_paths = (const char *const *)t->sync_paths,
						     .n_synced_paths = t->n_sync_paths,
						     .shell_job = t->shell_job,
						     .restart = plan->restart,
						     .can_bring = true };
	return plan->engine ? take_engine(t, plan->engine, err) : 0;
}

/* The CPU of the source against ours: CRIU compares. It wants the image in a directory. */
static int check_cpu(struct target *t, const ProtobufCBinaryData *cpuinfo, struct obstacles *o)
{
	char name[sizeof(WORK_DIRECTORY_CPU) + UUID_TEXT_SIZE], directory[512];
	_cleanup_close_ int lock = -1;
	struct error why = { 0 };
	int r;

	if (!cpuinfo->len)
		return 0;
	snprintf(name, sizeof(name), WORK_DIRECTORY_CPU "%s", t->id_text);
	snprintf(directory, sizeof(directory), "%.400s/%s", t->options->run_directory, name);
	r = work_directory_make(t->options->run_directory, name, t->journals, &lock, &why);
	if (!r) {
		r = criu_cpuinfo_check(directory, cpuinfo->data, cpuinfo->len, &why);
		dir_remove(directory);
	}
	if (r < 0)
		return obstacles_add(
			o, OBSTACLE_REFUSES, true,
			r == -EMEDIUMTYPE
				? "choose a target whose CPU has the source's features, or use --skip-cpu-check"
				: "",
			"%s", why.text);
	return 0;
}

static int check_addresses(struct target *t, struct obstacles *o)
{
	int r = 0;

	for (size_t i = 0; i < t->n_addresses && r >= 0; i++) {
		char text[NET_ADDRESS_TEXT_MAX];
		struct error why = { 0 };
		int present = net_address_present(&t->addresses[i], &why);

		net_address_format(&t->addresses[i], text);
		if (present < 0)
			r = obstacles_add(o, OBSTACLE_REFUSES, true, "name a device that both hosts have",
					  "at the target: %s", why.text);
		else if (present)
			r = obstacles_add(o, OBSTACLE_REFUSES, true, "remove it there",
					  "the target already holds the address %s", text);
	}
	return r;
}

static int check_directories(struct target *t, struct obstacles *o)
{
	uint64_t free_bytes;
	int r = dir_make(t->options->run_directory, 0700);

	if (!r)
		r = dir_free_bytes(t->options->run_directory, &free_bytes);
	if (r < 0)
		return obstacles_add(o, OBSTACLE_REFUSES, true, "", "the target cannot use %s: %s",
				     t->options->run_directory, strerror(-r));
	/* CRIU's images of a tree without its private memory: some MiB, and more with many processes. */
	if (free_bytes < (16ULL << 20) + t->workload.n_pids * 65536)
		return obstacles_add(o, OBSTACLE_REFUSES, true, "make room there",
				     "only %llu KiB are free below %s at the target, which holds CRIU's images",
				     (unsigned long long)(free_bytes >> 10), t->options->run_directory);
	return 0;
}

/* Whether one of the two lies in the other, or they are the same. */
static bool paths_overlap(const char *a, const char *b)
{
	size_t n = MIN(strlen(a), strlen(b));

	return !strncmp(a, b, n) && (!a[n] || a[n] == '/') && (!b[n] || b[n] == '/');
}

bool target_may_sync(const struct target *t, const char *path)
{
	/* The host itself: a pass deletes what the source does not have. */
	static const char *const whole[] = { "/bin",   "/boot",	   "/etc",     "/home",	    "/lib",	  "/lib32",
					     "/lib64", "/libx32",  "/opt",     "/root",	    "/run",	  "/sbin",
					     "/usr",   "/usr/bin", "/usr/lib", "/usr/sbin", "/usr/share", "/var",
					     "/tmp",   "/mnt",	   "/var/lib", "/var/log",  "/var/spool" };
	/* Nothing of files at all, and what phaul's own safety rests on. */
	static const char *const any[] = { "/dev", "/proc", "/sys", "/etc/phaul" };

	for (size_t i = 0; i < ARRAY_SIZE(whole); i++)
		if (!strcmp(path, whole[i]))
			return false;
	for (size_t i = 0; i < ARRAY_SIZE(any); i++)
		if (paths_overlap(path, any[i]))
			return false;
	return !paths_overlap(path, t->options->run_directory) && !paths_overlap(path, t->options->state_directory);
}

static int check_sync_paths(struct target *t, struct obstacles *o)
{
	struct error why = { 0 };
	int r = 0;

	if (t->n_sync_paths && sync_check(&why) < 0)
		r = obstacles_add(o, OBSTACLE_REFUSES, true, "install rsync there", "at the target: %s", why.text);
	for (size_t i = 0; i < t->n_sync_paths && r >= 0; i++)
		if (!target_may_sync(t, t->sync_paths[i]))
			r = obstacles_add(
				o, OBSTACLE_REFUSES, true, "name the directories below it that the workload needs",
				"the target does not let %s be replaced: it belongs to the host", t->sync_paths[i]);
	return r;
}

static int check_target(struct target *t, const Phaul__Wire__Plan *plan, struct obstacles *o, struct error *err)
{
	int r;

	if (!t->driver)
		return obstacles_add(o, OBSTACLE_REFUSES, true, "update phaul there",
				     "the target's phaul %s has no driver for %s", PHAUL_VERSION, t->workload.type);
	r = t->driver->check_target(&t->workload, &t->driver_options, o, err);
	if (r < 0)
		return r;
	r = check_cpu(t, &plan->cpuinfo, o);
	if (r >= 0)
		r = check_addresses(t, o);
	if (r >= 0)
		r = check_directories(t, o);
	if (r >= 0)
		r = check_sync_paths(t, o);
	return r < 0 ? error_set(err, ENOMEM, "no memory for the plan") : 0;
}

int target_on_plan(struct target *t, const Phaul__Wire__Control *m, struct error *err)
{
	Phaul__Wire__PlanReply part = PHAUL__WIRE__PLAN_REPLY__INIT;
	CONTROL_OF(reply, plan_reply, PLAN_REPLY, &part);
	struct obstacles obstacles = { 0 };
	int r;

	/* Not t->driver: a plan for a type that we do not know leaves none. */
	if (t->planned || t->resume_only)
		return error_set(err, EPROTO, "the peer sent %s", t->planned ? "two plans" : "a plan that is not due");
	t->planned = true;
	r = take_plan(t, m->plan, err);
	if (!r)
		r = check_target(t, m->plan, &obstacles, err);
	if (!r)
		r = convert_obstacles_to_wire(&obstacles, &part, err);
	if (!r)
		r = session_send(&t->session, &reply, err);
	convert_obstacles_wire_free(&part);
	obstacles_free(&obstacles);
	if (!r && t->check_only)
		t->finished = true;
	return r;
}
