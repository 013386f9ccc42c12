/*
 * Unit tests of control messages: samples of every kind pass and come back the same; each rule refuses a message that breaks just that rule, and
 * names the field. There is one list of all rules, as in message.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "message-fixture.h"
#include "wire/frame.h"

/* A rule: the sample of this kind with `spoil` done to it is refused, and the sentence names `field` (NULL: it passes). */
struct rule {
	Phaul__Wire__Control__KindCase kind;
	const char *field;
	void (*spoil)(struct wire_sample *s);
	const char *source; /* of spoil, to name the row */
};

#define RULE(kind_name, field_name, assignment)                                                                        \
	{                                                                                                              \
		KIND(kind_name), field_name, spoil_##assignment, #assignment                                           \
	}

#define SPOIL(name, statement)                                                                                         \
	static void spoil_##name(struct wire_sample *s)                                                                \
	{                                                                                                              \
		statement;                                                                                             \
	}

SPOIL(version_below_lowest, s->hello.version = 1; s->hello.lowest_version = 2)
SPOIL(version_equal, s->hello.version = s->hello.lowest_version = 7)
SPOIL(lowest_zero, s->hello.lowest_version = 0)
SPOIL(purpose_none, s->hello.purpose = PHAUL__WIRE__PURPOSE__PURPOSE_INVALID)
SPOIL(purpose_check, s->hello.purpose = PHAUL__WIRE__PURPOSE__PURPOSE_CHECK)
SPOIL(purpose_unknown, s->hello.purpose = (Phaul__Wire__Purpose)4)
SPOIL(purpose_resume, s->hello.purpose = PHAUL__WIRE__PURPOSE__PURPOSE_RESUME)
SPOIL(purpose_negative, s->hello.purpose = (Phaul__Wire__Purpose)-1)
SPOIL(resume_id_short, s->resume.migration_id.len = 15)
SPOIL(state_none, s->state.state = PHAUL__WIRE__TARGET_STATE__TARGET_STATE_INVALID)
SPOIL(state_beyond, s->state.state = (Phaul__Wire__TargetState)7)
SPOIL(state_aborted, s->state.state = PHAUL__WIRE__TARGET_STATE__TARGET_STATE_ABORTED)
SPOIL(state_reason_max, s->state.reason = text_of(1024))
SPOIL(state_reason_long, s->state.reason = text_of(1025))
SPOIL(state_reason_control, s->state.reason = "a\nb")
SPOIL(arrived_channel_max, s->arrived[1].channel = 63)
SPOIL(arrived_channel_beyond, s->arrived[1].channel = 64)
SPOIL(mac_short, s->neighbour[1].mac.len = 5)
SPOIL(mac_zero, s->neighbour[1].mac.data = (uint8_t *)"\0\0\0\0\0\0")
SPOIL(mac_of_all, s->neighbour[1].mac.data = (uint8_t *)"\xff\xff\xff\xff\xff\xff")
SPOIL(mac_of_group, s->neighbour[1].mac.data = (uint8_t *)"\x01\0\x5e\0\0\1")
SPOIL(neighbour_family_unknown, s->neighbour[2].family = 5)
SPOIL(neighbour_address_missing, s->neighbour[2].family = 4)
SPOIL(neighbour_address_short, s->neighbour[1].bytes.len = 4)
SPOIL(id_short, s->hello.migration_id.len = 15)
SPOIL(id_none, s->hello.migration_id.len = 0)
SPOIL(id_long, s->hello.migration_id.len = 17; s->hello.migration_id.data = (uint8_t *)"12345678901234567")
SPOIL(hello_software_max, s->hello.software = text_of(64))
SPOIL(hello_software_long, s->hello.software = text_of(65))
SPOIL(hello_software_newline, s->hello.software = "0.1\n")
SPOIL(hello_host_max, s->hello.host = text_of(256))
SPOIL(hello_host_long, s->hello.host = text_of(257))
SPOIL(hello_host_escape, s->hello.host = "\x1b[2J")
SPOIL(hello_host_delete, s->hello.host = "a\x7f")
SPOIL(hello_host_csi, s->hello.host = "a\xc2\x9b"
				      "2J")
