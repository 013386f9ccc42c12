/*
 * Samples of messages: see wire-sample.h. No state; any thread.
 */
#include "wire-sample.h"

#include <stddef.h>

#define BYTES(array) ((ProtobufCBinaryData){ .len = sizeof(array), .data = (array) })

static uint8_t id_bytes[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
static uint8_t ipv4_bytes[4] = { 10, 77, 0, 9 };
static uint8_t mac_bytes[6] = { 0x02, 0x77, 0, 0, 1, 0 };
static uint8_t ipv6_bytes[16] = { 0xfd, 0x77, [15] = 9 };
static uint8_t name_bytes[7] = { 'b', 'a', 's', 'e', '/', '\xff', '1' };
static uint8_t cpuinfo_bytes[24] = { 0x43, 0x43, 0x52, 0x49, 0x55 };

static void sample_hello(struct wire_sample *s)
{
	phaul__wire__hello__init(&s->hello);
	s->hello.version = 3;
	s->hello.lowest_version = 1;
	s->hello.software = "0.1.0";
	s->hello.migration_id = BYTES(id_bytes);
	s->hello.host = "alpha";
	s->hello.purpose = PHAUL__WIRE__PURPOSE__PURPOSE_MIGRATE;

	phaul__wire__hello_reply__init(&s->hello_reply);
	s->hello_reply.version = 1;
	s->hello_reply.software = "0.1.0";
	s->hello_reply.host = "beta";
	s->hello_reply.route = BYTES(id_bytes);
	s->hello_reply.criu_version = 40101;
	s->hello_reply.criu_problem = "criu is too old";
	s->hello_reply.kernel = "6.18.0";
	s->hello_reply.page_bytes = 4096;
	s->hello_reply.cpus = 2;
	s->hello_reply.machine = "x86_64";
	s->hello_reply.encodings = 0x70;
}

static void sample_workload(struct wire_sample *s)
{
	for (int i = 0; i < 2; i++) {
		phaul__wire__file__init(&s->file[i]);
		s->file[i].path = i ? "/srv/data/..." : "/usr/bin/redis-server";
		s->file[i].use = (uint32_t)i + 1;
		s->file[i].size = 4096;
		s->file[i].mode = 0100755;
		s->file[i].hash = 0x0123456789abcdefULL;
		s->file[i].writable = i;
		s->files[i] = &s->file[i];
	}
	for (int i = 0; i < 3; i++)
		s->pids[i] = 4711 + i;
	phaul__wire__workload__init(&s->workload);
	s->workload.type = "pid";
	s->workload.id = "4711";
	s->workload.root_pid = 4711;
	s->workload.own_pid_namespace = s->workload.session_leader = s->workload.has_terminal = true;
	s->workload.resident_bytes = 1 << 20;
	s->workload.processes = 3;
	s->workload.n_files = 2;
	s->workload.files = s->files;
	s->workload.n_pids = 3;
	s->workload.pids = s->pids;
}

static void sample_plan(struct wire_sample *s)
{
	for (int i = 0; i < 2; i++) {
		phaul__wire__address__init(&s->address[i]);
		s->address[i].family = i ? 6 : 4;
		s->address[i].bytes = i ? BYTES(ipv6_bytes) : BYTES(ipv4_bytes);
		s->address[i].prefix_length = i ? 128 : 32;
		s->address[i].device = "eth0";
		s->addresses[i] = &s->address[i];
		phaul__wire__obstacle__init(&s->obstacle[i]);
		s->obstacle[i].refuses = i;
		s->obstacle[i].what = "/usr/bin/redis-server is missing";
		s->obstacle[i].cure = "install it";
		s->obstacles[i] = &s->obstacle[i];
	}
	for (int i = 0; i < 3; i++) {
		phaul__wire__neighbour__init(&s->neighbour[i]);
		s->neighbour[i].mac = BYTES(mac_bytes);
		s->neighbours[i] = &s->neighbour[i];
	}
	s->neighbour[0].family = 4;
	s->neighbour[0].bytes = BYTES(ipv4_bytes);
	s->neighbour[1].family = 6;
	s->neighbour[1].bytes = BYTES(ipv6_bytes);
	s->sync_paths[0] = "/";
	s->sync_paths[1] = "/srv/data";
	phaul__wire__plan__init(&s->plan);
	s->plan.workload = &s->workload;
	s->plan.criu_version = 40101;
	s->plan.cpuinfo = BYTES(cpuinfo_bytes);
	s->plan.n_addresses = s->plan.n_sync_paths = 2;
	s->plan.addresses = s->addresses;
	s->plan.n_neighbours = 3;
	s->plan.neighbours = s->neighbours;
	s->plan.sync_paths = s->sync_paths;
	s->plan.shell_job = true;

	phaul__wire__plan_reply__init(&s->plan_reply);
	s->plan_reply.n_obstacles = 2;
	s->plan_reply.obstacles = s->obstacles;
	s->plan_reply.available_bytes = 1ULL << 33;
}

static void sample_copy(struct wire_sample *s)
{
	phaul__wire__begin__init(&s->begin);
	s->begin.data_channels = 4;
	s->begin.keep_images = true;
	s->begin.fs_channels = 2;
	phaul__wire__ready__init(&s->ready);
	phaul__wire__round__init(&s->round);
	s->round.number = 1;
	s->round.pages = 1000;
	phaul__wire__round_done__init(&s->round_done);
	s->round_done.number = 1;
	s->round_done.store_bytes = 4096000;
	phaul__wire__sync__init(&s->sync);
	s->sync.path = 1;
	phaul__wire__sync_done__init(&s->sync_done);
	phaul__wire__sync_end__init(&s->sync_end);
	s->sync_end.path = 1;
	phaul__wire__probe__init(&s->probe);
	s->probe.path = 1;
	s->probe.file = true;
	s->probe.name = s->probe.content = BYTES(id_bytes);
	phaul__wire__probe_reply__init(&s->probe_reply);
	s->probe_reply.same = true;
	s->external[0] = "mnt[/etc/hosts]:hosts";
	s->external[1] = "net[4026531840]:net";
	phaul__wire__way__init(&s->way);
	s->way.shell_job = s->way.tcp_established = s->way.file_locks = true;
	s->way.ghost_limit_bytes = 1 << 20;
	s->way.manage_cgroups = 1;
	s->way.n_external = 2;
	s->way.external = s->external;
	phaul__wire__arm__init(&s->arm);
	s->arm.page_channels = 2;
	phaul__wire__take__init(&s->take);
	s->arm.way = &s->way;
}

static void sample_finish(struct wire_sample *s)
{
	for (int i = 0; i < 2; i++) {
		uint64_t *b = s->bounds[i];

		b[0] = 0x400000;
		b[1] = 0x401000;
		b[2] = 0x7ffff0000000;
		b[3] = 0x7ffff0010000;
		phaul__wire__space_present__init(&s->present[i]);
		s->present[i].space = (uint32_t)i + 1;
		s->present[i].image_pid = i + 1;
		s->present[i].n_bounds = 4;
		s->present[i].bounds = b;
		s->presents[i] = &s->present[i];
	}
	phaul__wire__finish__init(&s->finish);
	s->finish.round = 5;
	s->finish.n_present = 2;
	s->finish.present = s->presents;
	s->finish.images = 17;
}

static void sample_commit(struct wire_sample *s)
{
	phaul__wire__prepared__init(&s->prepared);
	s->prepared.wait_ns = 1;
	s->prepared.check_ns = 2;
	s->prepared.restore_ns = 3;
	phaul__wire__commit__init(&s->commit);
	phaul__wire__running__init(&s->running);
	s->running.resume_ns = 4;
	s->running.root_pid = 4711;
	phaul__wire__done__init(&s->done);
	phaul__wire__filled__init(&s->filled);
	s->filled.faults = 5;
	s->filled.pages_copied = 6;
	s->filled.fault_ns_max = 7;
	s->filled.pager_replaced = 1;
	s->filled.fill_ns = 8;
	s->filled.fault_ns_p50 = 9;
	s->filled.fault_ns_p99 = 10;
	s->filled.faults_remote = 11;
	s->filled.remote_ns_p50 = 12;
	s->filled.remote_ns_p99 = 13;
	phaul__wire__abort__init(&s->abort);
	s->abort.reason = "canceled by the user";
	phaul__wire__ping__init(&s->ping);
	s->ping.number = 9;
	phaul__wire__failure__init(&s->failure);
	s->failure.number = 28;
	s->failure.step = "copy";
	s->failure.text = "no space is left";
}

static void sample_resume(struct wire_sample *s)
{
	phaul__wire__resume__init(&s->resume);
	s->resume.migration_id = BYTES(id_bytes);
	s->resume.go_on = true;
	phaul__wire__state__init(&s->state);
	s->state.state = PHAUL__WIRE__TARGET_STATE__TARGET_STATE_PREPARED;
	s->state.here = true;
	s->state.reason = "the link was lost";
	phaul__wire__lacks__init(&s->lacks);
	s->lacks.words = "{\"have\":2}";
	phaul__wire__missing__init(&s->missing);
	phaul__wire__missing_reply__init(&s->missing_reply);
	s->missing_reply.pages = 14;
	s->missing_reply.faults_remote = 15;
	for (uint32_t i = 0; i < 2; i++) {
		phaul__wire__arrived__init(&s->arrived[i]);
		s->arrived[i].channel = i;
		s->arrived[i].round = 3;
		s->arrived[i].pages = 1000 + i;
		s->arriveds[i] = &s->arrived[i];
	}
	s->state.n_arrived = 2;
	s->state.arrived = s->arriveds;
}

static void sample_blocks(struct wire_sample *s)
{
	phaul__wire__blocks__init(&s->blocks);
	phaul__wire__sums__init(&s->sums);
	s->sums.path = 1;
	s->sums.name = BYTES(name_bytes);
	s->sums.offset = MESSAGE_BLOCK_BYTES;
	s->sums.length = 2 * MESSAGE_BLOCK_BYTES;
	phaul__wire__sums_reply__init(&s->sums_reply);
	s->sums_reply.patchable = true;
	s->sums_reply.size = 2 * MESSAGE_BLOCK_BYTES + 1;
	s->sums_reply.mtime_s = 1700000000;
	s->sums_reply.mtime_ns = 999999999;
	s->sums_reply.sums = BYTES(id_bytes);
	phaul__wire__patch__init(&s->patch);
	s->patch.path = 1;
	s->patch.name = BYTES(name_bytes);
	s->patch.offset = MESSAGE_BLOCK_BYTES;
	s->patch.data = BYTES(cpuinfo_bytes);
	phaul__wire__patch_end__init(&s->patch_end);
	s->patch_end.path = 1;
	s->patch_end.name = BYTES(name_bytes);
	s->patch_end.size = 3;
	s->patch_end.mtime_s = -1;
	s->patch_end.mtime_ns = 1;
}

#define PART(NAME, member) [PHAUL__WIRE__CONTROL__KIND_##NAME] = offsetof(struct wire_sample, member)
static const size_t parts[WIRE_SAMPLE_KINDS + 1] = {
	PART(HELLO, hello),
	PART(HELLO_REPLY, hello_reply),
	PART(PLAN, plan),
	PART(PLAN_REPLY, plan_reply),
	PART(BEGIN, begin),
	PART(READY, ready),
	PART(ROUND, round),
	PART(ROUND_DONE, round_done),
	PART(SYNC, sync),
	PART(SYNC_DONE, sync_done),
	PART(ARM, arm),
	PART(FINISH, finish),
	PART(PREPARED, prepared),
	PART(COMMIT, commit),
	PART(RUNNING, running),
	PART(DONE, done),
	PART(FILLED, filled),
	PART(ABORT, abort),
	PART(PING, ping),
	PART(FAILURE, failure),
	PART(SYNC_END, sync_end),
	PART(PROBE, probe),
	PART(PROBE_REPLY, probe_reply),
	PART(RESUME, resume),
	PART(STATE, state),
	PART(TAKE, take),
	PART(MISSING, missing),
	PART(MISSING_REPLY, missing_reply),
	PART(LACKS, lacks),
	PART(BLOCKS, blocks),
	PART(SUMS, sums),
	PART(SUMS_REPLY, sums_reply),
	PART(PATCH, patch),
	PART(PATCH_END, patch_end),
};

void wire_sample_init(struct wire_sample *s, Phaul__Wire__Control__KindCase kind)
{
	sample_hello(s);
	sample_workload(s);
	sample_plan(s);
	sample_copy(s);
	sample_finish(s);
	sample_commit(s);
	sample_resume(s);
	sample_blocks(s);
	phaul__wire__control__init(&s->control);
	s->control.kind_case = kind;
	/* The members of the union are all pointers to messages. */
	s->control.hello = (void *)((char *)s + parts[kind]);
}