SPOIL(hello_host_accents, s->hello.host = "\xc3\xa4\xc2\xa0\xe2\x82\xac")
SPOIL(route_short, s->hello_reply.route.len = 15)
SPOIL(reply_software_long, s->hello_reply.software = text_of(65))
SPOIL(reply_host_long, s->hello_reply.host = text_of(257))
SPOIL(problem_max, s->hello_reply.criu_problem = text_of(1024))
SPOIL(problem_long, s->hello_reply.criu_problem = text_of(1025))
SPOIL(kernel_long, s->hello_reply.kernel = text_of(257))
SPOIL(machine_long, s->hello_reply.machine = text_of(65))
SPOIL(no_workload, s->plan.workload = NULL)
SPOIL(type_max, s->workload.type = text_of(15))
SPOIL(type_long, s->workload.type = text_of(16))
SPOIL(type_control, s->workload.type = "p\tid")
SPOIL(workload_id_max, s->workload.id = text_of(255))
SPOIL(workload_id_long, s->workload.id = text_of(256))
SPOIL(root_pid_zero, s->workload.root_pid = 0)
SPOIL(root_pid_negative, s->workload.root_pid = -1)
SPOIL(pid_zero, s->pids[2] = 0)
SPOIL(pid_negative, s->pids[0] = INT32_MIN)
SPOIL(file_relative, s->file[1].path = "etc/passwd")
SPOIL(file_empty, s->file[0].path = "")
SPOIL(file_upward, s->file[0].path = "/srv/../etc/passwd")
SPOIL(file_max, s->file[0].path = path_of(4095))
SPOIL(file_long, s->file[0].path = path_of(4096))
SPOIL(cpuinfo_long, static uint8_t big[MESSAGE_CPUINFO_MAX + 1]; s->plan.cpuinfo.data = big;
      s->plan.cpuinfo.len = sizeof(big))
SPOIL(cpuinfo_max, static uint8_t big[MESSAGE_CPUINFO_MAX]; s->plan.cpuinfo.data = big;
      s->plan.cpuinfo.len = sizeof(big))
SPOIL(family_none, s->address[0].family = 0)
SPOIL(family_swapped, s->address[0].family = 6)
SPOIL(family_unknown, s->address[1].family = 5)
SPOIL(address_short, s->address[0].bytes.len = 3)
SPOIL(address_six_short, s->address[1].bytes.len = 4)
SPOIL(prefix_zero, s->address[0].prefix_length = 0)
SPOIL(prefix_four, s->address[0].prefix_length = 33)
SPOIL(prefix_six, s->address[1].prefix_length = 129)
SPOIL(device_none, s->address[0].device = "")
SPOIL(device_max, s->address[0].device = text_of(15))
SPOIL(device_long, s->address[0].device = text_of(16))
SPOIL(device_slash, s->address[0].device = "../eth0")
SPOIL(device_control, s->address[1].device = "eth\r")
SPOIL(sync_relative, s->sync_paths[0] = "srv")
SPOIL(sync_empty, s->sync_paths[0] = "")
SPOIL(sync_up, s->sync_paths[1] = "/srv/..")
SPOIL(sync_up_first, s->sync_paths[1] = "/../srv")
SPOIL(sync_dot, s->sync_paths[1] = "/./srv")
SPOIL(sync_double, s->sync_paths[1] = "/srv//data")
SPOIL(sync_slash_end, s->sync_paths[1] = "/srv/")
SPOIL(sync_slashes, s->sync_paths[1] = "//")
SPOIL(sync_dots_in_names, s->sync_paths[1] = "/..srv/.data/a..b/...")
SPOIL(sync_long, s->sync_paths[1] = path_of(4096))
SPOIL(what_max, s->obstacle[0].what = text_of(1024))
SPOIL(what_long, s->obstacle[1].what = text_of(1025))
SPOIL(cure_long, s->obstacle[1].cure = text_of(1025))
SPOIL(cure_control, s->obstacle[0].cure = "\a")
SPOIL(channels_none, s->begin.data_channels = 0)
SPOIL(channels_one, s->begin.data_channels = 1)
SPOIL(channels_max, s->begin.data_channels = 64)
SPOIL(channels_many, s->begin.data_channels = 65)
SPOIL(sync_last, s->sync.path = 127)
SPOIL(sync_beyond, s->sync.path = 128)
SPOIL(fs_channels_max, s->begin.fs_channels = 128)
SPOIL(fs_channels_many, s->begin.fs_channels = 129)
SPOIL(sync_end_last, s->sync_end.path = 127)
SPOIL(sync_end_beyond, s->sync_end.path = 128)
SPOIL(probe_beyond, s->probe.path = 128)
SPOIL(probe_name_short, s->probe.name.len = 15)
SPOIL(probe_content_long, s->probe.content.len = 17; s->probe.content.data = (uint8_t *)"12345678901234567")
SPOIL(lacks_max, s->lacks.words = text_of(4096))
SPOIL(lacks_long, s->lacks.words = text_of(4097))
SPOIL(no_way, s->arm.way = NULL)
SPOIL(external_max, s->external[1] = text_of(4096))
SPOIL(external_long, s->external[1] = text_of(4097))
SPOIL(external_control, s->external[0] = "a\nb")
SPOIL(space_zero, s->present[0].space = 0)
SPOIL(space_max, s->present[1].space = 65536)
SPOIL(space_beyond, s->present[1].space = 65537)
SPOIL(image_pid_zero, s->present[0].image_pid = 0)
SPOIL(page_channels_one, s->arm.page_channels = 1)
SPOIL(page_channels_none, s->arm.page_channels = 0)
#define SETTINGS(name, text)                                                                                           \
	SPOIL(name, s->arm.net_settings = ((ProtobufCBinaryData){ sizeof(text) - 1, (uint8_t *)(text) }))
SETTINGS(settings_fine, "core/somaxconn=4096\nipv4/tcp_rmem=4096 131072 6291456\nipv6/x_1=\n")
SETTINGS(settings_cut, "core/somaxconn=4096")
SETTINGS(settings_up, "core/../../kernel/core_pattern=x\n")
SETTINGS(settings_elsewhere, "unix/max_dgram_qlen=1\n")
SETTINGS(settings_nameless, "core/=1\n")
SETTINGS(settings_no_value, "core/somaxconn\n")
SETTINGS(settings_nul, "core/a\0b=1\n")
SETTINGS(settings_control, "core/somaxconn=1\t2\n")
SPOIL(plan_settings_up, s->plan.net_settings = ((ProtobufCBinaryData){ 14, (uint8_t *)"core/../../x=\n" }))
#define NAME(row, message, text)                                                                                       \
	SPOIL(row, s->message.name = ((ProtobufCBinaryData){ sizeof(text) - 1, (uint8_t *)(text) }))
NAME(sums_name_up, sums, "base/../../etc/passwd")
NAME(sums_name_absolute, sums, "/etc/passwd")
NAME(sums_name_nul, sums, "base\0/x")
NAME(sums_name_dot, sums, "./base")
NAME(sums_name_none, sums, "")
NAME(sums_name_newline, sums, "a\nb ...")
SPOIL(sums_name_long, s->sums.name = ((ProtobufCBinaryData){ 4096, (uint8_t *)text_of(4096) }))
SPOIL(sums_path_last, s->sums.path = MESSAGE_PASSES_MAX - 1)
SPOIL(sums_path_beyond, s->sums.path = MESSAGE_PASSES_MAX)
SPOIL(sums_offset_odd, s->sums.offset = 1)
SPOIL(sums_offset_beyond, s->sums.offset = MESSAGE_FILE_MAX + MESSAGE_BLOCK_BYTES)
SPOIL(sums_length_odd, s->sums.length++)
SPOIL(sums_length_max, s->sums.length = MESSAGE_SPAN_MAX)
SPOIL(sums_length_beyond, s->sums.length = MESSAGE_SPAN_MAX + MESSAGE_BLOCK_BYTES)
SPOIL(sums_reply_odd, s->sums_reply.sums.len = 15)
static uint8_t sums_too_many[16 * 8193];
SPOIL(sums_reply_max, s->sums_reply.sums = ((ProtobufCBinaryData){ 16 * 8192, sums_too_many }))
SPOIL(sums_reply_long, s->sums_reply.sums = ((ProtobufCBinaryData){ 16 * 8193, sums_too_many }))
SPOIL(sums_reply_time, s->sums_reply.mtime_ns = 1000000000)
SPOIL(sums_reply_size, s->sums_reply.size = MESSAGE_FILE_MAX + 1)
NAME(patch_name_up, patch, "..")
SPOIL(patch_path_beyond, s->patch.path = MESSAGE_PASSES_MAX)
SPOIL(patch_offset_beyond, s->patch.offset = MESSAGE_FILE_MAX + 1)
NAME(patch_end_name_up, patch_end, "a/..")
SPOIL(patch_end_path_beyond, s->patch_end.path = MESSAGE_PASSES_MAX)
SPOIL(patch_end_size_beyond, s->patch_end.size = MESSAGE_FILE_MAX + 1)
SPOIL(patch_end_time, s->patch_end.mtime_ns = 1000000000)
SPOIL(missing_all, s->present[0].missing = s->bounds[0]; s->present[0].n_missing = 4)
SPOIL(missing_odd, s->present[0].missing = s->bounds[0]; s->present[0].n_missing = 3)
SPOIL(busy_all, s->present[0].busy = s->bounds[0]; s->present[0].n_busy = 4)
SPOIL(busy_odd, s->present[0].busy = s->bounds[0]; s->present[0].n_busy = 3)
SPOIL(bounds_none, s->present[0].n_bounds = 0)
SPOIL(bounds_odd, s->present[1].n_bounds = 3)
SPOIL(bounds_unaligned, s->bounds[0][1] += 1)
SPOIL(bounds_empty, s->bounds[0][1] = s->bounds[0][0])
SPOIL(bounds_backward, s->bounds[0][0] = s->bounds[0][1] + 4096)
SPOIL(bounds_touching, s->bounds[1][2] = s->bounds[1][1])
SPOIL(bounds_overlapping, s->bounds[1][2] = s->bounds[1][0])
SPOIL(bounds_top, s->bounds[1][3] = FRAME_ADDRESS_MAX)
SPOIL(bounds_beyond, s->bounds[1][3] = FRAME_ADDRESS_MAX + 4096)
SPOIL(reason_max, s->abort.reason = text_of(1024))
SPOIL(reason_long, s->abort.reason = text_of(1025))
SPOIL(number_zero, s->failure.number = 0)
SPOIL(number_max, s->failure.number = 4095)
SPOIL(number_beyond, s->failure.number = 4096)
SPOIL(step_max, s->failure.step = text_of(64))
SPOIL(step_long, s->failure.step = text_of(65))
SPOIL(text_long, s->failure.text = text_of(1025))
SPOIL(text_control, s->failure.text = "no\x01")

static const struct rule rules[] = {
	RULE(HELLO, "hello.version", version_below_lowest),
	RULE(HELLO, NULL, version_equal),
	RULE(HELLO, "hello.version", lowest_zero),
	RULE(HELLO, "hello.purpose", purpose_none),
	RULE(HELLO, NULL, purpose_check),
	RULE(HELLO, "hello.purpose", purpose_unknown),
	RULE(HELLO, NULL, purpose_resume),
	RULE(HELLO, "hello.purpose", purpose_negative),
	RULE(HELLO, "hello.migration_id", id_short),
	RULE(HELLO, "hello.migration_id", id_none),
	RULE(HELLO, "hello.migration_id", id_long),
	RULE(HELLO, NULL, hello_software_max),
	RULE(HELLO, "hello.software", hello_software_long),
	RULE(HELLO, "hello.software", hello_software_newline),
	RULE(HELLO, NULL, hello_host_max),
	RULE(HELLO, "hello.host", hello_host_long),
	RULE(HELLO, "hello.host", hello_host_escape),
	RULE(HELLO, "hello.host", hello_host_delete),
	RULE(HELLO, "hello.host", hello_host_csi),
	RULE(HELLO, NULL, hello_host_accents),
	RULE(HELLO_REPLY, "hello_reply.route", route_short),
	RULE(HELLO_REPLY, "hello_reply.software", reply_software_long),
	RULE(HELLO_REPLY, "hello_reply.host", reply_host_long),
	RULE(HELLO_REPLY, NULL, problem_max),
	RULE(HELLO_REPLY, "hello_reply.criu_problem", problem_long),
	RULE(HELLO_REPLY, "hello_reply.kernel", kernel_long),
	RULE(HELLO_REPLY, "hello_reply.machine", machine_long),
	RULE(PLAN, "plan.workload", no_workload),
	RULE(PLAN, NULL, type_max),
	RULE(PLAN, "workload.type", type_long),
	RULE(PLAN, "workload.type", type_control),
	RULE(PLAN, NULL, workload_id_max),
	RULE(PLAN, "workload.id", workload_id_long),
	RULE(PLAN, "workload.root_pid", root_pid_zero),
	RULE(PLAN, "workload.root_pid", root_pid_negative),
	RULE(PLAN, "workload.pids", pid_zero),
	RULE(PLAN, "workload.pids", pid_negative),
	RULE(PLAN, "workload.files.path", file_relative),
	RULE(PLAN, "workload.files.path", file_empty),
	RULE(PLAN, "workload.files.path", file_upward),
	RULE(PLAN, NULL, file_max),
	RULE(PLAN, "workload.files.path", file_long),
	RULE(PLAN, "plan.cpuinfo", cpuinfo_long),
	RULE(PLAN, NULL, cpuinfo_max),
	RULE(PLAN, "plan.addresses", family_none),
	RULE(PLAN, "plan.addresses", family_swapped),
	RULE(PLAN, "plan.addresses", family_unknown),
	RULE(PLAN, "plan.addresses", address_short),
	RULE(PLAN, "plan.addresses", address_six_short),
	RULE(PLAN, NULL, prefix_zero),
	RULE(PLAN, "plan.addresses", prefix_four),
	RULE(PLAN, "plan.addresses", prefix_six),
	RULE(PLAN, "plan.neighbours", mac_short),
	RULE(PLAN, "plan.neighbours.mac", mac_zero),
	RULE(PLAN, "plan.neighbours.mac", mac_of_all),
	RULE(PLAN, "plan.neighbours.mac", mac_of_group),
	RULE(PLAN, "plan.neighbours", neighbour_family_unknown),
	RULE(PLAN, "plan.neighbours", neighbour_address_missing),
	RULE(PLAN, "plan.neighbours", neighbour_address_short),
	RULE(PLAN, "plan.addresses.device", device_none),
	RULE(PLAN, NULL, device_max),
	RULE(PLAN, "plan.addresses.device", device_long),
	RULE(PLAN, "plan.addresses.device", device_slash),
	RULE(PLAN, "plan.addresses.device", device_control),
	RULE(PLAN, "plan.sync_paths", sync_relative),
	RULE(PLAN, "plan.sync_paths", sync_empty),
	RULE(PLAN, "plan.sync_paths", sync_up),
	RULE(PLAN, "plan.sync_paths", sync_up_first),
	RULE(PLAN, "plan.sync_paths", sync_dot),
	RULE(PLAN, "plan.sync_paths", sync_double),
	RULE(PLAN, "plan.sync_paths", sync_slash_end),
	RULE(PLAN, "plan.sync_paths", sync_slashes),
	RULE(PLAN, NULL, sync_dots_in_names),
	RULE(PLAN, "plan.sync_paths", sync_long),
	RULE(PLAN, "plan.net_settings", plan_settings_up),
	RULE(PLAN_REPLY, NULL, what_max),
	RULE(PLAN_REPLY, "obstacle.what", what_long),
	RULE(PLAN_REPLY, "obstacle.cure", cure_long),
	RULE(PLAN_REPLY, "obstacle.cure", cure_control),
	RULE(BEGIN, "begin.data_channels", channels_none),
	RULE(BEGIN, NULL, channels_one),
	RULE(BEGIN, NULL, channels_max),
	RULE(BEGIN, "begin.data_channels", channels_many),
	RULE(SYNC, NULL, sync_last),
	RULE(SYNC, "sync.path", sync_beyond),
	RULE(BEGIN, NULL, fs_channels_max),
	RULE(BEGIN, "begin.fs_channels", fs_channels_many),
	RULE(SYNC_END, NULL, sync_end_last),
	RULE(SYNC_END, "sync_end.path", sync_end_beyond),
	RULE(PROBE, "probe.path", probe_beyond),
	RULE(PROBE, "probe.name", probe_name_short),
	RULE(PROBE, "probe.content", probe_content_long),
	RULE(LACKS, NULL, lacks_max),
	RULE(LACKS, "lacks.words", lacks_long),
	RULE(ARM, "arm.way", no_way),
	RULE(ARM, "arm.page_channels", page_channels_one),
	RULE(ARM, NULL, page_channels_none),
	RULE(ARM, NULL, settings_fine),
	RULE(ARM, "arm.net_settings", settings_cut),
	RULE(ARM, "arm.net_settings", settings_up),
	RULE(ARM, "arm.net_settings", settings_elsewhere),
	RULE(ARM, "arm.net_settings", settings_nameless),
	RULE(ARM, "arm.net_settings", settings_no_value),
	RULE(ARM, "arm.net_settings", settings_nul),
	RULE(ARM, "arm.net_settings", settings_control),
	RULE(SUMS, "sums.path or name", sums_name_up),
	RULE(SUMS, "sums.path or name", sums_name_absolute),
	RULE(SUMS, "sums.path or name", sums_name_nul),
	RULE(SUMS, "sums.path or name", sums_name_dot),
	RULE(SUMS, "sums.path or name", sums_name_none),
	RULE(SUMS, NULL, sums_name_newline),
	RULE(SUMS, "sums.path or name", sums_name_long),
	RULE(SUMS, NULL, sums_path_last),
	RULE(SUMS, "sums.path or name", sums_path_beyond),
	RULE(SUMS, "sums.offset", sums_offset_odd),
	RULE(SUMS, "sums.offset", sums_offset_beyond),
	RULE(SUMS, "sums.offset", sums_length_odd),
	RULE(SUMS, NULL, sums_length_max),
	RULE(SUMS, "sums.offset", sums_length_beyond),
	RULE(SUMS_REPLY, "sums_reply.sums", sums_reply_odd),
	RULE(SUMS_REPLY, NULL, sums_reply_max),
	RULE(SUMS_REPLY, "sums_reply.sums", sums_reply_long),
	RULE(SUMS_REPLY, "sums_reply.size or mtime", sums_reply_time),
	RULE(SUMS_REPLY, "sums_reply.size or mtime", sums_reply_size),
	RULE(PATCH, "patch.path or name", patch_name_up),
	RULE(PATCH, "patch.path or name", patch_path_beyond),
	RULE(PATCH, "patch.offset", patch_offset_beyond),
	RULE(PATCH_END, "patch_end.path or name", patch_end_name_up),
	RULE(PATCH_END, "patch_end.path or name", patch_end_path_beyond),
	RULE(PATCH_END, "patch_end.size or mtime", patch_end_size_beyond),
	RULE(PATCH_END, "patch_end.size or mtime", patch_end_time),
	RULE(FINISH, NULL, missing_all),
	RULE(FINISH, "finish.present.missing", missing_odd),
	RULE(FINISH, NULL, busy_all),
	RULE(FINISH, "finish.present.busy", busy_odd),
	RULE(FINISH, NULL, external_max),
	RULE(ARM, "arm.way.external", external_long),
	RULE(ARM, "arm.way.external", external_control),
	RULE(FINISH, "finish.present", space_zero),
	RULE(FINISH, NULL, space_max),
	RULE(FINISH, "finish.present", space_beyond),
	RULE(FINISH, "finish.present", image_pid_zero),
	RULE(FINISH, NULL, bounds_none),
	RULE(FINISH, "finish.present", bounds_odd),
	RULE(FINISH, "finish.present.bounds", bounds_unaligned),
	RULE(FINISH, "finish.present.bounds", bounds_empty),
	RULE(FINISH, "finish.present.bounds", bounds_backward),
	RULE(FINISH, "finish.present.bounds", bounds_touching),
	RULE(FINISH, "finish.present.bounds", bounds_overlapping),
	RULE(FINISH, NULL, bounds_top),
	RULE(FINISH, "finish.present.bounds", bounds_beyond),
	RULE(ABORT, NULL, reason_max),
	RULE(ABORT, "abort.reason", reason_long),
	RULE(FAILURE, "failure.number", number_zero),
	RULE(FAILURE, NULL, number_max),
	RULE(FAILURE, "failure.number", number_beyond),
	RULE(FAILURE, NULL, step_max),
	RULE(FAILURE, "failure.step", step_long),
	RULE(FAILURE, "failure.text", text_long),
	RULE(FAILURE, "failure.text", text_control),
	RULE(RESUME, "resume.migration_id", resume_id_short),
	RULE(STATE, "state.state", state_none),
	RULE(STATE, "state.state", state_beyond),
	RULE(STATE, NULL, state_aborted),
	RULE(STATE, NULL, state_reason_max),
	RULE(STATE, "state.reason", state_reason_long),
	RULE(STATE, "state.reason", state_reason_control),
	RULE(STATE, NULL, arrived_channel_max),
	RULE(STATE, "state.arrived.channel", arrived_channel_beyond),
};

static void test_samples_pass(void **state)
{
	struct wire_sample s;
	struct error err = { 0 };

	(void)state;
	for (int kind = 1; kind <= WIRE_SAMPLE_KINDS; kind++) {
		wire_sample_init(&s, (Phaul__Wire__Control__KindCase)kind);
		if (pass(&s.control, &err) < 0)
			fail_msg("%s: %s", message_name(s.control.kind_case), err.text);
	}
	assert_string_equal(message_name(KIND(PLAN)), "plan");
	assert_string_equal(message_name(KIND(ROUND_DONE)), "round_done");
	assert_string_equal(message_name(KIND(_NOT_SET)), "empty");
	assert_string_equal(message_name((Phaul__Wire__Control__KindCase)(WIRE_SAMPLE_KINDS + 1)), "empty");
}

static void test_rules(void **state)
{
	struct wire_sample s;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		char expected[128] = "";
		struct error err = { 0 };
		int r;

		wire_sample_init(&s, rules[i].kind);
		rules[i].spoil(&s);
		r = pass(&s.control, &err);
		if (rules[i].field)
			snprintf(expected, sizeof(expected), "whose field %s", rules[i].field);
		if (r != (rules[i].field ? -EPROTO : 0) || (r && !strstr(err.text, expected)))
			fail_msg("%s: %d \"%s\"", rules[i].source, r, err.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_samples_pass),
		cmocka_unit_test(test_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
